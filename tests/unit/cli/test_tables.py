"""Tables on the command line: what calibrate and apply print, refuse and write, and where options go."""

import csv
import io
import json
import re
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedlas
from fedlas.cli import main


def frame(rows=300):
    """Probabilities of a model that is three times too sure, and labels."""
    random = np.random.default_rng(rows)
    logit = random.normal(size=rows)
    label = np.where(random.random(rows) < 1 / (1 + np.exp(-logit)), "yes", "no")
    p = 1 / (1 + np.exp(-3 * logit))
    return pd.DataFrame({"id": range(rows), "p_no": 1 - p, "p_yes": p, "y": label})


@pytest.fixture(scope="module")
def calibration():
    return fedlas.calibrate(frame(), probs="p_*", target="y", method="temperature")


def write_tables(folder):
    frame(300).to_csv(folder / "val.csv", index=False)
    frame(80).drop(columns="y").to_csv(folder / "live.csv", index=False)


def test_the_commands_say_what_they_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    assert (
        main(
            [
                "calibrate",
                "val.csv",
                "--probs",
                "p_*",
                "--target",
                "y",
                "--out",
                "cal.json",
                "--details",
            ]
        )
        == 0
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "300 rows, classes no, yes." in shown
    assert "The event 'yes' on 300 rows left out of the fit in turn: O/E" in shown
    assert "auto (temperature" in shown
    assert "next: fedlas apply cal.json LIVE.csv --out LIVE.calibrated.csv" in shown
    assert main(["apply", "cal.json", "live.csv"]) == 0
    shown = capsys.readouterr().out
    assert "80 rows; added calibrated_p_no, calibrated_p_yes: probabilities from 0 to 1." in shown
    after = pd.read_csv("live.calibrated.csv")
    loaded = fedlas.TableCalibration.load("cal.json")
    np.testing.assert_allclose(
        after["calibrated_p_yes"], loaded.apply(pd.read_csv("live.csv"))["calibrated_p_yes"]
    )


def test_options_of_the_method_are_set_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    line = ["calibrate", "val.csv", "--probs", "p_*", "--target", "y", "--out", "cal.json"]
    assert main([*line, "--method", "vector", "--method-set", "num_folds=null"]) == 0
    assert fedlas.TableCalibration.load("cal.json").calibrator.num_folds is None
    for settings_, match in (("num_fold=3", "num_folds"), ("num_folds", "KEY=VALUE")):
        assert main([*line, "--method", "vector", "--method-set", settings_]) == 2
        assert match in capsys.readouterr().err


def test_standard_input_and_output(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    for args in (
        ["calibrate", "-", "--probs", "p_*", "--target", "y", "--out", "cal.json"],
        ["apply", "cal.json", "-"],
    ):
        content = Path("val.csv" if args[0] == "calibrate" else "live.csv").read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert main(args) == 0
    written, notes = capfdbinary.readouterr()
    assert main(["apply", "cal.json", "live.csv", "--out", "out.csv"]) == 0
    assert written.endswith(Path("out.csv").read_bytes())
    assert b"80 rows; added" in notes


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (
            ["calibrate", "val.csv", "--probs", "p_*", "--target", "y", "--out", "live.csv"],
            "must end in .json",
        ),
        (
            ["calibrate", "val.csv", "--probs", "p_*", "--target", "y", "--out", "other.json"],
            "must be new, or a calibration",
        ),
        (
            ["calibrate", "*.csv", "--probs", "p_*", "--target", "y"],
            "--out is required when VAL is not",
        ),
        (
            ["calibrate", "val.csv", "--probs", "p_*", "--target", "y", "--method", "aut"],
            "did you mean|auto",
        ),
        (["calibrate", "val.csv", "--probs", "p_*"], "must have labels"),
        (["calibrate", "val.csv"], "scores and labels must be named"),
        (["apply", "cal.json", "live.csv", "--out", "live.csv"], "must be another file"),
        (
            ["apply", "cal.json", "live.csv", "--out", "out.npz"],
            "--out must be an .npz if, and only if",
        ),
        (["apply", "other.json", "live.csv"], "calibration of a table"),
        (["apply", "cal.json", "none.csv"], "must exist"),
        (["apply", "cal.json", "notes.txt"], "must end in"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, calibration, args, match):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    calibration.save("cal.json")
    Path("other.json").write_text("{}")
    Path("notes.txt").write_text("x")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(args) == 2
    assert re.search(match, " ".join(capsys.readouterr().err.split()))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_folder_one_is_in_is_a_table(tmp_path, monkeypatch, capsys):
    """Its name is none, after which to name what is written."""
    (tmp_path / "live").mkdir()
    frame(40).to_parquet(tmp_path / "live" / "a.parquet")
    monkeypatch.chdir(tmp_path / "live")
    columns = ["--probs", "p_*", "--target", "y", "--method", "temperature"]
    assert main(["calibrate", ".", *columns]) == 0
    assert main(["apply", "../live.calibration.json", "."]) == 0
    most = [
        "apply",
        "../live.calibration.json",
        "a.parquet",
        "--out",
        "b.parquet",
        "--max-missing",
        "1%",
    ]
    assert main(most) == 2
    assert "Choose --missing empty, or leave --max-missing out." in capsys.readouterr().err
    assert main(["compare", "../live", "a.parquet", *columns[:4], "--replicates", "40"]) == 0
    assert (tmp_path / "live.calibrated.parquet").exists()


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("apply cal.json {here}/live.csv --out file://live.csv", "be another file"),
        ("apply cal.json file://live.csv --out {here}/x/../live.csv", "be another file"),
        ("apply cal.json {here}/live.csv --out file://cal.json", "end in .csv"),
        ("apply cal.json *.csv --out live.csv", "be another file"),
        ("apply cal.json l*.csv --out late.csv", "not match what is read"),
        ("apply cal.json *.csv", "not match what is read"),
        ("apply cal.json day --out file://day/all.parquet", "lie outside the folder"),
        ("apply cal.json memory://in/live.csv --out memory://in/x/../live.csv", "be another file"),
        ("apply cal.json memory://in/*.csv --out memory://in/live.csv", "not match"),
        ("apply cal.json memory://in --out memory://in/a.parquet", "lie outside the folder"),
        ("apply cal.json *.csv --out all.parquet --summary live.csv", "be another file"),
        ("apply cal.json *.csv --out all.parquet --summary file://all.parquet", "path on"),
        ("apply cal.json live.csv --out file://all.csv --summary all.csv", "another file"),
        (
            "evaluate *.csv --probs p_* --target y --require ece<=0.1 --junit val.csv",
            "another file",
        ),
    ],
)
def test_no_output_is_an_input_by_any_name(
    calibration, tmp_path, monkeypatch, capsys, command, what
):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "day").mkdir()
    frame(40).to_parquet("day/a.parquet")
    calibration.save("cal.json")
    for name in ("live.csv", "a.parquet"):
        with fsspec.open(f"memory://in/{name}", "wb") as file:
            source = Path("day", name) if name == "a.parquet" else Path(name)
            file.write(source.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with suppress(SystemExit):
        assert main(command.format(here=tmp_path).split()) == 2
    assert what in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_files_may_have_two_separators(tmp_path, monkeypatch, capsys):
    """One --sep was for both, and the second file had one column."""
    monkeypatch.chdir(tmp_path)
    for shift, (name, sign) in enumerate(
        (("a.csv", "^"), ("b.csv", ","), ("c.tsv", "\t"), ("d.csv", "^"))
    ):
        y = 1 if name in ("a.csv", "b.csv") else 2
        rows = [
            ["p", "y"],
            *([f"{0.2 + shift / 99 + 0.01 * n:.3f}", n // y % 2] for n in range(40)),
        ]
        with Path(name).open("w", newline="") as file:
            csv.writer(file, delimiter=sign).writerows(rows)
    named = ["--probs", "p", "--target", "y", "--sep", "^", "--replicates", "39"]
    for words in (
        ["evaluate", "b.csv", "--on", "a.csv", "--method", "temperature"],
        ["evaluate", "a.csv", "--on", "c.tsv", "--method", "temperature"],
        ["compare", "a.csv", "b.csv", "--num-bins", "5"],
        ["card", "a.csv", "b.csv", "--method", "temperature", "--out", "k.json"],
    ):
        assert main([*words, *named]) == 0, words
        noted = "separated by ',', not by '^'" if "b.csv" in words else "separated by '\\t', not by"
        assert noted in " ".join("".join(capsys.readouterr()).split()), words
    assert main(["evaluate", "a.csv", "--on", "d.csv", *named]) == 0
    assert "not by" not in "".join(capsys.readouterr())


def test_the_summary_is_a_file_on_this_machine(capsys):
    with pytest.raises(SystemExit):
        main(["apply", "cal.json", "live.csv", "--summary", "s3://bucket/done.json"])
    assert "it must be a path on this machine" in capsys.readouterr().err


def test_calibrate_since(tmp_path, capsys):
    random = np.random.default_rng(0)
    for month in ("2026-04", "2026-05", "2026-06"):
        p = random.random(200)
        rows = [f"{a:.4f},{int(b < a)}" for a, b in zip(p, random.random(200), strict=True)]
        (tmp_path / f"{month}.csv").write_text("\n".join(["p,y", *rows, ""]))
    out = str(tmp_path / "cal.json")
    words = [f"{tmp_path}/2026-*.csv", "--since", "2026-05", "--probs", "p", "--target", "y"]
    assert main(["calibrate", *words, "--method", "temperature", "--out", out]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 files since 2026-05: 2026-05.csv, 2026-06.csv." in shown
    assert "400 rows" in shown


def test_calibrate_and_export_keep_their_inputs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text("p,y\n" + "0.3,0\n0.6,1\n0.7,1\n0.8,0\n" * 20)
    named = ("--probs", "p", "--target", "y", "--method", "temperature")
    assert main(["calibrate", "v.csv", *named, "--out", "cal.json"]) == 0
    Path("link.json").symlink_to("v.csv")
    Path("link.sql").symlink_to("cal.json")
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for command, words in (
        (["calibrate", "v.csv", *named, "--out", "link.json"], "must be another file"),
        (["export", "cal.json", "--format", "sql", "--out", "link.sql"], "must be another file"),
    ):
        capsys.readouterr()
        assert main(command) == 2, command
        assert words in " ".join(capsys.readouterr().err.split())
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_log_of_choices_is_written_as_log(tmp_path, monkeypatch, capsys):
    """Its samples hold more than columns."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"target": str(n % 3), "resps": [], "filter": "none", "metrics": ["acc"], "doc_id": n}
        | {"arguments": {f"gen_args_{k}": {"arg_0": "Q", "arg_1": f" {k}"} for k in range(3)}}
        | {"filtered_resps": [[str(-1.0 - (n + k) % 4), "False"] for k in range(3)]}
        for n in range(60)
    ]
    Path("samples_t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit = ["calibrate", "samples_t.jsonl", "--method", "temperature", "--out", "cal.json"]
    assert main(fit) == 0
    assert main(["apply", "cal.json", "samples_t.jsonl"]) == 0
    assert "added calibrated_confidence, calibrated_probs" in capsys.readouterr().out
    assert main(["apply", "cal.json", "samples_t.jsonl", "--out", "out.csv"]) == 2
    assert "must end in .jsonl" in capsys.readouterr().err
    assert not Path("out.csv").exists()


def test_options_say_how_a_table_is_read(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text('"a, b";c;y;g\n' + '90;10;"a, b";x\n30;70;c;\n' * 20)
    columns = [
        "--probs",
        "a, b",
        "--probs",
        "c",
        "--target",
        "y",
        "--percent",
        "--sep",
        ";",
        "--replicates",
        "0",
    ]
    assert main(["evaluate", str(path), *columns, "--groups", "g", "--drop-missing"]) == 0
    shown = capsys.readouterr().out
    assert "(no group)" in shown


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_row_without_list_has_empty_cell(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    lists = frame(60)[["p_no", "p_yes"]].to_numpy().tolist()
    val = {"s": lists, "y": (frame(60)["y"] == "yes").astype(int)}
    calibration = fedlas.calibrate(val, probs="s", target="y", method="temperature")
    calibration.save("cal.json")
    live = pd.DataFrame({"s": [*lists[:5], None, *lists[5:9]]})
    if suffix == ".parquet":
        live.to_parquet("live.parquet")
    else:
        live.to_json("live.jsonl", orient="records", lines=True, double_precision=15)
    words = ["apply", "cal.json", f"live{suffix}", "--missing", "empty", "--out", "out.jsonl"]
    assert main(words) == 0
    after = [
        json.loads(line)["calibrated_s"] for line in Path("out.jsonl").read_text().splitlines()
    ]
    missing = after.pop(5)
    assert missing is None or np.isnan(np.array(missing, float)).all()
    want = calibration.apply({"s": lists[:9]})["calibrated_s"]
    np.testing.assert_allclose(after, np.array(list(want)), rtol=1e-6)
