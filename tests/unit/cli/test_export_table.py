"""``fedlas export`` of the calibration of a table: what it prints, refuses and writes."""

from pathlib import Path

import numpy as np
import pytest

import fedlas
from fedlas.cli import main
from fedlas.deploy import export


@pytest.fixture
def calibration(tmp_path, monkeypatch):
    """The calibration of two columns in ``cal.json``."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    p = random.uniform(0.05, 0.95, 300)
    frame = {'s_"0': 1 - p, 's_"1': p, "y": (random.random(300) < p).astype(int)}
    fit = fedlas.calibrate(frame, probs="s_*", target="y", method="temperature")
    fit.save("cal.json")
    return fit


@pytest.mark.system
def test_the_command_names_the_columns(calibration, capsys):
    assert main(["export", "cal.json", "--format", "torchscript"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert 'probs of s_"0, s_"1, in this order' in shown
    assert Path("cal.pt").exists()
    assert main(["export", "cal.json", "--inputs", "x.npz"]) == 2
    assert "--inputs must not be passed with a calibration file" in capsys.readouterr().err
    Path("cal.json").write_text("{}")
    assert main(["export", "cal.json"]) == 2


def test_the_statement_is_checked_and_keeps_columns(calibration, capsys):
    assert main(["export", "cal.json", "--format", "sql", "--keep", "id", "the day"]) == 0
    shown = capsys.readouterr().out
    assert "for DuckDB, checked with SQLite" in shown
    assert 'id, the day, s_"0, s_"1, calibrated_s_"0' in shown.partition("gives:")[2]
    assert "cal.sql" in shown.partition("use:")[2]
    assert Path("cal.sql").read_text().startswith("-- fedlas: {")


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "sqlite", "bigquery", "spark"])
def test_a_dialect_is_written_as_in_python(calibration, dialect):
    """With what the command says of itself."""
    assert main(["export", "cal.json", "--format", "sql", "--dialect", dialect]) == 0
    about = {"fedlas": fedlas.__version__}
    calibration = fedlas.TableCalibration.load("cal.json")
    export(calibration, "again.sql", form="sql", dialect=dialect, about=about)
    assert Path("cal.sql").read_text() == Path("again.sql").read_text()
