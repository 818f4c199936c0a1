"""A calibration as a SELECT: in databases it gives what ``apply`` gives, to 1e-9."""

import sqlite3
import tempfile
import warnings
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch

import fedlas
from fedlas.calibrators import AutoCalibration
from fedlas.deploy import export
from fedlas.deploy.sql_maps import sql_calibrator_names
from fedlas.errors import CalibrationWarning, InputError

DIALECTS = ("duckdb", "postgres", "sqlite", "bigquery", "spark")
METHODS = ("auto", *sql_calibrator_names())
EXTREME = [
    [1.0, 0.0, 0.0],
    [0.0, 1.0, 0.0],
    [1e-300, 1.0, 0.0],
    [1 / 3, 1 / 3, 1 / 3],
    [1e-12, 0.5, 0.5],
]
MISSING = [[np.nan, 0.5, 0.5], [0.5, 0.5, np.nan], [np.nan, np.nan, np.nan]]


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


def statement(calibration, dialect="duckdb"):
    """The text of the file that an export leaves."""
    with tempfile.TemporaryDirectory() as folder:
        export(calibration, Path(folder) / "cal.sql", form="sql", dialect=dialect)
        return (Path(folder) / "cal.sql").read_text()


def run_in_sqlite(text, columns, rows):
    """The calibrated columns of the statement, for a table of these rows."""
    with closing(sqlite3.connect(":memory:")) as connection:
        names = ", ".join('"{}"'.format(name.replace('"', '""')) for name in columns)
        connection.execute(f"CREATE TABLE predictions ({names})")
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO predictions VALUES ({marks})", rows.tolist())
        found = [row[len(columns) :] for row in connection.execute(text)]
    return np.array(found, dtype=np.float64)


