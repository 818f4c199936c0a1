"""From a table of scores to the commands for it: columns are guessed, and what was guessed is said."""

import re
import shlex

import pytest

from fedlas.cli import main

ROWS = range(60)


def write(path, columns):
    lines = [",".join(columns)]
    lines += [",".join(str(value) for value in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")


YES = [0.1 + 0.013 * row for row in ROWS]
CHURN = {
    "id": [*ROWS],
    "customer_id": [f"c{row // 3}" for row in ROWS],
    "plan": ["basic" if row % 2 else "pro" for row in ROWS],
    "p_yes": YES,
    "churned": ["yes" if row * 7 % 60 < row else "no" for row in ROWS],
}
KINDS = {
    "cat": [60 + row % 3 for row in ROWS],
    "dog": [30 - row % 3 for row in ROWS],
    "owl": [10 for _ in ROWS],
    "kind": [("cat", "dog", "owl")[row % 3] for row in ROWS],
}
SPACE = {
    "logit a": [0.1 * row for row in ROWS],
    "logit b": [1.0] * 60,
    "label": ["b" if row % 3 else "a" for row in ROWS],
}
ANSWERS = {"confidence": YES, "correct": [row % 2 for row in ROWS], "age": [*ROWS]}


@pytest.mark.parametrize(
    ("columns", "options", "covariates"),
    [
        (CHURN, "--probs p_yes --target churned --clusters customer_id", "plan"),
        (KINDS, "--probs cat,dog,owl --target kind --percent", None),
        (SPACE, "--logits 'logit *' --target label", None),
        (ANSWERS, "--confidence confidence --correct correct", "age"),
    ],
    ids=["one column", "names of classes", "prefix", "confidence"],
)
def test_the_commands_that_are_written_run(
    tmp_path, monkeypatch, capsys, columns, options, covariates
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my table.csv", columns)
    assert main(["init", "my table.csv"]) == 0
    script = (tmp_path / "my table.sh").read_text()
    assert f"--covariates {covariates}\n" in script or covariates is None
    assert script.startswith(
        "# my table.csv: 60 rows with scores and labels. Run: sh 'my table.sh'\n"
    )
    assert all(len(line) <= 100 for line in script.split("\n"))
    shown = capsys.readouterr().out
    for option in options.split(" --"):
        assert f"--{option.removeprefix('--')}" in shown
    commands = script.replace("\\\n", "").split("\n")
    commands = [shlex.split(line) for line in commands if line.startswith("fedlas")]
    assert [words[1] for words in commands] == ["evaluate", "calibrate"]
    for words in commands:
        assert words[3 : 3 + len(shlex.split(options))] == shlex.split(options)
        assert main([*words[1:], *(["--replicates", "0"] if words[1] == "evaluate" else [])]) == 0
    assert (tmp_path / "my table.calibration.json").is_file()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"a": YES, "b": YES, "c": [*ROWS]},
            "look like scores; got a, b in t.csv.*--percent.*--confidence answer.conf",
        ),
        ({**CHURN, "again": CHURN["churned"]}, "got churned, again in t.csv.*--target again"),
        ({"p_a": YES, "x": ["only"] * 60}, "look like labels"),
        ({"p": YES, "y": ["ant", "bee"] * 30}, "--probs p --target y\\s--event ant or --event bee"),
    ],
)
def test_what_cannot_be_known_is_asked(tmp_path, monkeypatch, capsys, columns, words):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", columns)
    assert main(["init", "t.csv"]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert not (tmp_path / "t.sh").exists()


@pytest.mark.parametrize(
    ("name", "is_role"),
    [("weight", False), ("weights", True), ("sample_weight", True), ("SampleWeights", True)],
)
def test_body_weight_column_is_no_sample_weight(tmp_path, monkeypatch, name, is_role):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", {**CHURN, name: [60 + row % 30 for row in ROWS]})
    assert main(["init", "t.csv", "--out", "other name.sh"]) == 0
    script = (tmp_path / "other name.sh").read_text()
    assert "Run: sh 'other name.sh'\n" in script
    assert (f" --weights {name}" in script) == is_role
    assert (f"--covariates plan,{name}\n" in script) != is_role
    assert "--weights COLUMN" in script


def test_target_option_works_and_files_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", {**CHURN, "again": CHURN["churned"]})
    assert main(["init", "t.csv", "--target", "again"]) == 0
    assert "--target again" in (tmp_path / "t.sh").read_text()
    assert main(["init", "t.csv", "--target", "again"]) == 2
    assert "must be a new file" in capsys.readouterr().err
    assert main(["init", str(tmp_path), "--target", "again"]) == 2
    assert "--target requires a table" in capsys.readouterr().err
