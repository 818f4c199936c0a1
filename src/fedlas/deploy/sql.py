"""Export of a table calibration as a SQL SELECT statement, verified by running it in SQLite."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, truncated_list
from fedlas._core.defaults import SqlDialect
from fedlas._core.text import comment_line
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.deploy.sql_maps import (
    Names,
    Program,
    apply_label_curves,
    apply_map,
    clamp_min,
    exp_or_zero,
    log_sigmoid,
    log_softmax,
    null_unless_finite,
    softmax,
    sum_terms,
)
from fedlas.predictions.probabilities import FLOOR, NEAREST_TO_0

if TYPE_CHECKING:
    from fedlas.calibrated import TableCalibration

TABLE = "predictions"
"""Placeholder for the name of the table in the statement."""
_HEADER = "fedlas: "
"""Beginning of the comment in the first line, which describes the columns as JSON."""
_MATERIALIZED = " AS MATERIALIZED (SELECT"
"""Start of a stage. SQLite and PostgreSQL inline stages that are not MATERIALIZED, which exhausts memory."""
_NOT_MATERIALIZED = " AS (SELECT"
_FENCE = f" LIMIT {2**63 - 1}"
"""End of a stage, which no table is longer than. It too keeps SQLite and PostgreSQL from inlining the stage."""
_MAX_LABELS = 300
_MAX_CLASSES = 50
"""Largest numbers of labels and classes; the length of the statement grows up to quadratically with classes."""


@dataclass(frozen=True)
class Dialect:
    """SQL dialect: quoting of names, casts to numbers, and commands that run a statement.

    Attributes:
        title: Name of the database.
        mark: Quotation mark of identifiers.
        number: Template that casts a column to double precision.
        example: Lines that run the file, ``{path}`` in Python and ``{shell}`` in a shell.
        stage: Start of a stage, after its name.
        fence: End of a stage, after its table.
        doubled: Whether quotation marks in names are escaped by doubling; otherwise names must not contain any.
        longest: Largest length of a name in bytes.
    """

    title: str
    mark: str
    number: str
    example: tuple[str, ...]
    stage: str = _MATERIALIZED
    fence: str = ""
    doubled: bool = True
    longest: int = 2**31

    def quote(self, name: str) -> str:
        """Return ``name`` as a quoted SQL identifier."""
        return f"{self.mark}{name.replace(self.mark, 2 * self.mark)}{self.mark}"


_READ = "sql = pathlib.Path({path!r}).read_text()"
DIALECTS: dict[str, Dialect] = {
    "duckdb": Dialect(
        "DuckDB",
        '"',
        "CAST({} AS DOUBLE PRECISION)",
        (
            "import duckdb, pathlib",
            "predictions = duckdb.read_csv('live.csv')  # your table",
            _READ,
            "print(duckdb.sql(sql))",
        ),
        # DuckDB computes each stage once anyway. With MATERIALIZED it keeps all of them: four times as long, and 2 kB a
        # row of auto. The fence is for who runs the default in another database.
        stage=_NOT_MATERIALIZED,
        fence=_FENCE,
    ),
    "postgres": Dialect(
        "PostgreSQL",
        '"',
        "CAST({} AS DOUBLE PRECISION)",
        ("psql YOUR_DATABASE --file {shell}",),
        longest=63,
    ),
    # SQLite imports missing CSV cells as empty text, which a cast would turn into 0.
    "sqlite": Dialect(
        "SQLite", '"', "CAST(NULLIF({}, '') AS DOUBLE PRECISION)", ("sqlite3 YOUR_FILE < {shell}",)
    ),
    "bigquery": Dialect(
        "BigQuery",
        "`",
        "CAST({} AS FLOAT64)",
        ("bq query --use_legacy_sql=false < {shell}",),
        stage=_NOT_MATERIALIZED,
        doubled=False,
    ),
    "spark": Dialect(
        "Spark",
        "`",
        "CAST({} AS DOUBLE)",
        ("import pathlib", _READ, "spark.sql(sql).show()"),
        stage=_NOT_MATERIALIZED,
    ),
}
"""SQL dialects by name; the first is the default."""


def build_statement(
    calibration: TableCalibration,
    about: Mapping[str, Any],
    dialect: SqlDialect = "duckdb",
    keep: Sequence[str] = (),
) -> str:
    """Return a SELECT statement that computes kept columns, scores and calibrated columns of a table ``predictions``.

    Raises:
        InputError: If the calibrator has no SQL formula, the scores are not numeric columns, or a column name is
            invalid in the database.
    """
    columns = calibration.columns
    if calibration.in_lists or columns.confidence_as != "number" or columns.format is not None:
        raise InputError(
            "for sql the scores must be in numeric columns",
            "lists or text" if calibration.in_lists else f"the scores of {calibration.scores[0]!r}",
            "Write one column per class, or export to onnx.",
        )
    if signs := [name for name in calibration.scores if calibration.units.percent.get(name)]:
        raise InputError(
            "for sql the scores must be in numeric columns",
            f"numbers with percent signs in {truncated_list(signs)}",
            "Remove the percent signs and fit the calibration again, or export to onnx.",
        )
    classes = calibration.fitted.num_classes or 2
    several = calibration.fitted.multi_label
    most, noun = (_MAX_LABELS, "labels") if several else (_MAX_CLASSES, "classes")
    if classes > most:
        raise InputError(f"for sql there must be at most {most} {noun}", classes, "Export to onnx.")
    _check_column_names((*keep, *calibration.scores, *calibration.added), dialect)
    described = {
        **{name: about[name] for name in ("fedlas", "format") if name in about},
        "dialect": dialect,
        "columns": list(calibration.scores),
        "keeps": list(keep),
        "adds": list(calibration.added),
        "unit": columns.kind,
        "classes": list(calibration.classes),
        **({"several": True} if several else {}),
    }
    head = comment_line(f"{_HEADER}{json.dumps(described)}", "--")
    program = Program(_column_prefix(head))
    scores = _select_scores(program, calibration, DIALECTS[dialect])
    if isinstance(calibration.calibrator, MultiLabelCalibration):
        results = _calibrate_labels(program, calibration.calibrator, str(columns.kind), scores)
    else:
        results = _calibrate_classes(program, calibration, calibration.calibrator, scores)
    quote = DIALECTS[dialect].quote
    names = [quote(name) for name in (*keep, *calibration.scores)]
    added = [quote(name) for name in calibration.added]
    return _render_statement(
        program, names, dict(zip(added, results, strict=True)), head, DIALECTS[dialect]
    )


def _column_prefix(header: str) -> str:
    """Return a prefix for computed columns that is unlikely to occur in column names of a table."""
    return f"fedlas_{sha256(header.encode()).hexdigest()[:4]}_"


def _check_column_names(names: Sequence[str], dialect: SqlDialect) -> None:
    """Raise InputError for column names that the database does not allow or does not distinguish."""
    form = DIALECTS[dialect]
    fix = "Rename the column and fit the calibration again, or export to onnx."
    spellings: dict[str, str] = {}
    for name in names:
        if name.lower() in spellings:
            raise InputError(
                "column names must differ in more than upper and lower case, which databases ignore",
                f"{spellings[name.lower()]!r} and {name!r}",
                fix,
            )
        spellings[name.lower()] = name
        if any(ord(letter) < 32 for letter in name) or (
            not form.doubled and {form.mark, "\\"} & set(name)
        ):
            raise InputError(f"column names must be valid in {dialect}", repr(name), fix)
        if len(name.encode()) > form.longest:
            raise InputError(
                f"column names must have at most {form.longest} bytes in {dialect}",
                repr(name),
                fix,
            )


def _calibrate_classes(
    program: Program, calibration: TableCalibration, calibrator: Calibrator, scores: Names
) -> Names:
    """Add the stages of a single-label calibrator, and return the calibrated columns."""
    logits = _scores_to_logits(program, calibration, scores)
    least = calibrator.least_log
    if least is not None:
        logits = program.add([clamp_min(name, least) for name in log_softmax(program, logits)])
    after = apply_map(program, calibrator.map, logits)
    return _logits_to_results(program, calibration, after)


def _calibrate_labels(
    program: Program, calibration: MultiLabelCalibration, kind: str, scores: Names
) -> Names:
    """Add the stages of a multi-label calibration, and return the calibrated columns."""
    curves = calibration.curves
    if curves is None:
        raise InputError(
            "for sql a multi-label calibration must use the default calibrator",
            calibration.method,
            "Fit it without --method, or export to onnx.",
        )
    if kind == "logits":
        return apply_label_curves(program, curves, scores)
    present = program.add([f"LN({clamp_min(name, FLOOR)})" for name in scores])
    rest = program.add([f"1.0e0 - {name}" for name in scores])
    absent = program.add([f"LN({clamp_min(name, NEAREST_TO_0)})" for name in rest])
    odds = program.add([f"{one} - {other}" for one, other in zip(present, absent, strict=True)])
    after = log_sigmoid(program, apply_label_curves(program, curves, odds))
    return program.add([exp_or_zero(name) for name in after])


def _select_scores(program: Program, calibration: TableCalibration, dialect: Dialect) -> Names:
    """Add the stages that read the scores, and return their columns; NULL in rows with a missing score."""
    scores = program.add(
        [dialect.number.format(dialect.quote(name)) for name in calibration.scores]
    )
    scores = null_unless_finite(program, scores)
    if calibration.columns.percent:
        scores = program.add([f"{name} / 1.0e2" for name in scores])
    return scores


def _scores_to_logits(program: Program, calibration: TableCalibration, scores: Names) -> Names:
    """Add the stages that convert scores to logits, and return one column per class."""
    if calibration.columns.kind == "logits":
        return program.add(["0.0e0", scores[0]]) if len(scores) == 1 else scores
    if len(scores) == 1:
        scores = program.add([f"1.0e0 - {scores[0]}", scores[0]])
    elif calibration.columns.kind == "probs":
        sums = program.add_column(sum_terms(scores))
        scores = program.add([f"{name} / {sums}" for name in scores])
    return program.add([f"LN({clamp_min(name, FLOOR)})" for name in scores])


def _logits_to_results(program: Program, calibration: TableCalibration, logits: Names) -> Names:
    """Add the stages that convert calibrated logits to the unit of the scores, and return the result columns."""
    single = len(calibration.scores) == 1
    if calibration.columns.kind == "logits":
        return program.add([f"{logits[1]} - {logits[0]}"]) if single else logits
    probs = softmax(program, logits)
    return probs[1:] if single else probs


def _render_statement(
    program: Program,
    names: Sequence[str],
    results: Mapping[str, str],
    header: str,
    dialect: Dialect,
) -> str:
    """Return the SQL text of a program, with kept columns ``names`` and ``results`` by output name."""
    lines = [
        header,
        comment_line(
            f"For {dialect.title}; other databases have an option --dialect. Checked in SQLite as it was written.",
            "--",
        ),
        comment_line(
            f"Replace {TABLE} by your table. To return columns such as an id, export with --keep.",
            "--",
        ),
        "-- A missing score gives NULL. Scores are not checked: probabilities must be in [0, 1].",
        "WITH",
    ]
    source = TABLE
    live = _required_columns(program, results.values())
    for number, (carried, computed) in enumerate(live):
        columns = [*names, *carried, *(f"{expression} AS {name}" for name, expression in computed)]
        listed = ",\n    ".join(columns)
        end = "" if number == len(live) - 1 else ","
        stage = f"{program.prefix}s{number}"
        lines.append(f"{stage}{dialect.stage}\n    {listed}\n  FROM {source}{dialect.fence}){end}")
        source = stage
    final = [*names, *(f"{name} AS {added}" for added, name in results.items())]
    listed = ",\n  ".join(final)
    return "\n".join([*lines, f"SELECT\n  {listed}\nFROM {source}", ""])


def _required_columns(
    program: Program, results: Iterable[str]
) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Return, per stage, the columns that later stages need: names to pass on, and columns to compute."""
    # SQLite allows 2,000 columns and PostgreSQL 1,664; auto with 19 classes computes more.
    ours = re.compile(rf"\b{program.prefix}\d+\b")
    needed = set(results)
    stages = []
    for stage in reversed(program.stages):
        computed = [(name, expression) for name, expression in stage if name in needed]
        carried = needed - {name for name, _ in computed}
        stages.append((sorted(carried, key=lambda name: (len(name), name)), computed))
        needed = carried.union(*(ours.findall(expression) for _, expression in computed))
    return stages[::-1]


