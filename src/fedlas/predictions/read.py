"""Predictions from files: all that a table holds, and several files of one model in the same way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas.predictions.class_labels import OWNER, few
from fedlas.predictions.columns import Columns
from fedlas.predictions.lm_eval import is_lm_eval, read_lm_eval
from fedlas.predictions.predictions import AnyPredictions, Predictions
from fedlas.predictions.sources import Frame
from fedlas.predictions.table import Samples, TableReader
from fedlas.predictions.tables import source_of
from fedlas.predictions.top_label import TopLabel


@dataclass(frozen=True)
class Table:
    """Predictions with what else their table holds.

    Attributes:
        predictions: Scores and labels; or confidences and outcomes, if the scores of all classes are not there.
        classes: Names of the classes; empty if they have none.
        notes: How the table was read, as sentences.
        groups: Group of each sample, if a column holds groups.
        labels: Label of each sample of a top label, as text, where columns name both what is predicted and the label.
    """

    predictions: AnyPredictions
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    @property
    def has_no_labels(self) -> bool:
        """Whether only outcomes are known, so that labels cannot identify samples."""
        return isinstance(self.predictions, TopLabel) and self.labels is None


def open_table(path: str | Path, columns: Columns | None) -> TableReader:
    """Return a reader of the table in ``path``; an ``.npz`` may have arrays that need no ``columns``.

    Raises:
        InputError: As :class:`TableReader`; or if ``columns`` are missing for another file, whose columns are then
            named.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    columns = columns or Columns()
    source = source_of(path, columns.separator)
    archive = Path(path).suffix.lower() == ".npz"
    resolved = columns.or_default(source.names) if archive else columns
    if resolved is not None and resolved.kind is not None:
        return TableReader(source, resolved)
    raise InputError(
        OWNER,
        "it must be said which columns hold the scores and which the labels"
        + (", where arrays are not called 'logits' and 'target'" if archive else ""),
        f"{source.label} with {'arrays' if archive else 'columns'} {few(source.names)}",
        "Add --logits 'PREFIX*' (or a,b,c) or --probs likewise, and --target NAME; or --confidence and --correct NAME.",
    )


def read_predictions(path: Any, columns: Columns | None = None, *, labels: bool = True, **names: Any) -> Table:
    """Read all predictions of a table.

    Args:
        path: CSV, TSV, JSON lines (samples of lm-evaluation-harness too), Parquet or ``.npz``; or a data frame of
            pandas or polars.
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
    columns = Columns(**names) if names else columns
    named = columns or Columns()
    predictions: AnyPredictions
    if isinstance(path, str | Path) and (named.format == "lm-eval" or _is_log(Path(path), named)):
        predictions, groups, notes = read_lm_eval(Path(path), named.groups)
        return Table(predictions, (), tuple(notes), groups)
    if not isinstance(path, str | Path):
        reader = TableReader(Frame(path), named)
    elif columns is None and Path(path).suffix.lower() == ".npz" and _is_saved(path, labels):
        return Table(Predictions.load(path))
    else:
        reader = open_table(path, columns)
    if labels and not reader.columns.has_outcomes:
        if reader.columns.kind == "confidence":
            fix = "Add --correct NAME, or --predicted NAME and --target NAME."
            raise InputError(OWNER, "columns must say which predictions are right", "none", fix)
        raise InputError(OWNER, "--target must name the column of the labels", "none", "Add --target NAME.")
    samples = Samples.joined(reader.samples(), reader.label)
    if reader.columns.kind == "confidence":
        outcome: Any = samples.outcome
        predictions = TopLabel(samples.scores, outcome, samples.weights)
    else:
        predictions = Predictions.of_samples(samples, are_probs=reader.columns.kind == "probs")
    return Table(predictions, reader.classes, reader.notes(), samples.groups, samples.labels)


def _is_saved(path: str | Path, labels: bool) -> bool:
    """Return whether :meth:`Predictions.load` reads the file; with ``labels``, whether it holds some too."""
    return {"logits", "target"} & set(source_of(path).names) >= ({"logits", "target"} if labels else {"logits"})


def _is_log(path: Path, columns: Columns) -> bool:
    """Return whether a file is noticed as samples of lm-evaluation-harness."""
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    return lines and columns.kind is None and columns.format is None and is_lm_eval(path)


class Reader:
    """Reads several files of one model in the same way.

    Args:
        columns: Meaning of the columns in each of them.

    State:
        Names of the classes of the first table read, and notes on all.
    """

    def __init__(self, columns: Columns | None) -> None:
        self.columns = columns
        self.notes: list[str] = []
        self._first: tuple[str, tuple[str, ...]] | None = None

    def __call__(self, path: Path) -> AnyPredictions:
        """Return the predictions in a file, which may lack the column of groups.

        Raises:
            InputError: As :meth:`read`.
        """
        columns = None if self.columns is None else replace(self.columns, groups=None)
        return self._read(path, None if columns == Columns() else columns).predictions

    def read(self, path: Path) -> Table:
        """Return the content of a file.

        Raises:
            InputError: As :func:`read_predictions`; or if its classes have other names than those of the first file.
        """
        return self._read(path, self.columns)

    def _read(self, path: Path, columns: Columns | None) -> Table:
        table, path = read_predictions(path, columns), Path(path)
        name, classes = self._first = self._first or (path.name, table.classes)
        if table.classes != classes:
            got = f"{few(table.classes)} in {path.name}, {few(classes)} in {name}"
            raise InputError(OWNER, "classes must be the same, in the same order", got, "Name the columns a,b,c.")
        self.notes += [f"{path.name}: {note}" for note in table.notes]
        return table
