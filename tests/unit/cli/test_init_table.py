"""From a table of scores to the commands for it: columns are guessed, and what was guessed is said."""

import json
import re
import shlex

import pytest

from fedlas.cli import main, parsers

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
CREDIT = {
    "loan_id": [1000 + row for row in ROWS],
    "PD": YES,
    "default_flag": [int(row * 7 % 60 < row) for row in ROWS],
    "ltv": YES[::-1],
    "is_new": [0, 1] * 30,
    "booked": [f"{1 + row % 28:02}.{1 + row % 12:02}.2026" for row in ROWS],
}
ANSWERS = {"confidence": YES, "correct": [row % 2 for row in ROWS], "age": [*ROWS]}


@pytest.mark.parametrize(
    ("columns", "options", "covariates"),
    [
        (CHURN, "--probs p_yes --target churned --clusters customer_id", "plan"),
        (KINDS, "--probs cat,dog,owl --target kind --percent", None),
        (SPACE, "--logits 'logit *' --target label", None),
        (ANSWERS, "--confidence confidence --correct correct", "age"),
        (CREDIT, "--probs PD --target default_flag", "ltv,is_new"),
    ],
    ids=["one column", "names of classes", "prefix", "confidence", "credit"],
)
def test_the_commands_that_are_written_run(
    tmp_path, monkeypatch, capsys, columns, options, covariates
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my table.csv", columns)
    assert main(["init", "my table.csv"]) == 0
    script = (tmp_path / "my table.sh").read_text()
    assert f"--covariates {covariates}\n" in script or covariates is None
    assert max(map(len, capsys.readouterr().out.split("\n"))) <= 80
    assert main(["init", "my table.csv", "--out", "again.sh"]) == 0
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
            r"must have a column of scores.*got a, b, c in t.csv.*predict_proba.*init t.csv --probs a,.*--confidence "
            "answer.conf",
        ),
        (
            {"age": [*ROWS], "ltv": YES, "y": [0, 1] * 30},
            "got age, ltv, y.*init t.csv --probs ltv,",
        ),
        (
            {"PD": YES, "risk": YES, "y": [0, 1] * 30},
            "like scores; got PD, risk.*init t.csv --probs PD;",
        ),
        (
            {"risk": [*ROWS], "y": [0, 1] * 30},
            "got risk in t.csv, from 0 to 59.*--probs risk --percent",
        ),
        ({"risk": [9 * row for row in ROWS], "y": [0, 1] * 30}, "to 531.*logistic regression"),
        (
            {**CHURN, "left": CHURN["churned"]},
            "got churned, left in t.csv.*init t.csv --target left",
        ),
        ({"p_a": YES, "x": ["only"] * 60}, "look like labels"),
        (
            {"p": YES, "y": ["ant", "bee"] * 30},
            "init t.csv --probs p --target y --event ant or --event bee",
        ),
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
    assert "--target again requires a table" in capsys.readouterr().err


def commands_of(script):
    """Return the words of each command of a script."""
    lines = script.read_text().replace("\\\n", "").split("\n")
    return [shlex.split(line)[1:] for line in lines if line.startswith("fedlas")]


def test_init_takes_each_role_of_calibrate():
    named = {
        name: {option for action in parser._actions for option in action.option_strings}
        for name, parser in parsers()[1].items()
    }
    roles = named["evaluate"] & named["calibrate"] - {"--method", "--details"}
    assert {"--probs", "--time", "--classes", "--covariates", "--sep", "--labels"} < roles
    assert roles <= named["init"]