def write_sql(
    module: Any, _example: Mapping[str, Tensor], _axes: Any, about: Mapping[str, Any]
) -> bytes:
    """Return the SQL file of a table calibration as bytes; raise InputError for other modules."""
    calibration = getattr(module, "calibration", None)
    if calibration is None:
        raise InputError(
            "for sql the model must be a table calibration",
            "another model",
            "Pass a file written by fedlas calibrate; export other models to onnx.",
        )
    return build_statement(calibration, about, module.dialect, module.keep).encode()


def read_sql(content: bytes) -> Any:
    """Return the prediction function of a SQL file, run in SQLite: ``scores (n, columns)`` to ``probs (n, C)``."""
    text = content.decode()
    described = json.loads(text.splitlines()[0].partition(_HEADER)[2])

    def probs(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.floating[Any]]:
        after = run_in_sqlite(text, described["columns"], described["keeps"], inputs["scores"])
        if after.shape[1] == 1 and not described.get("several"):
            first = 0 * after if described["unit"] == "logits" else 1 - after
            after = np.concatenate([first, after], axis=1)
        if described["unit"] != "logits":
            return after
        if described.get("several"):
            chances: NDArray[np.floating[Any]] = 1.0 / (1.0 + np.exp(-after))
            return chances
        powers = np.exp(after - after.max(axis=1, keepdims=True))
        shares: NDArray[np.floating[Any]] = powers / powers.sum(axis=1, keepdims=True)
        return shares

    return probs


