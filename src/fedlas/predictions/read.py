"""Predictions from files: all that a table holds, and several files of one model in the same way."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.arrays import open_arrays
from fedlas._core.check import Argument, InputError, check_kinds, describe
from fedlas.predictions.arguments import SAMPLE_VALUES
from fedlas.predictions.cells import few
from fedlas.predictions.columns import listed
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.event import about_event
from fedlas.predictions.lm_eval import SampleLog, is_lm_eval
from fedlas.predictions.predictions import AnyPredictions, Predictions, PredictionTable
from fedlas.predictions.probabilities import are_probabilities
from fedlas.predictions.roles import LABELS, SCORES, Columns, columns_named
from fedlas.predictions.table import Samples, TableReader
from fedlas.predictions.tables import source_of
from fedlas.predictions.tables.files import TableFile, address_of, files_of, local_files
from fedlas.predictions.tables.frame import Frame
from fedlas.predictions.tables.npz import Archive
from fedlas.predictions.tables.packed import suffix_of
from fedlas.predictions.tables.table import Joined, Table
from fedlas.predictions.top_label import TopLabel

_FIXED = (*SCORES, *LABELS, "label_probs")
"""Options that logs of lm-evaluation-harness do not take."""
_ROW_VALUES = ("features", "clusters")
"""Arrays of an ``.npz`` that only whole files have, not tables of columns."""


def open_table(
    path: Any, columns: Columns | None, covariates: Covariates | None = None
) -> TableReader:
    """Return a reader of the table in ``path``, or of a frame; an ``.npz`` may have arrays that need no ``columns``.

    Args:
        path: The file, or a frame.
        columns: Meaning of its columns.
        covariates: What another table of the same model showed of the columns of covariates.

    Raises:
        InputError: As :class:`TableReader`; or if ``columns`` are missing for another file, whose columns are then
            named.
        MissingExtraError: For all but ``.npz`` and frames without pyarrow.
    """
    columns = _checked(columns)
    source, columns = open_source(path, columns)
    return TableReader(source, with_scores(columns, source), copy.deepcopy(covariates))


def with_scores(columns: Columns, source: Table) -> Columns:
    """Return columns that say what the scores of a table are; those of an ``.npz`` or a log may need no naming.

    Raises:
        InputError: If they do not say it; the columns of the table are named.
    """
    is_archive = isinstance(source, Archive)
    columns = (
        columns.or_default(source.names) if isinstance(source, Archive | SampleLog) else columns
    )
    if columns.kind is not None:
        return columns
    hint = ", where arrays are not called 'logits' and 'target'" if is_archive else ""
    raise InputError(
        f"options must say which columns hold the scores and which the labels{hint}",
        f"{source.label} with columns {few(source.names)}",
        (
            "Pass ",
            Argument("logits", "PREFIX*"),
            " (or a,b,c) or ",
            Argument("probs"),
            " likewise, and ",
            Argument("target", "NAME"),
            "; or ",
            Argument("confidence", "NAME"),
            " and ",
            Argument("correct", "NAME"),
            ".",
        ),
    )


def open_source(path: Any, columns: Columns) -> tuple[Table, Columns]:
    """Return the table in a frame, or in files, and its columns.

    Several files are one table; logs of lm-evaluation-harness are grouped by their tasks.

    Raises:
        InputError: If a file does not exist or cannot be read, or the files are not alike.
    """
    names = path if isinstance(path, list | tuple) else [path]
    if not names or not all(isinstance(name, str | Path | TableFile) for name in names):
        return Frame(path), columns
    files = files_of(names)
    if all(is_log(file.path, columns) for file in files):
        if len(files) > 1 and columns.groups is None:
            columns = replace(columns, groups="task")
        return SampleLog([file.path for file in files], columns), columns
    tables = [source_of(file, columns.separator) for file in files]
    return tables[0] if len(tables) == 1 else Joined(tables), columns


@check_kinds
def read_predictions(
    path: Any, columns: Columns | None = None, *, labels: bool = True, **names: Any
) -> PredictionTable:
    """Read all predictions of a table.

    Args:
        path: CSV, TSV, JSON lines (samples of lm-evaluation-harness too), Parquet or ``.npz``, on this machine or at an
            address that fsspec reads, as ``s3://bucket/a.csv``; or a data frame of pandas or polars. Several logs of
            lm-evaluation-harness as a list, or a pattern such as ``samples_*.jsonl``, are one table, with the task as
            group.
        columns: Meaning of the columns; None for an ``.npz`` with arrays ``logits`` and ``target``, or ``confidence``
            and ``correct``.
        labels: Whether there must be labels; where they are not needed, predictions without target are as good.
        **names: Fields of :class:`Columns`, in place of ``columns``.

    Raises:
        InputError: As :func:`open_table` and :meth:`TableReader.samples`; or if there are no rows, or no labels where
            there must be some.
        MissingExtraError: For all but ``.npz`` without pyarrow.

    Example:
        >>> table = read_predictions({"a": [0.9, 0.2], "b": [0.1, 0.8], "y": ["a", "b"]}, probs="a,b", target="y")
        >>> table.predictions, table.classes
        (Predictions(2 samples, 2 classes, with target), ('a', 'b'))
    """
    return _read(path, columns_named(names) if names else columns, labels=labels)


def _saved(path: Any, columns: Columns | None, *, labels: bool) -> PredictionTable | None:
    """Return predictions that :meth:`Predictions.save` wrote, about the event that columns name; None for others."""
    event = None if columns is None else columns.event
    named = columns is not None and replace(columns, event=None) != Columns()
    if named or not _is_saved(path, {"logits", "target"} if labels else {"logits"}):
        return None
    predictions = about_event(Predictions.load(path), event)
    return PredictionTable(predictions, predictions.classes or ())


def _read(
    path: Any, columns: Columns | None, *, labels: bool = True, covariates: Covariates | None = None
) -> PredictionTable:
    names = path if isinstance(path, list | tuple) else [path]
    if any(map(address_of, names)):
        with local_files(names) as files:
            copies = [file if file.partition else file.path for file in files]
            return _read(copies, columns, labels=labels, covariates=covariates)
    path = path[0] if isinstance(path, list | tuple) and len(path) == 1 else path
    suffix = Path(path).suffix.lower() if isinstance(path, str | Path) else ""
    if suffix == ".npz" and (saved := _saved(path, columns, labels=labels)) is not None:
        return saved
    top_label = {"confidence", "correct"}
    if (
        suffix == ".npz"
        and columns is None
        and any(_is_saved(path, {*top_label, more}) for more in _ROW_VALUES)
    ):
        return PredictionTable(TopLabel.load(path))
    reader = open_table(path, columns, covariates)
    of_top_label = reader.columns.kind == "confidence"
    if labels and not reader.columns.has_outcomes:
        by_label = Argument("target", "NAME")
        raise InputError(
            "must say which predictions are right" if of_top_label else "must name the labels",
            "none",
            (
                "Pass ",
                Argument("correct", "NAME"),
                ", or ",
                Argument("predicted", "NAME"),
                " and ",
                by_label,
                ".",
            )
            if of_top_label
            else ("Pass ", by_label, "."),
            argument="correct" if of_top_label else "target",
        )
    samples = Samples.joined(reader.samples(), reader.label)
    return PredictionTable(
        predictions_of(samples, reader.columns, reader.covariates, reader.classes),
        reader.classes,
        reader.notes(),
        samples.groups,
        samples.labels,
        covariates=reader.covariates,
        unread=len(reader.answers.rows) if reader.answers else 0,
        refusals=reader.answers.counts["refusals"] if reader.answers else 0,
        dropped=reader.dropped,
    )


def predictions_of(
    samples: Samples,
    columns: Columns,
    covariates: Covariates | None = None,
    classes: Sequence[str] = (),
) -> AnyPredictions:
    """Return the predictions of some rows of a table, with all that is said of them."""
    if columns.kind == "confidence":
        outcome: Any = samples.outcome
        values = {name: getattr(samples, name) for name in SAMPLE_VALUES}
        return TopLabel(samples.scores, outcome, covariates=covariates, **values)
    return Predictions.of_samples(
        samples,
        are_probs=columns.kind == "probs",
        classes=classes,
        event=columns.event,
        covariates=covariates,
    )


def check_logits(columns: Columns, samples: Samples, label: str) -> None:
    """Refuse probabilities that are named as logits."""
    if columns.kind == "logits" and are_probabilities(samples.scores):
        raise InputError(
            "columns of logits must hold logits",
            f"probabilities in {label}",
            ["write logits, as fit and apply read one kind", ("name them by ", Argument("probs"))],
        )


def is_log(path: Path, columns: Columns) -> bool:
    """Return whether a file holds samples of lm-evaluation-harness.

    Raises:
        InputError: If it is said to, and columns of scores or labels are named too.
    """
    named = [option for option in _FIXED if getattr(columns, option)]
    if columns.format == "lm-eval" and named:
        raise InputError(
            "samples of lm-evaluation-harness have fixed columns",
            tuple(listed(named, ", ")),
            ("Leave these options out, or pass ", Argument("format", "table"), "."),
        )
    is_json = suffix_of(path) in (".jsonl", ".ndjson")
    return columns.format == "lm-eval" or (
        not named and columns.format is None and is_json and is_lm_eval(path)
    )


def _checked(columns: Columns | None) -> Columns:
    if isinstance(columns, Columns | None):
        return columns or Columns()
    raise InputError(
        "columns must be Columns", describe(columns), "Pass Columns(probs='p_*', target='label')."
    )


def _is_saved(path: str | Path, names: set[str]) -> bool:
    """Return whether a file is an archive with these arrays."""
    with suppress(OSError, ValueError), open_arrays(Path(path)) as archive:
        return names <= {*archive.names}
    return False


class Reader:
    """Reads several files of one model in the same way.

    Args:
        columns: Meaning of the columns in each of them.

    State:
        Names of the classes of the first table read, and notes on all.
    """

    def __init__(self, columns: Columns | None) -> None:
        self.columns = None if columns is None else _checked(columns)
        self.notes: list[str] = []
        self._first: tuple[str, tuple[str, ...]] | None = None
        self._covariates: Covariates | None = None

    def __call__(self, path: Any) -> AnyPredictions:
        """Return the predictions in a file, which may lack the column of groups.

        Raises:
            InputError: As :meth:`read`.
        """
        columns = None if self.columns is None else replace(self.columns, groups=None)
        return self._read(path, None if columns == Columns() else columns).predictions

    def read(self, path: Any) -> PredictionTable:
        """Return the content of a file, or of several logs.

        Raises:
            InputError: As :func:`read_predictions`; or if its classes have other names than those of the first file.
        """
        return self._read(path, self.columns)

    def _read(self, path: Any, columns: Columns | None) -> PredictionTable:
        table = _read(path, columns, covariates=self._covariates)
        path = Path(path[0] if isinstance(path, list | tuple) else path)
        self._covariates = self._covariates or table.covariates
        name, classes = self._first = self._first or (path.name, table.classes)
        if table.classes != classes:
            raise InputError(
                "classes must be the same, in the same order",
                f"{few(table.classes)} in {path.name}, {few(classes)} in {name}",
                "Name the columns a,b,c.",
            )
        # A second file that is read in the same way needs no second note.
        repeated = {note.partition(": ")[2] for note in self.notes}
        self.notes += [f"{path.name}: {note}" for note in table.notes if note not in repeated]
        return table
