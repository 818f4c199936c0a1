"""Gates of a pipeline: requirements that hold, fail or are within chance, and how a pipeline hears of it."""

import argparse
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import fedlas
from fedlas.cli import main, parsers
from fedlas.errors import InputError
from fedlas.present.gate import Requirement, check_not_worse, check_requirement
from fedlas.stats import Estimate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Predictions of a calibrated model, and of one that is three times too sure."""
    place = tmp_path_factory.mktemp("gate")
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1500, 3, generator=random)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    fedlas.Predictions(logits, target).save(place / "good.npz")
    fedlas.Predictions(3 * logits, target).save(place / "sure.npz")
    return place


@pytest.mark.parametrize(
    ("rule", "low", "high", "outcome"),
    [
        ("ece<=0.03", 0.031, 0.05, "fails"),
        ("ece<=0.03", 0.01, 0.03, "holds"),
        ("ece<=3%", 0.02, 0.04, "unknown"),
        ("accuracy >= 90 %", 0.8, 0.89, "fails"),
        ("accuracy>=.9", 0.9, 0.95, "holds"),
        ("accuracy>=0.9", 0.85, 0.95, "unknown"),
    ],
)
def test_the_interval_decides(rule, low, high, outcome):
    check = check_requirement(
        Requirement.parse(rule, ["ece", "accuracy"]), Estimate((low + high) / 2, low, high)
    )
    assert check.outcome == outcome


@pytest.mark.parametrize(
    "rule", ["ece", "ece<0.03", "ece<=", "ece<=a", "eec<=0.03", "", "ece<=0.03 nll<=1"]
)
def test_what_states_nothing_is_refused(rule):
    with pytest.raises(InputError, match="a rule must"):
        Requirement.parse(rule, ["ece", "nll"])


def test_significantly_worse_model_fails(folder):
    good, sure = (fedlas.Predictions.load(folder / f"{name}.npz") for name in ("good", "sure"))
    worse = fedlas.compare(sure, good, ["nll", "accuracy"], replicates=199)
    names = ("new", "old")
    assert check_not_worse(worse["nll"], 0.0, names).outcome == "fails"
    assert check_not_worse(worse["nll"], worse["nll"].low, names).outcome == "unknown"
    assert check_not_worse(worse["nll"], worse["nll"].high, names).outcome == "holds"
    assert check_not_worse(worse["accuracy"], 0.0, names).outcome == "unknown"
    better = fedlas.compare(good, sure, ["nll"], replicates=199)
    assert check_not_worse(better["nll"], 0.0, names).outcome == "holds"


def test_a_gate_that_holds_and_one_that_fails(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    holds = ["evaluate", "good.npz", "--replicates", "99", "--require", "ece<=0.1", "nll<=2"]
    assert main(holds) == 0
    assert "Holds: ECE" in " ".join(capsys.readouterr().out.split())
    fails = [
        "evaluate",
        "sure.npz",
        "--replicates",
        "99",
        "--require",
        "ece<=0.1",
        "--junit",
        "gate.xml",
        "--github",
    ]
    assert main(fails) == 3
    shown = capsys.readouterr().out
    assert "::error title=ece<=0.1::Fails: ECE" in shown
    assert "%25" in shown
    (case,) = ElementTree.parse("gate.xml").getroot()
    assert case.attrib == {"classname": "sure.npz", "name": "ece<=0.1"}
    assert case[0].tag == "failure"
    repaired = ["evaluate", "good.npz", "--on", "sure.npz", "--method", "temperature"]
    # the last stage is what counts
    assert main([*repaired, "--replicates", "99", "--require", "ece<=0.1"]) == 3


def test_no_command_of_a_runner_comes_from_data(tmp_path, monkeypatch, capsys):
    """Names of groups begin lines of the table; ``##[`` is read anywhere in a line."""
    monkeypatch.chdir(tmp_path)
    names = ["::stop-commands::x", "  ::set-output name=a::b", "b##[add-mask]a", "c\r::error::d"]
    rows = [f"{0.2 + 0.6 * (i % 2)},{i % 2},{names[i % 4]!r}" for i in range(200)]
    live = tmp_path / "::warning::%0A::error::x.csv"
    live.write_text("\n".join(["p,y,g", *rows, ""]).replace("'", '"').replace("\\r", "\r"))
    columns = ["--probs", "p", "--target", "y", "--groups", "g", "--replicates", "39"]
    assert main(["evaluate", live.name, *columns, "--require", "ece<=0.5", "--github"]) == 0
    output = capsys.readouterr()
    lines = [line.strip() for line in (output.out + output.err).replace("\r", "\n").split("\n")]
    commands = [line for line in lines if line.startswith("::")]
    assert [command.partition(" ")[0] for command in commands] == ["::notice"]
    assert "%0A" not in commands[0]
    assert not [line for line in lines if "##[" in line]
    assert r"\u003a:stop-commands::x" in output.out


