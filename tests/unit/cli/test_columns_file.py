"""``--columns FILE``: what the columns mean is said once, and an option on the line wins."""

import os

import pytest

from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.predictions import Columns, read_predictions
from hostile import NAMES, write_csv

FAST = ["--replicates", "0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, shift in (("v.csv", 0.0), ("t.csv", 0.01)):
        rows = [
            (0.05 + 0.015 * i + shift, (i * 7) % 60 / 60, int(i * 7 % 60 < i), i % 5, i % 3)
            for i in range(60)
        ]
        write_csv(tmp_path / name, ["p", "q", "left", "age", "day"], rows)
    write_csv(tmp_path / "live.csv", ["p", "q", "age"], [row[:3] for row in rows])
    text = 'probs = "p"\ntarget = "left"\nevent = "1"\ntime = "day"\ncovariates = "age"\n'
    (tmp_path / "c.toml").write_text(text)
    return tmp_path


def test_every_command_of_columns_reads_the_file(folder, capsys):
    columns = ["--columns", "c.toml"]
    fit = [*columns, "--method", "temperature"]
    assert main(["evaluate", "t.csv", *columns, *FAST]) == 0
    assert main(["calibrate", "v.csv", *fit, "--out", "cal.json"]) == 0
    assert main(["compare", "t.csv", *columns, "--against", "q", "--replicates", "39"]) == 0
    assert main(["compare", "v.csv", "t.csv", *columns, "--replicates", "39"]) == 0
    assert main(["card", "v.csv", "t.csv", *fit, *FAST, "--out", "k.json"]) == 0
    capsys.readouterr()
    assert main(["monitor", "k.json", "live.csv", *columns]) in (0, 3)
    captured = capsys.readouterr()
    assert "note: no labels: c.toml" in captured.err
    assert "without labels" in captured.out
    assert main(["init", "v.csv", *columns]) == 0


def test_an_option_wins_over_the_file(folder, capsys):
    assert main(["evaluate", "t.csv", "--columns", "c.toml", "--probs", "q", *FAST, "--json"]) == 0
    with_file = capsys.readouterr().out
    named = ["--probs", "q", "--target", "left", "--event", "1"]
    assert main(["evaluate", "t.csv", *named, *FAST, "--json"]) == 0
    assert with_file == capsys.readouterr().out
    confidence = ["--confidence", "p", "--correct", "left"]
    assert main(["evaluate", "t.csv", "--columns", "c.toml", *confidence, *FAST]) == 0


def test_next_line_is_short_with_a_file(folder, capsys):
    rows = [(0.98 if i % 2 else 0.03, i // 2 % 2) for i in range(600)]
    write_csv(folder / "bad.csv", ["p", "left"], rows)
    assert main(["evaluate", "bad.csv", "--columns", "c.toml", "--replicates", "39"]) == 0
    assert "fedlas evaluate bad.csv --on VAL --columns c.toml" in capsys.readouterr().out


def test_calibration_is_a_file_of_columns(folder):
    fit = ["--probs", "p", "--target", "left", "--event", "1", "--method", "temperature"]
    assert main(["calibrate", "v.csv", *fit, "--out", "cal.json"]) == 0
    assert Columns.from_file("cal.json") == Columns(probs="p", target="left", event="1")
    table = read_predictions("t.csv", Columns.from_file("cal.json"))
    assert table.predictions.num_samples == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('prob = "p"', "keys of c.toml must be roles of columns; got 'prob'. Did you mean 'probs'"),
        ("probs = 3", "in c.toml, names of columns and classes must be text; got"),
        ("target = 3", "in c.toml, target must be text; got"),
        ('percent = "yes"', "in c.toml, percent must be True or False"),
        ("event = 2026-01-01", "in c.toml, event must be a class name or index"),
        ('probs = "p"\nlogits = "l"', "in c.toml, only one of"),
        ("probs = ", "must be TOML.*c.toml"),
        ('probs = "p"\nprobs = "q"', "must be TOML.*c.toml"),
        ("probs = " + "[" * 100_000, "must be TOML.*c.toml"),
        ("probs = \ud800", "must be TOML.*c.toml"),
    ],
)
def test_what_names_no_columns_is_refused(folder, text, message):
    (folder / "c.toml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match=message):
        Columns.from_file("c.toml")


def test_other_files_are_refused_in_words(folder):
    (folder / "a.json").write_text('{"format": "fedlas.card/1", "columns": {}}')
    with pytest.raises(InputError, match="JSON of fedlas calibrate"):
        Columns.from_file("a.json")
    with pytest.raises(InputError, match=r"must exist; got none\.toml"):
        Columns.from_file("none.toml")
    os.mkfifo("pipe.toml")
    with pytest.raises(InputError):
        Columns.from_file("pipe.toml")


@pytest.mark.parametrize("kind", NAMES)
def test_hostile_names_are_read_as_written(folder, kind):
    name = NAMES[kind]
    quoted = "".join(f"\\U{ord(char):08x}" for char in name)
    (folder / "h.toml").write_text(f'target = "{quoted}"\nprobs = ["{quoted} 1", "p"]\n')
    assert Columns.from_file("h.toml") == Columns(probs=[f"{name} 1", "p"], target=name)
