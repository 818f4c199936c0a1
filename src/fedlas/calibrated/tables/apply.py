"""Application of a calibration to the rows of another table, in chunks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe, truncated_list
from fedlas._core.extras import require
from fedlas._core.kinds import is_lazy_frame
from fedlas.calibrated.tables.direction import ScoreDirection
from fedlas.calibrated.tables.missing import Missing
from fedlas.calibrated.tables.questions import calibration_of_rows, check_columns_of_fit
from fedlas.predictions import Columns, ScoreTable, TopLabel
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.tables.formats.frame import collect_lazy
from fedlas.predictions.tables.read import (
    check_not_probabilities,
    open_source,
    predictions_from_values,
)
from fedlas.predictions.tables.roles import LABELS, ROLES

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.row_check import RowCheck
    from fedlas.calibrated.tables.table_fit import TableFit
    from fedlas.predictions.tables.formats.format import Format
    from fedlas.predictions.tables.table import Values


@dataclass(frozen=True)
class Applied:
    """Result of applying a calibration to a table: counts, added columns and notes.

    Attributes:
        rows: Rows in the table.
        columns: Columns that were added.
        notes: Sentences on how the table was read.
        edge: Counts of rows with covariates unlike those of the fit, see :class:`EdgeCount`.
        missing: ``count`` of the rows without a score, whose cells are empty, and the ``first`` of them.
    """

    rows: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    edge: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict of plain values for JSON."""
        return asdict(self)


def apply_rows(
    calibration: TableFit,
    source: Format,
    missing: Missing,
    write: Callable[[Callable[[], list[NDArray[Any]]]], None],
    *,
    notes: Callable[[ScoreTable], tuple[str, ...]] = ScoreTable.notes,
) -> Applied:
    """Calibrate the rows of a table in chunks, and pass the calibrated columns of each chunk to ``write``.

    Args:
        calibration: The calibration of a table.
        source: The open table.
        missing: Policy for rows without a score, and their count.
        write: Is called for some rows before the next are read, with a function that returns an array for each column
            that is added: ``(n,)``, or ``(n, C)`` for a column of lists; NaN where there is no score.
        notes: Returns notes about how the table was read.

    Raises:
        InputError: If a column is missing, or a value is no score; row and column are named.
    """
    if calibration.columns.cell_form == "vote":
        return _apply_to_questions(calibration, source, missing, write, notes=notes)
    table = live_table(calibration, source, missing)
    edge = calibration.edge_count()
    checks: tuple[RowCheck[Values], ...] = (ScoreDirection(calibration, source), edge)
    rows = len(source.left_out)
    for numbers, index, values in live_rows(table, missing):
        rows += len(numbers)
        for check in checks if values else ():
            check.add(values)
        write(
            partial(
                filled_columns,
                calibration,
                values,
                index,
                len(numbers),
                file=table.file,
                score_type=table.score_type,
            )
        )
    missing.add(source.left_out, source.label, several=False)
    for check in checks:
        check.check(source.label)
    sentences = (*notes(table), *(note for check in checks for note in check.notes()))
    return Applied(rows, calibration.added, sentences, edge.to_dict(), missing.to_dict())


def _apply_to_questions(
    calibration: TableFit,
    source: Format,
    missing: Missing,
    write: Callable[[Callable[[], list[NDArray[Any]]]], None],
    *,
    notes: Callable[[ScoreTable], tuple[str, ...]],
) -> Applied:
    """Calibrate the confidence of each question, and pass it to ``write`` for each row of the table, an answer.

    The answers of all questions are held in memory. The arguments and errors are those of ``apply_rows``.
    """
    drop_missing = missing.policy == "empty"
    of_questions, questions = calibration_of_rows(calibration, source, drop_missing=drop_missing)
    parts: list[list[NDArray[Any]]] = []
    done = apply_rows(
        of_questions,
        questions,
        Missing(missing.policy),
        lambda columns: parts.append(columns()),
        notes=notes,
    )
    question = str(calibration.columns.clusters)
    names_of_questions = [
        name for chunk in questions.chunks([], [question]) for name in chunk.values[question]
    ]
    confidences = np.concatenate([part[0] for part in parts])
    by_question = dict(zip(names_of_questions, confidences, strict=True))
    rows = 0
    for chunk in source.chunks([], [question]):
        names = chunk.text_values(question, missing="")
        column = np.array([by_question.get(name, np.nan) for name in names])
        rows += len(names)
        lacking = chunk.rows[np.isnan(column)].tolist()
        missing.add(lacking, chunk.file, several=", " in source.label)
        write(partial(list, [column]))
    return replace(done, rows=rows, columns=calibration.added, missing=missing.to_dict())