def test_a_new_model_against_the_old_one(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    gate = ["--fail-if-worse", "nll", "ece", "--replicates", "99"]
    assert main(["compare", "good.npz", "sure.npz", *gate]) == 0
    assert "Holds: good.npz is better than sure.npz in NLL" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["compare", "sure.npz", "good.npz", *gate, "--junit", "new.xml"]) == 3
    assert ElementTree.parse("new.xml").getroot().attrib["failures"] == "2"
    assert main(["compare", "sure.npz", "good.npz", *gate, "--margin", "0.9", "--json"]) == 0
    output = capsys.readouterr()
    assert "Holds: sure.npz is worse" in " ".join(output.err.split())


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["evaluate", "good.npz", "--require", "ece<=x"], "METRIC<=NUMBER or METRIC>=NUMBER"),
        (
            ["evaluate", "good.npz", "--require", "ece<=1", "--replicates", "0"],
            "requires intervals",
        ),
        (["evaluate", "good.npz", "--github"], "--github requires --require"),
        (
            [
                "evaluate",
                "good.npz",
                "--on",
                "sure.npz",
                "--method",
                "all",
                "--require",
                "ece<=1",
            ],
            "must not be combined with --method all",
        ),
        (["compare", "good.npz", "sure.npz", "--fail-if-worse", "eec"], "'eec'"),
        (["compare", "good.npz", "sure.npz", "--margin", "0.1"], "--margin requires"),
        (
            ["compare", "good.npz", "sure.npz", "--fail-if-worse", "ece", "--margin", "-1"],
            "margin must be",
        ),
        (["compare", "good.npz", "sure.npz", "--junit", "x.xml"], "--junit requires"),
    ],
)
def test_wrong_arguments(folder, monkeypatch, capsys, args, match):
    monkeypatch.chdir(folder)
    assert main(args) == 2
    assert match in " ".join(capsys.readouterr().err.split())
    assert not Path("x.xml").exists()


@pytest.mark.parametrize(
    ("rule", "read"), [("ece<=0.0x", False), ("eec<=0.03", True), ("ece>=0.03", True)]
)
def test_invalid_rule_is_rejected_before_writing_page(
    folder, tmp_path, monkeypatch, capsys, rule, read
):
    """The page and the table were there before the error."""
    monkeypatch.chdir(folder)
    page = tmp_path / "page.html"
    words = ["good.npz" if read else "no-such-file.npz", "--replicates", "39", "--report"]
    assert main(["evaluate", *words, str(page), "--require", "nll<=9", rule]) == 2
    shown = capsys.readouterr()
    assert (shown.out, "a rule must" in shown.err, page.exists()) == ("", True, False)


def next_command(out):
    """The command behind ``next:``, as a shell joins its lines, none of which is wider than a terminal."""
    lines = out[out.index("next: ") :].rstrip("\n").split("\n")
    assert max(map(len, lines)) <= 80
    return " ".join(line.removesuffix("\\").strip() for line in lines).removeprefix("next: ")


