"""A calibration as a SELECT: in DuckDB and SQLite it gives what ``apply`` gives, to 1e-9."""

import re
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch

import fedlas
from fedlas.calibrators import AutoCalibration
from fedlas.cli import main
from fedlas.deploy import export
from fedlas.deploy.sql_maps import with_formula
from fedlas.errors import CalibrationWarning, InputError

METHODS = ("auto", *with_formula())
EXTREME = [
    [1.0, 0.0, 0.0],
    [0.0, 1.0, 0.0],
    [1e-300, 1.0, 0.0],
    [1 / 3, 1 / 3, 1 / 3],
    [1e-12, 0.5, 0.5],
]


def drawn(rows, classes, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=random, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    return (3 * logits).numpy(), target.numpy()


def table(kind, rows, seed=0):
    """A frame with labels, the names of its columns, and those of its scores."""
    logits, target = drawn(rows, 2 if kind == "single" else 3, seed)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if kind == "confidence":
        right = probs.argmax(axis=1) == target
        return {"the c": probs.max(axis=1), "y": right}, {"confidence": "the c", "correct": "y"}
    if kind == "single":
        return {"p": probs[:, 1], "y": target}, {"probs": "p", "target": "y"}
    values = logits if kind == "logits" else probs
    names = {f's_"{k}': column for k, column in enumerate(values.T)}
    return {**names, "y": target}, {kind: "s_*", "target": "y"}


def statement(calibration):
    """The text of the file that an export leaves."""
    with tempfile.TemporaryDirectory() as folder:
        export(calibration, Path(folder) / "cal.sql", form="sql")
        return (Path(folder) / "cal.sql").read_text()


def run_in_sqlite(text, columns, rows):
    """The calibrated columns of the statement, for a table of these rows."""
    with closing(sqlite3.connect(":memory:")) as connection:
        names = ", ".join('"{}"'.format(name.replace('"', '""')) for name in columns)
        connection.execute(f"CREATE TABLE predictions ({names})")
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO predictions VALUES ({marks})", rows.tolist())
        stages = text.replace(" AS (SELECT t.*", " AS MATERIALIZED (SELECT t.*")
        found = connection.execute(stages).fetchall()
    return np.array(found, dtype=np.float64)[:, len(columns) :]


def compared(calibration, frame):
    """Largest difference from ``apply`` in SQLite and in DuckDB."""
    live = {name: frame[name] for name in calibration.scores}
    applied = calibration.apply(live)
    wanted = np.stack([applied[name] for name in calibration.added], axis=1)
    text = statement(calibration)
    lite = run_in_sqlite(text, calibration.scores, np.stack(list(live.values()), axis=1))
    with duckdb.connect() as connection:
        connection.register("predictions", pa.table(live))
        result = connection.execute(text).fetchnumpy()
    duck = np.stack([result[name] for name in calibration.added], axis=1)
    return max(float(np.abs(each - wanted).max()) for each in (lite, duck))


@pytest.mark.parametrize("method", METHODS)
def test_every_formula_gives_what_apply_gives(method):
    frame, names = table("probs", 600)
    calibration = fedlas.calibrate(frame, method=method, **names)
    live, _ = table("probs", 300, seed=1)
    rows = np.concatenate([np.stack([live[name] for name in calibration.scores], axis=1), EXTREME])
    live = dict(zip(calibration.scores, rows.T, strict=True))
    assert compared(calibration, live) < 1e-9


@pytest.mark.parametrize("kind", ["logits", "single", "confidence"])
def test_every_kind_of_scores(kind):
    frame, names = table(kind, 500)
    live, _ = table(kind, 200, seed=1)
    for method in ("auto", "beta"):
        assert compared(fedlas.calibrate(frame, method=method, **names), live) < 1e-9


def test_logits_of_any_size_are_stable():
    frame, names = table("logits", 500)
    for method in ("auto", "spline", "beta"):
        calibration = fedlas.calibrate(frame, method=method, **names)
        rows = 1e4 * drawn(100, 3, seed=2)[0]
        live = dict(zip(calibration.scores, rows.T, strict=True))
        text = statement(calibration)
        after = run_in_sqlite(text, calibration.scores, rows)
        with pytest.warns(CalibrationWarning, match="far outside the range of the fit"):
            wanted = calibration.apply(live)
        wanted = np.stack([wanted[name] for name in calibration.added], axis=1)
        apart = softmax(after) - softmax(wanted)
        assert np.isfinite(after).all()
        assert np.abs(apart).max() < 1e-9


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_predicted_class_is_kept_and_a_missing_score_stays_missing():
    frame, names = table("probs", 500)
    calibration = fedlas.calibrate(frame, method=AutoCalibration(keep_class=True), **names)
    assert compared(calibration, frame) < 1e-9
    after = run_in_sqlite(
        statement(calibration), calibration.scores, np.array([[None, 0.5, 0.5]], dtype=object)
    )
    assert np.isnan(after).all()


def test_export_writes_and_checks_it(tmp_path, capsys):
    frame, names = table("probs", 500)
    fedlas.calibrate(frame, **names).save(tmp_path / "cal.json")
    assert main(["export", str(tmp_path / "cal.json"), "--format", "sql"]) == 0
    shown = capsys.readouterr().out
    assert "checked with SQLite" in shown
    assert 'gives:  calibrated_s_"0' in shown
    assert "cal.sql" in shown
    assert (tmp_path / "cal.sql").read_text().startswith("-- fedlas: {")


@pytest.mark.system
@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 35), reason="SQLite before 3.35")
def test_the_line_for_sqlite_in_its_comment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame, names = table("probs", 500)
    calibration = fedlas.calibrate(frame, **names)
    text = statement(calibration)
    (tmp_path / "cal.sql").write_text(text)
    script = re.search(r"sed '(.+)';", text)[1]
    told = subprocess.run(["sed", script, "cal.sql"], capture_output=True, text=True, check=True)
    assert "AS MATERIALIZED (SELECT" in told.stdout
    rows = np.stack([frame[name] for name in calibration.scores], axis=1)
    after = run_in_sqlite(told.stdout, calibration.scores, rows)
    wanted = calibration.apply({name: frame[name] for name in calibration.scores})
    for column, name in zip(after.T, calibration.added, strict=True):
        np.testing.assert_allclose(column, wanted[name], rtol=0, atol=1e-9)


def test_what_has_no_formula_is_refused(tmp_path):
    random = np.random.default_rng(0)
    frame, names = table("single", 400)
    frame["x"] = random.normal(size=400)
    frame["y"] = (random.random(400) < 1 / (1 + np.exp(-3 * frame["x"]))).astype(int)
    with pytest.raises(InputError, match=r"auto with covariates.* temperature"):
        fedlas.deploy.export(
            fedlas.calibrate(frame, covariates="x", **names), tmp_path / "a.sql", form="sql"
        )
    for method in ("venn-abers", "histogram-binning"):
        calibration = fedlas.calibrate(frame, method=method, **names)
        with pytest.raises(InputError, match="short formula"):
            fedlas.deploy.export(calibration, tmp_path / "a.sql", form="sql")
    logits, target = drawn(3000, 24)
    many = {f"z{k}": column for k, column in enumerate(logits.T)} | {"y": target}
    calibration = fedlas.calibrate(many, logits="z*", target="y")
    with pytest.raises(InputError, match="auto of fewer than 20 classes"):
        fedlas.deploy.export(calibration, tmp_path / "a.sql", form="sql")
    assert not (tmp_path / "a.sql").exists()