def applied(calibration, live):
    """The calibrated columns that ``apply`` gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        columns = calibration.apply(live, missing="empty")
    return np.stack([columns[name] for name in calibration.added], axis=1)


def apart(found, wanted):
    """The largest difference; where a score is missing, both must be."""
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    return float(np.nanmax(np.abs(found - wanted)))


def compared(calibration, frame):
    """Largest difference from ``apply`` in SQLite and in DuckDB."""
    live = {name: frame[name] for name in calibration.scores}
    wanted = applied(calibration, live)
    rows = np.stack(list(live.values()), axis=1)
    lite = run_in_sqlite(statement(calibration, "sqlite"), calibration.scores, rows)
    with duckdb.connect() as connection:
        connection.register("predictions", pa.table(live))
        result = connection.execute(statement(calibration)).fetchnumpy()
    duck = np.stack([np.ma.filled(result[name], np.nan) for name in calibration.added], axis=1)
    return max(apart(each, wanted) for each in (lite, duck))


@pytest.mark.parametrize("method", METHODS)
def test_every_formula_gives_what_apply_gives(method):
    frame, names = table("probs", 600)
    calibration = fedlas.calibrate(frame, method=method, **names)
    live, _ = table("probs", 300, seed=1)
    scores = np.stack([live[name] for name in calibration.scores], axis=1)
    rows = np.concatenate([scores, EXTREME, MISSING])
    live = dict(zip(calibration.scores, rows.T, strict=True))
    assert compared(calibration, live) < 1e-9


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_other_databases_statements_end_in_sqlite_too(dialect):
    """SQLite writes stages into each other unless something parts them: 20 rows took 3 GB."""
    frame, names = table("probs", 400)
    calibration = fedlas.calibrate(frame, **names)
    rows = np.stack([frame[name][:20] for name in calibration.scores], axis=1)
    after = run_in_sqlite(statement(calibration, dialect), calibration.scores, rows)
    live = dict(zip(calibration.scores, rows.T, strict=True))
    assert apart(after, applied(calibration, live)) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_percentages_give_what_apply_gives(method):
    frame, names = table("probs", 400)
    percent = {name: 100 * frame[name] if name != "y" else frame[name] for name in frame}
    calibration = fedlas.calibrate(percent, method=method, percent=True, **names)
    assert compared(calibration, percent) < 1e-9


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
        after = run_in_sqlite(statement(calibration, "sqlite"), calibration.scores, rows)
        with pytest.warns(CalibrationWarning, match="far outside the range of the fit"):
            wanted = calibration.apply(live)
        wanted = np.stack([wanted[name] for name in calibration.added], axis=1)
        assert np.isfinite(after).all()
        assert np.abs(softmax(after) - softmax(wanted)).max() < 1e-9


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_predicted_class_is_kept():
    frame, names = table("probs", 500)
    calibration = fedlas.calibrate(frame, method=AutoCalibration(keep_class=True), **names)
    assert compared(calibration, frame) < 1e-9


@pytest.mark.parametrize("kind", ["logits", "single", "confidence"])
def test_a_row_without_a_score_has_none_after(kind):
    frame, names = table(kind, 300)
    calibration = fedlas.calibrate(frame, method="isotonic", **names)
    live = {name: np.array([*frame[name][:5], np.nan]) for name in calibration.scores}
    assert compared(calibration, live) < 1e-9


def test_an_empty_text_in_sqlite_is_no_score():
    frame, names = table("single", 300)
    calibration = fedlas.calibrate(frame, method="temperature", **names)
    rows = np.array([["0.5"], [""]], dtype=object)
    after = run_in_sqlite(statement(calibration, "sqlite"), calibration.scores, rows)
    assert after[0] == pytest.approx(applied(calibration, {"p": [0.5]})[0], abs=1e-9)
    assert np.isnan(after[1])


@pytest.mark.parametrize(
    "column", ["fedlas_1", "x AS (SELECT t.*", "s0 AS (SELECT t.*", "p%", "t", "select", "a'b"]
)
def test_any_name_of_a_column(column):
    frame, _ = table("single", 300)
    frame = {column: frame["p"], "y": frame["y"]}
    calibration = fedlas.calibrate(frame, method="platt", probs=column, target="y")
    assert compared(calibration, frame) < 1e-9


def test_columns_are_kept_as_they_are(tmp_path):
    frame, names = table("single", 300)
    calibration = fedlas.calibrate(frame, method="isotonic", **names)
    export(calibration, tmp_path / "cal.sql", form="sql", keep=["id", "the day"])
    rows = {"p": frame["p"], "id": [*range(300)], "the day": ["monday"] * 300, "y": frame["y"]}
    with duckdb.connect() as connection:
        connection.register("predictions", pa.table(rows))
        found = connection.execute((tmp_path / "cal.sql").read_text()).fetchnumpy()
    assert list(found) == ["id", "the day", "p", "calibrated_p"]
    assert found["id"].tolist() == rows["id"]
    assert found["the day"].tolist() == rows["the day"]


def test_a_kept_column_must_not_be_there_twice(tmp_path):
    frame, names = table("single", 300)
    calibration = fedlas.calibrate(frame, method="temperature", **names)
    for name in ("P", "calibrated_p"):
        with pytest.raises(InputError, match=f"'{name}'"):
            export(calibration, tmp_path / "a.sql", form="sql", keep=[name])


@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_auto_with_many_classes_respects_column_limits(kind):
    logits, target = drawn(2000, 19)
    scores = logits if kind == "logits" else softmax(logits)
    frame = {f"s{k}": column for k, column in enumerate(scores.T)} | {"y": target}
    calibration = fedlas.calibrate(frame, target="y", **{kind: "s*"})
    few = {name: frame[name][:40] for name in calibration.scores}
    assert compared(calibration, few) < 1e-9


def test_another_column_named_as_ours_is_not_read():
    frame, names = table("single", 300)
    calibration = fedlas.calibrate(frame, method="isotonic", **names)
    rows = pa.table({"p": frame["p"], **{f"fedlas_{k}": frame["p"] + 9 for k in range(30)}})
    with duckdb.connect() as connection:
        connection.register("predictions", rows)
        result = connection.execute(statement(calibration)).fetchnumpy()
    assert apart(result["calibrated_p"][:, None], applied(calibration, {"p": frame["p"]})) < 1e-9


@pytest.mark.parametrize(
    ("dialect", "columns", "match"),
    [
        ("duckdb", ("P", "p"), "'P' and 'p'"),
        ("sqlite", ("a\nb", "c"), r"'a\\nb'"),
        ("bigquery", ("a`b", "c"), "be valid in bigquery; got 'a`b'"),
        ("bigquery", ("a\\b", "c"), "be valid in bigquery"),
        ("postgres", ("p" * 60, "c"), "at most 63 bytes in postgres; got 'calibrated_p"),
    ],
)
def test_names_that_a_database_cannot_hold(tmp_path, dialect, columns, match):
    frame, _ = table("single", 300)
    frame = {columns[0]: 1 - frame["p"], columns[1]: frame["p"], "y": frame["y"]}
    calibration = fedlas.calibrate(frame, method="temperature", probs=list(columns), target="y")
    with pytest.raises(InputError, match=match):
        export(calibration, tmp_path / "a.sql", form="sql", dialect=dialect)
    assert not (tmp_path / "a.sql").exists()


def test_percent_signs_are_refused(tmp_path):
    frame, names = table("single", 300)
    lines = [f"{100 * p:.6f}%,{y}" for p, y in zip(frame["p"], frame["y"], strict=True)]
    (tmp_path / "val.csv").write_text("\n".join(["p,y", *lines]))
    calibration = fedlas.calibrate(tmp_path / "val.csv", method="temperature", **names)
    with pytest.raises(InputError, match="percent signs in p"):
        export(calibration, tmp_path / "a.sql", form="sql")


def test_dialect_must_exist_and_requires_sql(tmp_path):
    frame, names = table("single", 300)
    calibration = fedlas.calibrate(frame, method="temperature", **names)
    with pytest.raises(InputError, match=r"dialect must be one of .*'oracle'"):
        export(calibration, tmp_path / "a.sql", form="sql", dialect="oracle")
    with pytest.raises(InputError, match="dialect must be left out unless"):
        export(calibration, tmp_path / "a.onnx", dialect="duckdb")
    with pytest.raises(InputError, match="keep must be left out unless"):
        export(calibration, tmp_path / "a.onnx", keep=["id"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_parser_of_each_dialect_reads_the_statement(dialect):
    sqlglot = pytest.importorskip("sqlglot")
    frame, names = table("probs", 400)
    for method in ("auto", "isotonic"):
        calibration = fedlas.calibrate(frame, method=method, **names)
        tree = sqlglot.parse_one(statement(calibration, dialect), dialect=dialect)
        added = [each.alias_or_name for each in tree.selects]
        assert added == [*calibration.scores, *calibration.added]


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
        with pytest.raises(InputError, match="must have a SQL formula"):
            fedlas.deploy.export(calibration, tmp_path / "a.sql", form="sql")
    logits, target = drawn(3000, 24)
    many = {f"z{k}": column for k, column in enumerate(logits.T)} | {"y": target}
    calibration = fedlas.calibrate(many, logits="z*", target="y")
    with pytest.raises(InputError, match="auto with fewer than 20 classes"):
        fedlas.deploy.export(calibration, tmp_path / "a.sql", form="sql")
    assert not (tmp_path / "a.sql").exists()
