"""Whatever a command writes of a stranger's names is read as text: by a terminal, a browser, sh, SQL, LaTeX, csv, XML.

A command that is in none of the tables here fails by its name, and so does a format of tables.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fedlas
from fedlas.cli import main, parsers
from fedlas.errors import InputError
from hostile import NAMES, write_csv

TESTS = Path(__file__).parents[1]
UNFIT = ("missing", "spaces", "long", "a megabyte")
CLASSES = [name for kind, name in NAMES.items() if kind not in UNFIT]
"""Names that may be classes and groups: of the others one is missing, one is another without spaces, one too long."""
FEW = [name for name in CLASSES if name.isprintable() and name not in ("Edema", "edema")]
"""Names of columns that a database may have: it takes no control characters, and no two that differ by case."""
COLUMNS = ("--probs", "p_*", "--target", "y")
GATE = ("--replicates", "39", "--require", "ece<=0.99", "--junit", "j.xml", "--github")
TWO = ("compare", "v.csv", "t.csv", *COLUMNS, "--replicates", "39")
WRITES = {
    # command: each call of it, and what it writes beside its output
    "evaluate": [("t.csv", *COLUMNS, "--groups", "g", *GATE, "--report", "r.html")],
    "calibrate": [("v.csv", *COLUMNS, "--method", "temperature", "--out", "c.json")],
    "apply": [("cal.json", "t.csv", "--out", "o.csv", "--summary", "s.json")],
    "export": [("few.json", "--format", "sql", "--out", "e.sql")],
    "card": [("v.csv", "t.csv", *COLUMNS, "--covariates", "x_*", *GATE, "--out", "k.json")],
    "monitor": [
        ("card.json", "t.csv", *COLUMNS, "--history", "h.json", "--page", "p.html"),
        ("card.json", "t.csv", *COLUMNS, "--state", "state.json", "--details"),
    ],
    "compare": [
        (*TWO[1:], "--fail-if-worse", "ece", "--junit", "j.xml", "--github"),
        (*TWO[1:], "--markdown"),
        (*TWO[1:], "--latex", "--title", NAMES["latex"]),
        (*TWO[1:], "--json"),
    ],
    "init": [("two.csv", "--out", "i.sh", "--target", "y")],
}
ELSEWHERE = {
    # names of runs, recipes and packs: the test that holds them, since it makes runs
    "runs report": "unit/lab/report/test_hostile_names.py::test_report",
    "runs diagnose": "unit/lab/report/test_hostile_names.py::test_run_page",
    "runs pack": "unit/test_hostile_files.py::test_a_pack_that_grows_is_refused_before_it_is_unpacked",
    "runs train": "unit/lab/runs/test_hostile_folders.py::test_no_link_leads_what_is_written_elsewhere",
    "runs uncertainty": "unit/lab/runs/test_hostile_folders.py::test_uncertainty_writes_nothing_elsewhere",
    "runs shift": "unit/lab/runs/test_hostile_folders.py::test_no_link_leads_what_is_written_elsewhere",
    "runs ood": "unit/lab/runs/test_hostile_folders.py::test_no_link_leads_what_is_written_elsewhere",
    "bench": "unit/lab/runs/test_hostile_folders.py::test_workers_and_jobs_follow_no_link_either",
    "tune": "unit/lab/recipes/test_yaml_text.py::test_it_is_refused_wherever_it_is_read",
}
NO_NAMES = {"sample-size", "list", "data", "runs"}
"""Commands that write only numbers, and names of the package."""


def visible(text):
    """Check that a terminal shows a text, and a runner takes no command from it."""
    assert not {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n"}
    assert not [
        line for line in text.splitlines() if line.startswith(("::error file=pwned", "touch"))
    ]


class Page(HTMLParser):
    """What a browser would take for elements and attributes."""

    def handle_starttag(self, tag, attrs):
        assert tag != "pwned"
        for name, value in attrs:
            assert name != "onpwned"
            assert "javascript:pwned" not in (value or "") or name not in ("href", "src")


def read_page(path):
    text = path.read_text(encoding="utf-8")
    Page().feed(text)
    assert not {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n"}


def read_junit(path):
    assert not [element for element in ElementTree.parse(path).iter() if "pwned" in element.tag]


def read_table(path):
    header = read_separated(path)
    assert {f"p_{name}" for name in CLASSES} <= {*header}


def read_script(path):
    """Run a script, with a command fedlas that only notes its arguments."""
    command = path.parent / "bin" / "fedlas"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexit 0\n")
    command.chmod(0o700)
    paths = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-eu", path.name], cwd=path.parent, env={"PATH": paths}, check=False
    )
    assert ran.returncode == 0
    assert not (path.parent / "PWNED").exists()


def read_query(path):
    """Run a query in the database that it is made for."""
    duckdb = pytest.importorskip("duckdb")
    database = duckdb.connect()
    names = ", ".join('"p_{}" DOUBLE'.format(name.replace('"', '""')) for name in FEW)
    database.execute(f"CREATE TABLE precious (a INT); CREATE TABLE predictions ({names})")
    database.execute(f"INSERT INTO predictions VALUES ({', '.join(['1e-2'] * len(FEW))})")
    found = database.execute(path.read_text(encoding="utf-8")).fetchall()
    assert len(found) == 1
    assert ("precious",) in database.execute("SHOW TABLES").fetchall()


READERS = {
    ".html": read_page,
    ".xml": read_junit,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".csv": read_table,
    ".sh": read_script,
    ".sql": read_query,
}


def table(path, seed, classes, *, covariates=CLASSES):
    rng = np.random.default_rng(seed)
    rows = 20 * len(classes)
    probs = rng.dirichlet(np.ones(len(classes)), rows).round(9)
    values = rng.normal(size=(rows, len(covariates))).round(3)
    names = [*classes] * 20
    header = [*(f"p_{name}" for name in classes), "y", *(f"x_{name}" for name in covariates), "g"]
    content = zip(probs, names, values, names, strict=True)
    return write_csv(path, header, ([*p, y, *x, g] for p, y, x, g in content))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    table(folder / "v.csv", 0, CLASSES)
    table(folder / "t.csv", 1, CLASSES)
    table(folder / "few.csv", 2, FEW, covariates=())
    rng = np.random.default_rng(3)
    values = rng.random((200, 1 + len(CLASSES))).round(3)
    rows = ([*row, int(rng.random() < row[0])] for row in values)
    write_csv(folder / "two.csv", ["p_1", *CLASSES, "y"], rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit = [*COLUMNS, "--method", "temperature", "--out"]
        assert main(["calibrate", "v.csv", *fit, "cal.json"]) == 0
        assert main(["calibrate", "few.csv", *fit, "few.json"]) == 0
        card = ["card", "v.csv", "t.csv", *COLUMNS, "--replicates", "0", "--covariates", "x_*"]
        assert main([*card, "--out", "card.json"]) == 0
    return folder


def test_every_command_is_in_a_table():
    assert {*parsers()[1]} == WRITES.keys() | ELSEWHERE.keys() | NO_NAMES
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            name,
            marks=[pytest.mark.system] * (name in ("init", "export")),
        )
        for name in WRITES
    ],
)
def test_what_a_command_writes_is_only_read(command, inputs, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(inputs, tmp_path / "work")
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    for words in WRITES[command]:
        capsys.readouterr()
        assert main([command, *words]) in (0, 1, 3)
        captured = capsys.readouterr()
        visible(captured.err)
        visible(captured.out)
        if "--latex" in words:
            assert not re.search(r"(?<!textbackslash\{\})\\pwned|(?<!\\)[%$#]pwned", captured.out)
        if "--markdown" in words:
            assert not re.search(r"(?<!\\)<pwned|(?<!\\)\]\(javascript", captured.out)
        if "--json" in words:
            json.loads(captured.out)
    written = [path for path in folder.iterdir() if path.name not in before]
    for path in written:
        if not path.name.startswith("."):
            READERS[path.suffix](path)
    assert written or command == "compare"


def read_lines(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(json.loads(lines[0]))


def read_arrow(path):
    return pytest.importorskip("pyarrow.parquet").read_schema(path).names


def read_separated(path):
    with path.open(newline="", encoding="utf-8") as file:
        header, *rest = csv.reader(file, delimiter=",\t"[path.suffix == ".tsv"])
    assert {len(row) for row in rest} == {len(header)}
    return header


NAMES_IN = {
    ".csv": read_separated,
    ".tsv": read_separated,
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".parquet": read_arrow,
    ".npz": None,  # arrays have no columns; tests/unit/core/test_arrays.py
}


def test_every_format_of_tables_keeps_names(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    (tmp_path / "t.nothing").touch()
    with pytest.raises(InputError, match="must end in") as refused:
        fedlas.read_predictions(tmp_path / "t.nothing", probs="p", target="y")
    assert {*re.findall(r"\.[a-z]+(?=,|;)", str(refused.value))} == NAMES_IN.keys()
    for suffix, read in NAMES_IN.items():
        if read is not None:
            out = tmp_path / f"o{suffix}"
            assert main(["apply", "cal.json", "t.csv", "--out", str(out)]) == 0
            assert {f"{start}p_{name}" for name in CLASSES for start in ("", "calibrated_")} <= {
                *read(out)
            }