def test_given_roles_are_kept_and_the_rest_guessed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns = {**CREDIT, "kind": ["a", "b", "b"] * 20, "id": [row // 2 for row in ROWS]}
    write(tmp_path / "t.csv", columns)
    given = "--probs ltv --target kind --event b --clusters id --groups kind"
    assert main(["init", "t.csv", *given.split()]) == 0
    evaluate, calibrate = commands_of(tmp_path / "t.sh")
    words = shlex.split("--probs ltv --target kind --groups kind --clusters id --event b")
    assert evaluate == ["evaluate", "t.csv", *words]
    assert calibrate[: len(words) + 2] == ["calibrate", "t.csv", *words]
    assert calibrate[len(words) + 2 :][:2] == ["--time", "booked"]
    assert "as given" in capsys.readouterr().out
    assert main(["init", "t.csv", "--probs", "nowhere", "--out", "n.sh"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_two_versions_of_a_score_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns = {"score_v1": YES, "score_v2": [each**2 for each in YES], "y": CREDIT["default_flag"]}
    write(tmp_path / "t.csv", columns)
    assert main(["init", "t.csv"]) == 0
    commands = commands_of(tmp_path / "t.sh")
    assert [words[0] for words in commands] == ["evaluate", "evaluate", "compare", "calibrate"]
    capsys.readouterr()
    assert main([*commands[1], "--replicates", "0"]) == 0
    assert main([*commands[2], "--replicates", "50"]) == 0
    assert "A: score_v1, B: score_v2, 60 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("texts", "is_read"),
    [
        ([f"{1 + row % 12}/{1 + row % 28}/2026" for row in ROWS], True),
        ([f"2026-03-{1 + row % 28:02}T10:00:00+02:00" for row in ROWS], True),
        ([f"2026-03-{1 + row % 28:02} 10:00:00 UTC" for row in ROWS], True),
        ([20260301 + row % 28 for row in ROWS], True),
        ([f"{1 + row % 12}/{1 + row % 11}/2026" for row in ROWS], False),
        (["2026-03-01"] * 60, None),
    ],
)
def test_dates_are_times_and_no_covariates(tmp_path, monkeypatch, capsys, texts, is_read):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", {**CREDIT, "booked": texts, "order_date": texts})
    assert main(["init", "t.csv"]) == 0
    script = (tmp_path / "t.sh").read_text()
    evaluate, calibrate = commands_of(tmp_path / "t.sh")
    assert "--time" not in evaluate
    name = "order_date" if isinstance(texts[0], int) else "booked"
    assert (["--time", name] == calibrate[6:8]) == bool(is_read)
    assert "order_date" not in re.findall("--covariates (.*)", script)[0]
    assert (
        "comes first in booked, order_date is unclear" in capsys.readouterr().err.replace("\n", " ")
    ) == (is_read is False)


def test_dates_that_later_rows_lack_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = range(100_000)
    columns = {"p": [0.25 + 0.5 * (row % 2) for row in rows], "y": [row % 2 for row in rows]}
    write(tmp_path / "t.csv", {**columns, "day": ["2026-01-02", "2026-01-03"] * 49_999 + ["", ""]})
    assert main(["init", "t.csv"]) == 0
    assert "--time" not in (tmp_path / "t.sh").read_text()


SAID = [f"It is so. Confidence: {40 + row} %" for row in ROWS]
TOKENS = [[-0.1, -0.01 * row - 0.1] for row in ROWS]
RIGHT = {"correct": [row % 2 == 0 for row in ROWS]}


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"answer": SAID, **RIGHT}, "--confidence answer --correct correct --confidence-as words"),
        (
            {"token_logprobs": TOKENS, **RIGHT},
            "--confidence token_logprobs --correct correct --confidence-as mean",
        ),
        (
            {
                "choices": [[{"logprobs": {"content": [{"token": "a", "logprob": -0.1}]}}]] * 60,
                **RIGHT,
            },
            "--confidence choices --correct correct --confidence-as mean",
        ),
        (
            {"is_true_logprobs": TOKENS, **RIGHT},
            "--confidence is_true_logprobs --correct correct --confidence-as p-true",
        ),
        (
            {
                "question": [f"q{row // 3}" for row in ROWS],
                "answer": [str(row % 2) for row in ROWS],
                "target": [str(row // 3 % 2) for row in ROWS],
            },
            "--target target --confidence answer --clusters question --confidence-as vote",
        ),
    ],
    ids=["stated", "tokens", "server", "true or false", "votes"],
)
def test_answers_of_language_models_are_known(tmp_path, monkeypatch, capsys, columns, options):
    monkeypatch.chdir(tmp_path)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["init", "t.jsonl"]) == 0
    evaluate, *calibrate = commands_of(tmp_path / "t.sh")
    assert evaluate == ["evaluate", "t.jsonl", *options.split()]
    assert len(calibrate) == 1
    for words in (evaluate, *calibrate):
        assert main([*words, *["--replicates", "0"] * (words[0] == "evaluate")]) == 0