def apply_to_frame(calibration: TableFit, frame: Any, missing: Missing) -> tuple[Any, Applied]:
    """Return a frame with the calibrated columns added, and the result of applying the calibration."""
    parts: list[list[NDArray[Any]]] = []
    rows = collect_lazy(frame)  # once: a second time its rows may come in another order
    done = apply_rows(
        calibration,
        open_source(rows, Columns())[0],
        missing,
        lambda columns: parts.append(columns()),
        notes=ScoreTable.fit_notes,
    )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    columns = columns or [np.empty(0) for _ in calibration.added]
    after = with_columns(rows, dict(zip(calibration.added, columns, strict=True)))
    return after.lazy() if is_lazy_frame(frame) and hasattr(frame, "lazy") else after, done


def with_columns(frame: object, columns: Mapping[str, NDArray[Any]]) -> Any:
    """Return a frame of the same kind with columns ``(n,)`` or ``(n, C)`` added.

    Raises:
        InputError: For another kind of frame.
        MissingExtraError: For all but mappings without narwhals.
    """
    if isinstance(frame, Mapping):
        return {**frame, **columns}
    if hasattr(frame, "to_struct_array") and not hasattr(frame, "combine_chunks"):
        # A record batch, which narwhals does not take.
        arrow = require("pyarrow", extra="tables")
        table = with_columns(arrow.Table.from_batches([frame]), columns)
        return arrow.RecordBatch.from_struct_array(table.to_struct_array().combine_chunks())
    narwhals = require("narwhals", extra="tables")
    try:
        rows = narwhals.from_native(frame, eager_only=True)
    except TypeError as error:
        raise InputError(
            "frame must be a pandas, polars or Arrow table", describe(frame), "Convert it."
        ) from error
    series = [
        narwhals.new_series(
            name, values if values.ndim == 1 else list(values), backend=rows.implementation
        )
        for name, values in columns.items()
    ]
    return rows.with_columns(*series).to_native()


_JUDGED = (*LABELS, "weights", "clusters")
"""Roles of columns that are read only to evaluate a calibration."""


def open_table_source(
    calibration: TableFit,
    table: object,
    form: Literal["table", "lm-eval"] | None,
    *,
    separator: str | None = None,
    drop_missing: bool = False,
    live: str | None = None,
) -> Format:
    """Open a frame or files as a table; the separator of CSV files is detected, else the one of the fit is used."""
    columns = Columns(format=form, separator=separator, drop_missing=drop_missing)
    if form == "lm-eval":  # whose answers are read when it is opened
        of_answers = calibration.columns
        columns = replace(columns, confidence_as=of_answers.confidence_as, words=of_answers.words)
    # That of the fit is tried where none is noticed that gives the scores.
    of_fit = calibration.columns.separator
    for sign in () if separator or not of_fit else (None, of_fit):
        with suppress(InputError):
            source = open_source(table, replace(columns, separator=sign), live=live)[0]
            if {*calibration.scores} <= {*source.names}:
                return source
    return open_source(table, columns, live=live)[0]


