"""Whatever lies where a command reads is read or refused in words, and what lies where it writes stays.

Files and cells are those of :mod:`hostile`. A command that reads a file and is in no table here fails by its name.
"""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from contract.test_hostile_names import NO_NAMES, TESTS
from fedlas.cli import main, parsers
from hostile import CELLS, write_csv
from hostile.files import FILES, LARGE

COLUMNS = ("--probs", "p", "--target", "y")
FEW = (*COLUMNS, "--replicates", "0")
READS = {
    # command: the file in question, and a call that reads it
    "evaluate": [
        ("t.csv", ("t.csv", *FEW, "--groups", "g")),
        ("t.csv", ("v.csv", *FEW, "--on", "t.csv", "--method", "temperature")),
    ],
    "calibrate": [
        ("t.csv", ("t.csv", *COLUMNS, "--method", "temperature", "--out", "o.json")),
    ],
    "apply": [
        ("t.csv", ("cal.json", "t.csv", "--out", "o.csv")),
        ("cal.json", ("cal.json", "t.csv", "--out", "o.csv")),
    ],
    "compare": [("t.csv", ("v.csv", "t.csv", *COLUMNS, "--replicates", "39"))],
    "card": [
        ("v.csv", ("v.csv", "t.csv", *FEW, "--method", "none", "--out", "o.json")),
        ("t.csv", ("v.csv", "t.csv", *FEW, "--method", "none", "--out", "o.json")),
    ],
    "monitor": [
        ("t.csv", ("card.json", "t.csv", *COLUMNS, "--history", "o.json")),
        ("card.json", ("card.json", "t.csv", *COLUMNS)),
        ("s.json", ("card.json", "v.csv", *COLUMNS, "--state", "s.json")),
        ("h.json", ("card.json", "v.csv", *COLUMNS, "--history", "h.json")),
    ],
    "init": [("t.csv", ("t.csv", "--out", "o.sh"))],
    "export": [("cal.json", ("cal.json", "--format", "sql", "--out", "o.sql"))],
    "bench": [("r.yaml", ("r.yaml", "--out", "o", "--dry-run"))],
    "tune": [("r.yaml", ("r.yaml", "--out", "o", "--dry-run"))],
}
ELSEWHERE = {
    # commands that train, or read folders of runs: the test that holds them
    "runs train": "unit/lab/recipes/test_yaml_text.py::test_it_is_refused_wherever_it_is_read",
    "runs report": "unit/lab/runs/test_hostile_folders.py::test_pipe_or_device_is_not_read",
    "runs diagnose": "unit/lab/runs/test_hostile_folders.py::test_pipe_or_device_is_not_read",
    "runs pack": "unit/test_hostile_files.py::test_a_pack_that_grows_is_refused_before_it_is_unpacked",
    "runs uncertainty": "unit/lab/runs/test_hostile_folders.py::test_uncertainty_writes_nothing_elsewhere",
    "runs shift": "unit/lab/runs/test_hostile_folders.py::test_no_link_leads_what_is_written_elsewhere",
    "runs ood": "unit/lab/runs/test_hostile_folders.py::test_no_link_leads_what_is_written_elsewhere",
}
RECIPE = """\
title: r
data: {name: synthetic}
model: {name: mlp}
methods: [ce, ls]
seeds: [0]
train: {epochs: 1}
"""
INPUTS = [(name, file, words) for name, calls in READS.items() for file, words in calls]
OF_TABLES = [(name, words) for name, file, words in INPUTS if file == "t.csv"]
QUICK = ("evaluate",)
"""A command that reads most of what the others read: these, which take longer, are tried with the system tests."""