def run_in_sqlite(
    statement: str, columns: Sequence[str], kept_columns: Sequence[str], scores: NDArray[Any]
) -> NDArray[np.floating[Any]]:
    """Return the calibrated columns ``(n, A)`` of a statement for scores ``(n, columns)``; NaN for NULL."""
    # Column names contain no line breaks, so only stages match at the start of a line.
    stage = re.compile(
        rf"^({_column_prefix(statement.splitlines()[0])}s\d+){re.escape(_NOT_MATERIALIZED)}",
        re.MULTILINE,
    )
    connection = sqlite3.connect(":memory:")
    try:
        names = ", ".join(map(DIALECTS["sqlite"].quote, (*columns, *kept_columns)))
        connection.execute(f"CREATE TABLE {TABLE} ({names})")
        marks = ", ".join("?" for _ in (*columns, *kept_columns))
        rows = [(*row, *(None for _ in kept_columns)) for row in scores.tolist()]
        connection.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", rows)
        values = connection.execute(stage.sub(rf"\1{_MATERIALIZED}", statement)).fetchall()
    finally:
        connection.close()
    return np.asarray([row[len(columns) + len(kept_columns) :] for row in values], dtype=np.float64)


def sql_usage_lines(path: Path, _example: object) -> list[str]:
    """Return the commands that run the SQL file in its database."""
    with path.open(encoding="utf-8") as file:
        described = json.loads(file.readline().partition(_HEADER)[2])
    places = {"path": path.as_posix(), "shell": quote(path.as_posix())}
    return [line.format(**places) for line in DIALECTS[described["dialect"]].example]