def live_table(
    calibration: TableFit, source: Format, missing: Missing, *, labels: bool = False
) -> ScoreTable:
    """Return a table opened with the columns of the fit, found by their names or JSON paths.

    Args:
        calibration: The calibration of a table.
        source: What holds the rows.
        missing: What happens to rows without a score.
        labels: Whether their labels, weights and clusters are read too.

    Raises:
        InputError: If a column is missing, a further one looks like another class, or calibrated ones are there.
    """
    required = [
        *calibration.scores,
        *(calibration.covariates.columns if calibration.covariates else ()),
    ]
    columns = calibration.columns
    answers = [columns.confidence or ""] if columns.cell_form != "number" else []
    source.expand_paths(required, answers)
    check_columns_of_fit(calibration, source, required)
    names = source.names
    label = source.label
    singles = (name for name, each in ROLES.items() if each.metavar == "COLUMN")
    others = {*required, *(getattr(columns, name) for name in singles)}
    for pattern in calibration.columns.split_option(calibration.columns.kind or "logits"):
        more = [name for name in names if fnmatchcase(name, pattern) and name not in others]
        if pattern not in names and more:
            raise InputError(
                f"columns that match {pattern!r} must be the classes of the fit, {truncated_list(calibration.scores)}",
                f"also {truncated_list(more)} in {label}",
                "Remove the column, or fit a calibration on these classes.",
            )
    # The other roles are for the fit alone.
    roles = [name for name in ROLES if ROLES[name].of_live or (labels and name in _JUDGED)]
    values = {name: getattr(columns, name) for name in roles}
    # What a log of lm-evaluation-harness stated in another form is a number here.
    values["confidence_as"] = columns.cell_form
    values["words"] = columns.words if columns.cell_form == "words" else None
    live = Columns(**values)
    is_one = calibration.columns.kind == "confidence"
    named: Any = calibration.scores[0] if is_one else list(calibration.scores)
    has_classes = not calibration.in_lists and calibration.label_names is None
    classes = calibration.classes if has_classes else ()
    live = replace(live, classes=classes, **{calibration.columns.kind or "logits": named})
    live = replace(live, drop_missing=missing.policy == "empty")
    covariates = copy.deepcopy(calibration.covariates) or Covariates()
    table = ScoreTable(
        source,
        live,
        covariates,
        copy.deepcopy(calibration.units).as_fit_units(),
        calibration.label_names,
        calibration.words,
    )
    table.keeps_rows = True
    table.optional = frozenset((*covariates.categories, *covariates.means))
    return table


def live_rows(
    table: ScoreTable, missing: Missing
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Values]]:
    """Yield the chunks of :meth:`ScoreTable.rows`, and count the rows without a score in ``missing``."""
    files = set[str]()
    try:
        for rows, index, values in table.rows():
            files.add(table.file)
            lacking = np.delete(rows, index).tolist()
            missing.add(lacking, table.file, several=len(files) > 1 or ", " in table.label)
            yield rows, index, values
    except InputError as error:
        # The rows stay, and are read as those of the fit.
        error.without(*(field.name for field in fields(Columns)))
        raise


def filled_columns(
    calibration: TableFit,
    values: Values,
    index: NDArray[np.int64],
    count: int,
    *,
    file: str,
    score_type: np.dtype[Any],
) -> list[NDArray[Any]]:
    """Return the calibrated columns, each of ``count`` rows, with NaN for rows without a score.

    Args:
        calibration: The calibration of a table.
        values: Values of the rows with a score.
        index: Their indices among all rows.
        count: Number of all rows.
        file: Their file, for messages.
        score_type: Type of its scores.
    """
    if values and len(index) == count:
        return calibrated_columns(calibration, values, file)
    tail = (calibration.fitted.num_classes,) if calibration.in_lists else ()
    filled = [np.full((count, *tail), np.nan, score_type) for _ in calibration.added]
    if values:
        columns = calibrated_columns(calibration, values, file)
        for array, column in zip(filled, columns, strict=True):
            array[index] = column
    return filled


def calibrated_columns(calibration: TableFit, values: Values, label: str) -> list[NDArray[Any]]:
    """Return the calibrated columns, each ``(n,)``, or ``(n, C)`` for a column of lists."""
    classes = calibration.fitted.num_classes
    scores = values["scores"]
    if classes and scores.shape[1] != classes:
        raise InputError(
            f"{calibration.scores[0]!r} must hold one score per class of the fit ({classes})",
            f"{scores.shape[1]} in {label}",
            "Pass scores of the same model.",
        )
    check_not_probabilities(calibration.columns, scores, label)
    after = _apply_to_values(calibration, values)
    if after.ndim == 1:
        return [after.numpy()]
    if len(calibration.scores) > 1:
        return list(after.T.contiguous().numpy())
    if calibration.in_lists:
        return [after.numpy()]
    # One column of numbers holds the second of two classes.
    single = after[:, 1] if calibration.columns.kind == "probs" else after[:, 1] - after[:, 0]
    return [single.numpy()]


def _apply_to_values(calibration: TableFit, values: Values) -> Tensor:
    """Return calibrated confidences ``(n,)``, or calibrated probabilities or logits ``(n, C)``."""
    import torch

    if not calibration.fitted.num_classes:  # confidences have an outcome, which nothing reads
        values = values | {"outcome": torch.zeros(len(values["scores"]), dtype=torch.bool)}
    columns = replace(calibration.columns, event=None)
    after = calibration.fitted.transform(
        predictions_from_values(
            values, columns, calibration.covariates, label_names=calibration.label_names
        )
    )
    if isinstance(after, TopLabel):
        return after.tensors().confidence
    return after.tensors().probs if calibration.columns.kind == "probs" else after.tensors().logits