def sorted_by_time(cases):
    return [
        pytest.param(*case, marks=[pytest.mark.system] * (case[0] not in QUICK)) for case in cases
    ]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name in ("v", "t"):
        probs = rng.uniform(0.05, 0.95, 60).round(4)
        # The same labels in both: two models on the same samples.
        probs = 0.5 * probs + 0.4 * (np.arange(60) % 2)
        rows = [(round(p, 4), row % 2, f"g{row % 3}") for row, p in enumerate(probs)]
        write_csv(folder / f"{name}.csv", ["p", "y", "g"], rows)
    (folder / "r.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit = ("--method", "temperature", "--out", "cal.json")
        assert main(["calibrate", "v.csv", *COLUMNS, *fit]) == 0
        assert main(["card", "v.csv", "t.csv", *FEW, "--out", "card.json"]) == 0
        watch = ["monitor", "card.json", "t.csv", *COLUMNS]
        assert main([*watch, "--state", "s.json"]) in (0, 3)
        assert main([*watch, "--history", "h.json"]) in (0, 3)
    return folder


def called(name, words, capsys):
    """Return the status of a command; what it prints is text, and an error is in words."""
    capsys.readouterr()
    try:
        status = main([*name.split(), *words])
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n"}
    assert "Traceback" not in shown
    assert status in (0, 1, 2, 3)
    assert status != 2 or captured.err.strip()
    return status


def test_every_command_that_reads_is_in_a_table():
    assert {*parsers()[1]} == READS.keys() | ELSEWHERE.keys() | NO_NAMES
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8")


def lying(folder):
    """Everything in a folder but hidden files, and where links lead."""
    return {
        path.name: path.readlink()
        if path.is_symlink()
        else path.is_file() and path.stat().st_size < LARGE and path.read_bytes()
        for path in folder.iterdir()
        if path.name[0] != "."
    }


@pytest.mark.system
def test_each_call_reads_what_belongs_there(inputs, tmp_path, monkeypatch, capsys):
    for number, (name, _, words) in enumerate(INPUTS):
        monkeypatch.chdir(shutil.copytree(inputs, tmp_path / str(number)))
        assert called(name, words, capsys) in (0, 3), name


@pytest.mark.parametrize(("name", "file", "words"), sorted_by_time(INPUTS))
def test_any_file_is_read_or_refused_in_words(
    name, file, words, inputs, tmp_path, monkeypatch, capsys
):
    for kind, make in FILES.items():
        folder = shutil.copytree(inputs, tmp_path / kind)
        monkeypatch.chdir(folder)
        path = folder / file
        content = path.read_bytes()
        path.unlink()
        make(path, content)
        before = lying(folder)
        try:
            status = called(name, words, capsys)
        except BaseException as error:
            raise AssertionError(f"{kind}: {error!r}") from error
        after = lying(folder)
        made = {key for key in after if before.get(key, after) != after[key]} - {"s.json", "h.json"}
        assert {each.split(".")[0] for each in made} <= ({"o"} if status != 2 else set()), kind
        assert before.keys() <= after.keys(), kind
        assert not (folder.parent / "outside.csv").exists()
        assert not Path("PWNED").exists()
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(("name", "words"), sorted_by_time(OF_TABLES))
def test_any_cell_is_read_or_refused_in_words(
    name, words, kind, inputs, tmp_path, monkeypatch, capsys
):
    folder = shutil.copytree(inputs, tmp_path / "work")
    monkeypatch.chdir(folder)
    header, *rows = [line.split(",") for line in (inputs / "t.csv").read_text().split()]
    for column in range(len(header)):
        for cell in CELLS[kind]:
            changed = [list(row) for row in rows]
            changed[7][column] = cell
            write_csv(folder / "t.csv", header, changed)
            status = called(name, words, capsys)
            if column == 0 and kind == "beyond" and cell != "-2.8e-17" and name != "init":
                assert status == 2, cell


@pytest.mark.parametrize("name", ["p", "y", "g", "new"])
def test_name_of_a_megabyte_is_read_or_refused(name, inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(inputs, tmp_path / "work"))
    header, *rows = [line.split(",") for line in (inputs / "t.csv").read_text().split()]
    named = [("n" * 2**20 if each == name else each) for each in [*header, "new"]]
    write_csv(Path("t.csv"), named, [[*row, 1] for row in rows])
    for command, words in OF_TABLES:
        called(command, words, capsys)