def test_the_next_step_can_be_pasted(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    fedlas.Predictions.load("good.npz").to_frame().to_csv("val.csv", index=False)
    fedlas.Predictions.load("sure.npz").to_frame().to_csv("test.csv", index=False)
    names = ["--probs", "prob_*", "--target", "target", "--drop-missing", "--replicates", "99"]
    assert main(["evaluate", "test.csv", *names]) == 0
    asked = "fedlas evaluate test.csv --on VAL --probs 'prob_*' --target target --drop-missing"
    assert next_command(capsys.readouterr().out) == asked
    assert main(["evaluate", "test.csv", *names, "--on", "val.csv", "--method", "temperature"]) == 0
    wanted = "calibrate val.csv --probs 'prob_*' --target target --drop-missing --method temperature --out cal.json"
    assert next_command(capsys.readouterr().out) == f"fedlas {wanted}"
    assert main(wanted.replace("'", "").split()) == 0


def test_the_next_step_says_again_what_was_said(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    table = fedlas.Predictions.load("sure.npz").to_frame()
    for name in ("my a.csv", "b.csv"):
        table.to_csv(name, index=False)
    names = ["--probs", "prob_*", "--target", "target"]
    more = ["--top-label", "--num-bins", "20", "--confidence-level", "0.9"]
    files = ["evaluate", "my a.csv", "b.csv"]
    assert main([*files, *names, *more, "--replicates", "99"]) == 0
    words = shlex.split(next_command(capsys.readouterr().out))
    assert words == ["fedlas", *files, "--on", "VAL", *names, *more]
    by_reject = ["--on", "my a.csv", "--reject", "0.05", "--replicates", "99"]
    assert main([*files, *names, *by_reject]) == 0
    words = shlex.split(next_command(capsys.readouterr().out))
    kept = ["--on", "my a.csv", "--method", "auto"]
    assert sorted(words) == sorted(["fedlas", *files, *kept, *names, "--reject", "0.05"])


def test_the_next_step_fits_what_was_measured(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    table = fedlas.Predictions.load("sure.npz").to_frame()
    table[::2].to_csv("val.csv", index=False)
    table = table[1::2]
    table["site"] = ["a", "b"] * (len(table) // 2) + ["a"] * (len(table) % 2)
    table.to_csv("test.csv", index=False)
    names = ["--probs", "prob_*", "--target", "target"]
    command = ["evaluate", "test.csv", "--on", "val.csv", *names, "--groups", "site"]
    assert main([*command, "--replicates", "99"]) == 0
    words = shlex.split(next_command(capsys.readouterr().out))
    assert words == ["fedlas", "calibrate", "val.csv", *names, "--out", "cal.json"]


@pytest.mark.parametrize(
    "rules",
    [
        ["--require", "accuracy>=99%", "--require", "nll<=2"],
        ["--require", "nll<=2", "--require", "accuracy>=99%"],
    ],
)
def test_require_given_twice_holds_both_rules(folder, monkeypatch, capsys, rules):
    monkeypatch.chdir(folder)
    assert main(["evaluate", "good.npz", "--replicates", "99", *rules]) == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert "Holds: NLL" in shown
    assert "Fails: Accuracy" in shown


def test_fail_if_worse_given_twice_holds_both_metrics(folder, monkeypatch):
    monkeypatch.chdir(folder)
    gate = ["--fail-if-worse", "nll", "--fail-if-worse", "accuracy", "--replicates", "99"]
    assert main(["compare", "sure.npz", "good.npz", *gate]) == 3


def test_each_option_of_several_values_extends():
    seen = set()
    for name, parser in parsers()[1].items():
        for action in parser._actions:
            # the rules of --threshold extend by their names: test_positive_class.py
            if action.nargs == "+" and action.option_strings not in ([], ["--threshold"]):
                numeric = action.type in (int, float)
                values = [action.type(1), action.type(2)] if numeric else ["a", "b"]
                namespace = argparse.Namespace(**{action.dest: action.default})
                for value in values:
                    action(parser, namespace, [value], action.option_strings[0])
                assert list(getattr(namespace, action.dest)) == values, (name, action.dest)
                seen.add(f"{name} {action.option_strings[0]}")
    assert {"evaluate --require", "compare --fail-if-worse", "card --risks", "tune --seeds"} <= seen


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ("ece<=3", "always holds"),
        ("ece<=100%", "always holds"),
        ("accuracy>=-1", "always holds"),
        ("accuracy>=90", "never holds"),
        ("nll<=1e400", "always holds"),
        ("brier<=2", "always holds"),
        ("ece>=0.01", "smaller is better"),
        ("accuracy<=0.9", "larger is better"),
        ("ece<=-0.1", "never holds"),
    ],
)
def test_a_bound_that_decides_nothing_is_refused(rule, match):
    with pytest.raises(InputError, match=match):
        Requirement.parse(rule, ["ece", "accuracy", "nll", "brier"])


@pytest.mark.parametrize("metrics", [["ece"], ["nll", "accuracy"], ["ece", "nll"]])
def test_a_margin_that_allows_anything_is_refused(folder, monkeypatch, capsys, metrics):
    monkeypatch.chdir(folder)
    gate = ["--fail-if-worse", *metrics, "--margin", "1"]
    assert main(["compare", "good.npz", "sure.npz", *gate]) == 2
    assert "margin must be less than 1" in " ".join(capsys.readouterr().err.split())


def test_a_file_is_not_compared_with_itself(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["compare", "good.npz", str(folder / "good.npz"), "--fail-if-worse", "nll"]) == 2
    assert "which are the same file" in capsys.readouterr().err


def test_compare_notes_identical_predictions(tmp_path, capsys):
    for name in ("a.csv", "b.csv"):
        rows = [f"{0.01 * row:.2f},{row % 2}" for row in range(1, 100)]
        (tmp_path / name).write_text("\n".join(["p,y", *rows]) + "\n")
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert main(["compare", *files, "--probs", "p", "--target", "y", "--replicates", "50"]) == 0
    assert "both files have the same scores" in capsys.readouterr().err


def test_strict_undecided_rule_has_own_status(folder, monkeypatch):
    monkeypatch.chdir(folder)
    share = fedlas.evaluate(fedlas.Predictions.load("good.npz"))["accuracy"]
    gate = ["evaluate", "good.npz", "--replicates", "99", "--require", f"accuracy>={share:.3f}"]
    assert main(gate) == 0
    assert main([*gate, "--strict", "--junit", "strict.xml"]) == 4
    assert ElementTree.parse("strict.xml").getroot().attrib["failures"] == "1"
    assert main([*gate, "accuracy>=99%", "--strict"]) == 3


def test_gate_on_minority_of_rows_fails(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    table = fedlas.Predictions.load("good.npz").to_frame()
    table.loc[3:, "prob_0"] = None
    table.to_csv("holes.csv", index=False)
    names = ["--probs", "prob_*", "--target", "target", "--drop-missing", "--replicates", "99"]
    assert main(["evaluate", "holes.csv", *names, "--require", "nll<=9"]) == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert "1,497 of 1,500 rows lack a value" in shown
    assert "Cannot tell: only 3 samples" in shown


def test_a_card_is_a_gate_too(folder, tmp_path, capsys):
    """By the rules of evaluate, on the calibrated predictions; the card is written all the same."""
    card = tmp_path / "card.json"
    command = ["card", str(folder / "sure.npz"), str(folder / "good.npz"), "--method", "none"]
    command += ["--out", str(card), "--replicates", "99", "--risks", "0.5"]
    assert main([*command, "--require", "calibrated", "ece<=0.2"]) == 0
    assert (
        main([*command, "--require", "accuracy>=0.99", "--junit", str(tmp_path / "gate.xml")]) == 3
    )
    assert card.is_file()
    assert "accuracy" in (tmp_path / "gate.xml").read_text()
    card.unlink()
    assert main([*command, "--require", "no_metric<=0.1"]) == 2
    assert main([*command, "--strict"]) == 2
    assert not card.exists()
    assert "--strict requires --require" in capsys.readouterr().err
