"""The calibration of a table as one SELECT that a database runs, and that is read back in SQLite to check it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.deploy.sql_maps import (
    PREFIX,
    Names,
    Program,
    at_least,
    columns_of_map,
    log_softmax,
    softmax,
    total,
)
from fedlas.predictions.probabilities import FLOOR

if TYPE_CHECKING:
    from fedlas.calibrated import TableCalibration

TABLE = "predictions"
"""Name of the table in the statement, to be replaced."""
_HEAD = "-- fedlas: "
"""Begins the line that describes the columns as JSON."""
_PLAIN = " AS (SELECT t.*"
_MATERIALIZED = " AS MATERIALIZED (SELECT t.*"
"""SQLite and PostgreSQL put the expressions of stages into each other, which takes all memory, unless told not to."""
_MOST_CLASSES = 50
"""Most classes: the statement grows with them, for a matrix with their square."""


def statement(calibration: TableCalibration, about: Mapping[str, Any]) -> str:
    """Return the SELECT of a calibration: the scores and the calibrated columns of a table ``predictions``.

    Raises:
        InputError: If the calibrator has no short formula, or the scores are no columns of numbers.
    """
    columns = calibration.columns
    if calibration.in_lists or columns.confidence_as != "number" or columns.format is not None:
        raise InputError(
            "sql is for scores in columns of numbers",
            "lists or text" if calibration.in_lists else f"the scores of {calibration.scores[0]!r}",
            "Write a column a class, or export to onnx.",
        )
    classes = calibration.calibrator.num_classes or 2
    if classes > _MOST_CLASSES:
        raise InputError(f"sql is for at most {_MOST_CLASSES} classes", classes, "Export to onnx.")
    program = Program()
    logits = _logits(program, calibration)
    least = calibration.calibrator.least_log
    if least is not None:
        logits = program.add([at_least(name, least) for name in log_softmax(program, logits)])
    after = columns_of_map(program, calibration.calibrator.map, logits)
    results = _results(program, calibration, after)
    return _text(calibration, program, results, about)


def _logits(program: Program, calibration: TableCalibration) -> Names:
    """Return the columns of the logits of all classes."""
    quoted = [f"{quote(name)} * 1.0e0" for name in calibration.scores]
    if calibration.columns.percent:
        quoted = [f"{quote(name)} / 1.0e2" for name in calibration.scores]
    scores = program.add(quoted)
    if calibration.columns.kind == "logits":
        return program.add(["0.0e0", scores[0]]) if len(scores) == 1 else scores
    if len(scores) == 1:
        scores = program.add([f"1.0e0 - {scores[0]}", scores[0]])
    elif calibration.columns.kind == "probs":
        sums = program.one(total(scores))
        scores = program.add([f"{name} / {sums}" for name in scores])
    return program.add([f"LN({at_least(name, FLOOR)})" for name in scores])


def _results(program: Program, calibration: TableCalibration, logits: Names) -> Names:
    """Return the columns that are added, of the kind and number of the scores."""
    single = len(calibration.scores) == 1
    if calibration.columns.kind == "logits":
        return program.add([f"{logits[1]} - {logits[0]}"]) if single else logits
    probs = softmax(program, logits)
    return probs[1:] if single else probs


def _text(
    calibration: TableCalibration, program: Program, results: Names, about: Mapping[str, Any]
) -> str:
    described = {
        **{name: about[name] for name in ("fedlas", "format") if name in about},
        "columns": list(calibration.scores),
        "adds": list(calibration.added),
        "unit": calibration.columns.kind,
        "classes": list(calibration.classes),
    }
    lines = [
        _HEAD + json.dumps(described),
        f"-- Replace {TABLE} by your table, and add the columns to keep, such as an id, to the last list.",
        '-- Names are quoted as "name"; BigQuery, Databricks and MySQL take `name`, and SQL Server LOG for LN.',
        "-- For SQLite and PostgreSQL: sed 's/ AS (SELECT/ AS MATERIALIZED (SELECT/'; others need no such word.",
        "-- A missing score gives a missing result. Scores are not checked: probabilities must lie in [0, 1].",
        "WITH",
    ]
    source = f"{TABLE} t"
    for number, stage in enumerate(program.stages):
        columns = ",\n".join(f"    {expression} AS {name}" for name, expression in stage)
        end = "" if number == len(program.stages) - 1 else ","
        lines.append(f"{PREFIX}s{number}{_PLAIN},\n{columns}\n  FROM {source}){end}")
        source = f"{PREFIX}s{number} t"
    final = [quote(name) for name in calibration.scores]
    final += [
        f"{name} AS {quote(added)}" for name, added in zip(results, calibration.added, strict=True)
    ]
    listed = ",\n  ".join(final)
    return "\n".join([*lines, f"SELECT\n  {listed}\nFROM {source}", ""])


def quote(name: str) -> str:
    """Return a name as an identifier of standard SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def write_sql(
    module: Any, _example: Mapping[str, Tensor], _axes: Any, about: Mapping[str, Any]
) -> bytes:
    """Return the bytes of a file of the statement; only the calibration of a table has one."""
    calibration = getattr(module, "calibration", None)
    if calibration is None:
        raise InputError(
            "sql is for the calibration of a table",
            "a model",
            "Pass the file of fedlas calibrate; models go out as onnx.",
        )
    return statement(calibration, about).encode()


def read_sql(content: bytes) -> Any:
    """Return what the statement computes, by SQLite: probabilities ``(n, C)`` of ``scores (n, columns)``."""
    text = content.decode()
    described = json.loads(text.splitlines()[0].removeprefix(_HEAD))

    def probs(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.floating[Any]]:
        after = run_in_sqlite(text, described["columns"], inputs["scores"])
        if after.shape[1] == 1:
            first = 0 * after if described["unit"] == "logits" else 1 - after
            after = np.concatenate([first, after], axis=1)
        if described["unit"] != "logits":
            return after
        powers = np.exp(after - after.max(axis=1, keepdims=True))
        shares: NDArray[np.floating[Any]] = powers / powers.sum(axis=1, keepdims=True)
        return shares

    return probs


def run_in_sqlite(
    text: str, columns: Sequence[str], scores: NDArray[Any]
) -> NDArray[np.floating[Any]]:
    """Return the calibrated columns ``(n, A)`` of the statement, for scores ``(n, columns)``."""
    connection = sqlite3.connect(":memory:")
    try:
        names = ", ".join(map(quote, columns))
        connection.execute(f"CREATE TABLE {TABLE} ({names})")
        marks = ", ".join("?" for _ in columns)
        connection.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", scores.tolist())
        rows = connection.execute(text.replace(_PLAIN, _MATERIALIZED)).fetchall()
    finally:
        connection.close()
    return np.asarray(rows, dtype=np.float64)[:, len(columns) :]


def sql_lines(path: Path, _example: Mapping[str, Tensor]) -> list[str]:
    """Return four lines of Python that run the statement in DuckDB."""
    return [
        "import duckdb, pathlib",
        "predictions = duckdb.read_csv('live.csv')  # your table",
        f"sql = pathlib.Path({path.as_posix()!r}).read_text()",
        "print(duckdb.sql(sql))",
    ]
