"""``fedlas evaluate`` and ``fedlas compare`` of files of others."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from fedlas import TopLabel, estimates, evaluate
from fedlas.calibrators import PlattScaling
from fedlas.cli import main

SITES = ["Cairo Children's Hospital, ward 3", "Lima", "Oslo"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A file of confidences: calibrated in Lima and Cairo, too sure in Oslo; and one of all classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1.0, 600).round(6)
    site = np.array(SITES)[np.arange(600) % 3]
    right = rng.random(600) < confidence - 0.25 * (site == "Oslo")
    label = np.array(["cat", "dog"])[rng.integers(0, 2, 600)]
    predicted = np.where(right, label, "owl")
    np.savez("top.npz", confidence=confidence, correct=right, site=site)
    rows = zip(confidence, predicted, label, site, strict=True)
    lines = ["conf,said,is,site", *(f'{c},{p},{y},"{s}"' for c, p, y, s in rows)]
    (tmp_path / "top.csv").write_text("\n".join(lines))
    (tmp_path / "shuffled.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    logits = rng.normal(size=(600, 3)) * 3
    target = rng.integers(0, 3, 600)
    logits[np.arange(600), target] += 3
    np.savez("all.npz", logits=logits, target=target, site=site)
    np.savez("noisy.npz", logits=logits + 3 * rng.normal(size=logits.shape), target=target)
    return confidence, right


NAMED = ("--confidence", "conf", "--predicted", "said", "--target", "is")


@pytest.mark.parametrize("given", [("top.npz",), ("top.csv", *NAMED)])
def test_confidences_alone(files, given, capsys):
    top = TopLabel(*files)
    assert main(["evaluate", *given, "--replicates", "60", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["as predicted"] == evaluate(top)
    assert (
        found["intervals"]["as predicted"]["ece"]
        == estimates(top, ["ece"], replicates=60)["ece"].to_dict()
    )
    assert main(["evaluate", *given, "--replicates", "60"]) == 0
    said = capsys.readouterr().out
    assert "600 samples, confidences of the predicted class only, 15 bins" in said
    assert "NLL" not in said


def test_confidences_are_calibrated_on_others(files, capsys):
    confidence, right = files
    given = [
        "top.csv",
        *NAMED,
        "--on",
        "rest.csv",
        "--replicates",
        "0",
        "--method",
        "platt",
        "--json",
    ]
    lines = Path("top.csv").read_text().splitlines()
    Path("rest.csv").write_text("\n".join(lines[:301]))
    assert main(["evaluate", *given]) == 0
    found = json.loads(capsys.readouterr().out)
    val = TopLabel(confidence[:300], right[:300])
    assert found["after platt"] == evaluate(
        PlattScaling().fit(val).transform(TopLabel(confidence, right))
    )


def test_a_page_of_confidences(files, capsys):
    pytest.importorskip("jinja2")
    assert (
        main(
            [
                "evaluate",
                "top.npz",
                "--groups",
                "site",
                "--replicates",
                "60",
                "--report",
                "out.html",
            ]
        )
        == 0
    )
    page = Path("out.html").read_text(encoding="utf-8")
    assert "600 samples, confidences of the predicted class only" in page
    assert "Oslo" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["top.npz", "--method", "temperature", "--on", "all.npz"], "--on must be of the same kind as the predictions"),
        (["top.npz", "--method", "all", "--on", "top.npz"], "all requires probabilities"),
        (["all.npz", "--groups", "site", "--method", "all", "--on", "noisy.npz"], "requires at most one calibrator"),
        (["all.npz", "--groups", "hospital"], "--groups must name a column of all.npz; got 'hospital'"),
        (["top.csv"], r"columns conf, said, is, site. Pass .*; or --confidence NAME and --correct NAME"),
        (["top.csv", "--confidence", "conf"], "name a column of outcomes; got none. Pass --correct NAME"),
    ],
)  # fmt: skip
def test_evaluate_refuses(files, given, message, capsys):
    assert main(["evaluate", *given, "--replicates", "60"]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_groups_table_fits_terminal_and_names_worst(files, capsys):
    assert main(["evaluate", "top.npz", "--groups", "site", "--replicates", "200"]) == 0
    said = capsys.readouterr().out
    lines = said.split("\n")
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert "Groups: 'Oslo' is calibrated worst, overconfident, ECE" in said
    assert "after Holm's correction for 3 groups" in " ".join(said.split())
    assert "Cairo Children's…" in said
    assert [line.split()[0] for line in lines if line.startswith((" all", " Oslo"))] == [
        "all",
        "Oslo",
    ]
    assert main(["evaluate", "all.npz", "--groups", "site", "--replicates", "60", "--details"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.split("\n"))) <= 80
    assert "NLL" in said


def test_groups_in_json_and_after_a_calibrator(files, capsys):
    options = [
        "--groups",
        "site",
        "--method",
        "temperature",
        "--on",
        "noisy.npz",
        "--replicates",
        "60",
    ]
    assert main(["evaluate", "all.npz", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["groups"]
    assert {*found} == {"as predicted", "after temperature"}
    assert {*found["as predicted"]} == {*SITES}
    assert found["as predicted"]["Lima"]["ece"]["floor"] > 0
    assert main(["evaluate", "all.npz", *options]) == 0
    assert "Groups by site, after temperature" in capsys.readouterr().out


def test_weights_of_a_column(files, capsys):
    confidence, right = files
    np.savez("weighted.npz", confidence=confidence, correct=right, mass=np.arange(600) % 3)
    assert (
        main(["evaluate", "weighted.npz", "--weights", "mass", "--replicates", "60", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["as predicted"] == evaluate(TopLabel(confidence, right, np.arange(600) % 3))


def test_groups_that_are_not_tested(files, capsys):
    assert main(["evaluate", "top.npz", "--groups", "site", "--replicates", "0"]) == 0
    assert "none was tested" in capsys.readouterr().out


def test_ten_groups_are_shown_and_the_rest_counted(files, capsys):
    confidence, right = files
    np.savez("many.npz", confidence=confidence, correct=right, part=np.arange(600) % 15)
    assert main(["evaluate", "many.npz", "--groups", "part", "--replicates", "60"]) == 0
    assert "5 further groups: details=True, or --details." in capsys.readouterr().out
    assert (
        main(["evaluate", "many.npz", "--groups", "part", "--replicates", "60", "--details"]) == 0
    )
    assert "further groups" not in capsys.readouterr().out


def test_what_was_made_of_rows_is_printed(files, capsys):
    rows = "p_a,p_b,y,v_a,v_b\n10,30,a,1,3\n,30,b,1,1\n50,50,b,2,2\n80,20,a,4,0\n"
    Path("counts.csv").write_text(rows)
    options = [
        "--probs",
        "p_*",
        "--target",
        "y",
        "--label-probs",
        "v_*",
        "--normalize",
        "--drop-missing",
        "--json",
    ]
    assert main(["evaluate", "counts.csv", *options, "--replicates", "0"]) == 0
    found = capsys.readouterr()
    assert "1 of 4 rows lack a value and were left out" in found.err
    assert "3 of 3 rows were divided by their sums, from 40 to 100." in found.err
    assert "Label distributions: 3 of 3 rows were divided" in found.err
    assert "true_ece" in json.loads(found.out)["as predicted"]


def test_probabilities_taken_for_logits_are_warned_of(files, capsys):
    rng = np.random.default_rng(0)
    np.savez("probs.npz", logits=rng.dirichlet(np.ones(3), 50), target=rng.integers(0, 3, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["evaluate", "probs.npz", "--replicates", "0"]) == 0
    assert "almost surely probabilities" in (said := capsys.readouterr().err)
    assert "name their columns by --probs" in said
    assert (
        main(
            [
                "evaluate",
                "probs.npz",
                "--probs",
                "logits",
                "--target",
                "target",
                "--replicates",
                "0",
            ]
        )
        == 0
    )
    assert "almost surely" not in capsys.readouterr().err


def test_compare_two_files(files, capsys):
    assert main(["compare", "all.npz", "noisy.npz", "--replicates", "99"]) == 0
    said = capsys.readouterr().out
    assert "all.npz is better than noisy.npz in Accuracy by" in said
    assert "A: all.npz, B: noisy.npz, 600 samples" in said
    assert max(map(len, said.split("\n"))) <= 80
    assert (
        main(
            ["compare", "all.npz", "noisy.npz", "--replicates", "99", "--json", "--metrics", "nll"]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["nll"]
    assert found["nll"]["better"] == "a"
    assert found["nll"]["difference"] == found["nll"]["a"] - found["nll"]["b"]
    for name in ("top.csv", "top.npz"):
        shutil.copy(name, f"twin-{name}")
    twins = ["compare", "top.csv", "twin-top.csv", *NAMED]
    assert main([*twins, "--replicates", "99", "--markdown"]) == 0
    said = capsys.readouterr()
    assert "top.csv and twin-top.csv are not distinguishable in Accuracy and ECE." in said.out
    assert "| metric" in said.out
    assert "holds no labels" not in said.err
    assert main(["compare", "top.npz", "twin-top.npz", "--replicates", "99"]) == 0
    assert "a file has no labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["top.csv", "shuffled.csv", *NAMED],
            "labels that differ in .* of 600 rows, first in row .*Sort both files",
        ),
        (["top.npz", "none.npz"], "the file must exist; got none.npz"),
        (
            ["top.npz", "all.npz", "--metrics", "nll"],
            "'nll' needs the probabilities of all classes",
        ),
        (["top.npz", "top.npz", "--replicates", "0"], "replicates must be at least 39"),
    ],
)
def test_compare_refuses(files, given, message, capsys):
    assert main(["compare", *given]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["top.npz"],
            "must be two prediction files, files of seeds and --with, or bench folders; got 1 name.",
        ),
        (
            ["top.npz"] * 3,
            "must be two prediction files, files of seeds and --with, or bench folders; got 3",
        ),
        (
            ["top.npz", "all.npz", "--stage", "auto"],
            "--stage can only be used with folders of benches; got two files",
        ),
        (
            ["top.npz", "all.npz", "--details"],
            "--details can only be used with folders of benches or lists of seeds; got two",
        ),
        (
            [".", "a:b", "--json"],
            "--json can only be used with lists of seeds or two files; got folders of",
        ),
        (
            [".", "a:b", "--weights", "w"],
            "--weights can only be used with lists of seeds or two files; got folders",
        ),
        (["none", "a:b"], "the bench folder must exist"),
    ],
)
def test_options_of_other_inputs_are_rejected(files, given, message, capsys):
    assert main(["compare", *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_compare_prints_latex_with_title(files, capsys):
    twins = ["compare", "all.npz", "noisy.npz", "--metrics", "nll", "--replicates", "39"]
    assert main([*twins, "--latex", "--title", "Old and new"]) == 0
    shown = capsys.readouterr().out
    assert "\\caption{Old and new. " in shown
    assert shown.startswith("\\begin{table}")
    assert "\\label{tab:Old-and-new}" in shown


CSV = ["top.csv", *NAMED]
READ_AND_WRITTEN = {
    "--junit": ["evaluate", *CSV, "--require", "accuracy >= 0.1", "--junit", "top.csv"],
    "--junit of compare": [
        "compare", "all.npz", "noisy.npz", "--fail-if-worse", "accuracy", "--junit", "noisy.npz",
    ],
    "--report": ["evaluate", "top.html", *NAMED, "--report", "top.html"],
    "--out of apply": ["apply", "cal.json", "top.csv", "--out", "cal.csv"],
    "the default of apply": ["apply", "cal.json", "top.csv", "top.calibrated.csv"],
    "--page of monitor": ["monitor", "card.json", "top.html", "--page", "top.html"],
    "--out of card": ["card", "all.npz", "top.json", "--out", "top.json"],
}  # fmt: skip


@pytest.mark.parametrize("case", READ_AND_WRITTEN)
def test_no_command_writes_what_it_reads(files, case, tmp_path, capsys):
    assert main(["calibrate", *CSV, "--method", "isotonic", "--out", "cal.json"]) == 0
    (tmp_path / "top.calibrated.csv").write_bytes((tmp_path / "top.csv").read_bytes())
    (tmp_path / "cal.csv").symlink_to("top.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert main(READ_AND_WRITTEN[case]) == 2
    assert "must be another file" in " ".join(capsys.readouterr().err.split())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_column_list_may_exceed_file_name_limit(files, capsys):
    names = ",".join(f"p_{number}" for number in range(80))
    assert main(["compare", "all.npz", "noisy.npz", "--probs", names, "--target", "target"]) == 2
    assert "'p_0'" in capsys.readouterr().err


def test_a_title_in_markdown_is_escaped(files, tmp_path, capsys):
    (tmp_path / "a|b_[x].npz").write_bytes((tmp_path / "all.npz").read_bytes())
    assert main(["compare", "a|b_[x].npz", "noisy.npz", "--replicates", "60", "--markdown"]) == 0
    assert r"A: a\|b_\[x\].npz" in capsys.readouterr().out
