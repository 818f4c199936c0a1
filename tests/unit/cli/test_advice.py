"""Errors of the commands of tables: about 30 wrong inputs each, and the advice can be followed."""

import re

import numpy as np
import pytest

import fedlas
from fedlas.cli import main

GOOD = [(0.9, 1), (0.2, 0), (0.4, 1), (0.7, 0)] * 30
COLUMNS = ["--probs", "p_*", "--target", "y"]
FORMS = {
    "good": lambda p, y: (f"{1 - p:.2f}", f"{p:.2f}", y),
    "percent": lambda p, y: (f"{100 - 100 * p:.0f}", f"{100 * p:.0f}", y),
    "logits": lambda p, y: (f"{-3 * p:.2f}", f"{2 - p:.2f}", y),
    "sums": lambda p, y: (f"{1 - p:.2f}", f"{p / 2:.2f}", y),
    "missing": lambda p, y: (f"{1 - p:.2f}", "" if p == 0.9 else f"{p:.2f}", y),
    "nan": lambda p, y: (f"{1 - p:.2f}", "nan" if p == 0.9 else f"{p:.2f}", y),
    "text": lambda p, y: (f"{1 - p:.2f}", "high", y),
    "na": lambda p, y: (f"{1 - p:.2f}", "NA" if p == 0.9 else f"{p:.2f}", y),
    "labels": lambda p, y: (f"{1 - p:.2f}", f"{p:.2f}", y + 1),
    "names": lambda p, y: (f"{1 - p:.2f}", f"{p:.2f}", ["ill", "well"][y]),
    "unlabeled": lambda p, y: (f"{1 - p:.2f}", f"{p:.2f}", "" if p == 0.9 else y),
}
"""By name: cells of a row with the columns p_0, p_1 and y."""
CORRECTIONS = {
    "percent": ["--percent"],
    "missing": ["--drop-missing"],
    "nan": ["--drop-missing"],
    "na": ["--drop-missing"],
    "unlabeled": ["--drop-missing"],
    "sums": ["--normalize"],
}
"""Advice of an error, which must end it."""
WRONG = [
    ["--probs", "q_*", "--target", "y"],
    ["--probs", "p_0,p_9", "--target", "y"],
    ["--probs", "p_0,p_0", "--target", "y"],
    ["--probs", "", "--target", "y"],
    ["--probs", "p_*", "--target", "label"],
    ["--probs", "p_*", "--target", "p_0"],
    ["--probs", "p_*"],
    ["--target", "y"],
    [],
    ["--logits", "p_*", "--probs", "p_*", "--target", "y"],
    ["--confidence", "p_1"],
    ["--confidence", "p_*", "--correct", "y"],
    ["--confidence", "p_1", "--correct", "none"],
    ["--confidence", "p_1", "--correct", "y", "--target", "y"],
    ["--confidence", "p_1", "--correct", "y", "--classes", "a,b"],
    ["--confidence", "p_1", "--correct", "y", "--normalize"],
    [*COLUMNS, "--correct", "y"],
    [*COLUMNS, "--predicted", "y"],
    [*COLUMNS, "--classes", "a"],
    [*COLUMNS, "--classes", "a,a"],
    [*COLUMNS, "--classes", "a,b"],
    [*COLUMNS, "--sep", ";;"],
    [*COLUMNS, "--format", "lm-eval"],
]
"""Options that name what is not there, or contradict each other."""
ONCE = {
    "evaluate": [["--groups", "none"], ["--weights", "none"], ["--clusters", "none"], ["--num-bins", "0"],
                 ["--replicates", "5"], ["--method", "temperature"], ["--reject", "0.1"], ["--event", "2"]],
    "compare": [["--clusters", "none"], ["--num-bins", "0"], ["--replicates", "5"]],
    "calibrate": [["--covariates", "none"], ["--weights", "none"], ["--groups", "none"], ["--method", "temprature"]],
    "card": [["--num-bins", "0"], ["--method", "temprature"]],
    "monitor": [["--weights", "none"]],
}  # fmt: skip
"""Wrong options of one command."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advice")
    for name, cells in FORMS.items():
        rows = [",".join(map(str, cells(p, y))) for p, y in GOOD]
        (folder / f"{name}.csv").write_text("\n".join(["p_0,p_1,y", *rows, ""]))
        (folder / f"{name}-live.csv").write_text(
            "\n".join(["p_0,p_1", *(row.rpartition(",")[0] for row in rows), ""])
        )
    fedlas.calibrate(folder / "good.csv", probs="p_*", target="y", method="temperature").save(
        folder / "cal.json"
    )
    (folder / "lists.jsonl").write_text('{"p_0": [0.5, 0.5], "p_1": 0.5}\n')
    (folder / "four.csv").write_text("p_0,p_1,p_2,p_3\n0.1,0.2,0.3,0.4\n")
    (folder / "ready.csv").write_text("p_0,p_1,calibrated_p_0\n0.1,0.9,1\n")
    (folder / "empty.csv").write_text("")
    (folder / "head.csv").write_text("p_0,p_1,y\n")
    (folder / "noise.npz").write_bytes(b"PK\x03\x04 no archive")
    np.savez(folder / "other.npz", scores=np.zeros((3, 2)))
    return folder


@pytest.fixture
def ask(folder, tmp_path, monkeypatch, capsys):
    """Runs a command in the folder and returns its status and its line of error, whose options it checks."""
    monkeypatch.chdir(folder)
    options = {}

    def options_of(command):
        if command not in options:
            with pytest.raises(SystemExit):
                main([command, "--help"])
            options[command] = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
        return options[command]

    def run(command, *words):
        options_of(command)
        try:
            status = main([command, *words])
        except SystemExit as stop:  # of the parser
            status = stop.code
        lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
        for line in lines:
            assert not re.search(r"\b[a-z]+(_[a-z]+)*=['\"TF\s.,;)]", line), line
            # quoted text is what the user wrote; another command has options of its own
            sentence, *other = re.split(
                r"(?:with|:) fedlas (?=[a-z]+ )", line.partition("error: fedlas")[2]
            )
            named = re.findall(r"(?<![\w'])--[a-z][a-z-]*", sentence)
            assert set(named) <= options[command] | {"--help"}, line
            for words in other:
                assert set(re.findall(r"--[a-z][a-z-]*", words)) <= options_of(words.split()[0]), (
                    line
                )
        return status, lines

    return run


def files_of(command, form, tmp_path):
    """Return the files of a call, and the options that it must have."""
    out = str(tmp_path / "out.json")
    return {
        "evaluate": [f"{form}.csv", "--replicates", "0"],
        "compare": [f"{form}.csv", "good.csv", "--replicates", "0"],
        "calibrate": [f"{form}.csv", "--method", "temperature", "--out", out],
        "card": ["good.csv", f"{form}.csv", "--replicates", "0", "--out", out],
        "monitor": [out.replace("out", "card"), f"{form}.csv"],
    }[command]


@pytest.mark.parametrize("command", ["evaluate", "compare", "calibrate", "card"])
def test_wrong_options_of_columns(ask, command, tmp_path):
    for words in [*WRONG, *([*COLUMNS, *more] for more in ONCE[command])]:
        status, lines = ask(command, *files_of(command, "good", tmp_path), *words)
        if words in ([*COLUMNS, "--classes", "a,b"],) and status == 0:
            continue
        assert (status, len(lines)) == (2, 1), (words, lines)
        assert "; got " in lines[0] or "See 'fedlas" in lines[0] or "Usage:" in lines[0], lines


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
@pytest.mark.parametrize("form", [form for form in FORMS if form != "good"])
def test_wrong_tables(ask, command, form, tmp_path):
    words = [*files_of(command, form, tmp_path), *COLUMNS]
    status, lines = ask(command, *words)
    assert (status, len(lines)) == (2, 1)
    if form in CORRECTIONS:
        assert CORRECTIONS[form][0] in lines[0]
        assert ask(command, *words, *CORRECTIONS[form]) == (0, [])


@pytest.mark.parametrize(
    "live",
    ["percent-live.csv", "logits-live.csv", "sums-live.csv", "missing-live.csv", "nan-live.csv", "text-live.csv",
     "na-live.csv", "lists.jsonl", "four.csv", "ready.csv", "empty.csv", "head.csv", "noise.npz", "other.npz",
     "none.csv", "none*.csv", "cal.json", "."],
)  # fmt: skip
def test_what_apply_cannot_read(ask, live, tmp_path):
    """Five of seven errors advised what apply cannot do: to leave rows out, to name columns, to divide."""
    status, lines = ask("apply", "cal.json", live, "--out", str(tmp_path / "out.csv"))
    assert (status, len(lines)) == (2, 1)


@pytest.mark.parametrize(
    "words",
    [["none.json", "good.csv"], ["good.csv", "good.csv"], ["cal.json", "good.csv", "--out", "good.csv"],
     ["cal.json", "good.csv", "--out", "cal.json"], ["cal.json", "good.csv", "--out", "x.txt"],
     ["cal.json", "good.csv", "--out", ""], ["cal.json"], ["cal.json", "good.csv", "--sep", ";;"],
     ["cal.json", "good.csv", "--percent"], ["cal.json", "good.csv", "--drop-missing"],
     ["cal.json", "other.npz", "--out", "o.csv"]],
)  # fmt: skip
def test_wrong_words_of_apply(ask, words):
    status, lines = ask("apply", *words)
    assert (status, len(lines)) == (2, 1)


def test_wrong_words_of_monitor(ask, folder, tmp_path):
    card = str(tmp_path / "card.json")
    (folder / "test.csv").write_text((folder / "good.csv").read_text().replace("0.90", "0.91"))
    files = ["good.csv", "test.csv"]
    assert ask("card", *files, *COLUMNS, "--replicates", "0", "--out", card) == (0, [])
    columns = [words for words in WRONG if "--normalize" not in words]
    for words in [*columns, *([*COLUMNS, *more] for more in ONCE["monitor"])]:
        for file in ("none.csv", "good.csv"):
            status, lines = ask("monitor", card, file, *words)
            assert len(lines) == (status == 2), (words, lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["t.csv", "--probs", "p_*", "--labels", "y"],
            "there must be one label column per score column",
        ),
        (["t.csv", "--probs", "p_a", "p_b", "p_c", "--target", "y"], "--probs p_a,p_b,p_c"),
        (["t.csv", "--data", "x"], "--data requires a run folder; got the prediction file t.csv"),
        (["."], "the folder must be a run folder; got . with t.csv. Name a file of predictions"),
    ],
)
def test_the_command_says_what_to_write(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("p_a,p_b,p_c,y\n0.7,0.2,0.1,0\n")
    try:
        status = main(["evaluate", *words])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err
