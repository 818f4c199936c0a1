"""From files to predictions: all that a table holds, several files of one model alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.predictions.class_labels import OWNER
from fedlas.predictions.columns import Columns
from fedlas.predictions.predictions import AnyPredictions, Predictions, check_predictions
from fedlas.predictions.table import Table
from fedlas.predictions.tables import source_of
from fedlas.predictions.top_label import TopLabel


@dataclass(frozen=True)
class Read:
    """Predictions from a table.

    Attributes:
        predictions: Logits and labels; or confidences and outcomes, if the scores of all classes are not there.
        classes: Names of the classes; none if they have none.
        notes: What was made of the table, as sentences.
        groups: Group of each sample, if a column holds groups.
        labels: Label of each sample of a top label, as text, where columns name both what is predicted and the label.
    """

    predictions: AnyPredictions
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    @property
    def has_no_labels(self) -> bool:
        """Whether only outcomes are known, so that samples cannot be told by their labels."""
        return isinstance(self.predictions, TopLabel) and self.labels is None


def open_table(path: Path, columns: Columns | None) -> Table:
    """The table in ``path``; without scores in ``columns`` only an ``.npz`` with arrays that need no naming.

    Raises:
        InputError: As :class:`Table`; or if ``columns`` are missing for another file, whose columns are then named.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    columns = columns or Columns()
    if columns.kind is not None:
        return Table(path, columns)
    names, archive = source_of(path).names, path.suffix.lower() == ".npz"
    resolved = columns.or_default(names) if archive else None
    if resolved is not None:
        return Table(path, resolved)
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    raise InputError(
        OWNER,
        "it must be said which columns hold the scores and which the labels"
        + (", where arrays are not called 'logits' and 'target'" if archive else ""),
        f"{path.name} with {'arrays' if archive else 'columns'} {shown}",
        "Add --logits 'PREFIX*' (or a,b,c) or --probs likewise, and --target NAME; or --confidence and --correct NAME.",
    )


def _is_saved(path: Path, labels: bool) -> bool:
    """Whether :meth:`Predictions.load` reads the file; with ``labels``, whether it holds some too."""
    return {"logits", "target"} & set(source_of(path).names) >= ({"logits", "target"} if labels else {"logits"})


def read_predictions(path: Path, columns: Columns | None = None, *, labels: bool = True) -> Read:
    """All predictions of a table.

    Args:
        path: CSV, TSV, JSON lines, Parquet or ``.npz``.
        columns: Which columns hold what; None for an ``.npz`` with arrays ``logits`` and ``target``, or ``confidence``
            and ``correct``.
        labels: Whether there must be labels; where they are not needed, predictions without target are as good.

    Raises:
        InputError: As :func:`open_table` and :meth:`Table.blocks`; or if there are no labels and must be, or no rows.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    if columns is None and path.suffix.lower() == ".npz" and (not path.is_file() or _is_saved(path, labels)):
        return Read(Predictions.load(path), (), ())
    table = open_table(path, columns)
    if labels and not table.columns.has_outcomes:
        if table.columns.kind == "confidence":
            fix = "Add --correct NAME, or --predicted NAME and --target NAME."
            raise InputError(OWNER, "columns must say which predictions are right", "none", fix)
        raise InputError(OWNER, "--target must name the column of the labels", "none", "Add --target NAME.")
    parts = list(table.rows())
    if not parts:
        raise InputError(OWNER, "there must be at least one row", f"none in {path.name}", "Check the file.")
    joined: dict[str, Any] = {}
    for name in ("scores", "outcome", "label_probs", "weights", "groups", "labels"):
        values = [getattr(part, name) for part in parts]
        if values[0] is not None:
            joined[name] = torch.cat(values) if isinstance(values[0], Tensor) else tuple(chain.from_iterable(values))
    predictions: AnyPredictions
    if table.columns.kind == "confidence":
        predictions = TopLabel(joined["scores"], joined["outcome"], joined.get("weights"))
    else:
        known = {name: joined.get(name) for name in ("label_probs", "weights")}
        predictions = Predictions(joined["scores"], joined.get("outcome"), **known)
    return Read(predictions, table.classes, table.notes(), joined.get("groups"), joined.get("labels"))


class Reader:
    """Reads several files of one model alike.

    Args:
        columns: Which columns hold what, in each of them.

    State:
        Names of the classes of the first table read, and notes on all.
    """

    def __init__(self, columns: Columns | None) -> None:
        self.columns = columns
        self.notes: list[str] = []
        self._first: tuple[str, tuple[str, ...]] | None = None

    def __call__(self, path: Path) -> Predictions:
        """The predictions of all classes in a file, which may lack the column of groups.

        Raises:
            InputError: As :meth:`read`; or if it holds the top label alone.
        """
        columns = None if self.columns is None else replace(self.columns, groups=None)
        return check_predictions(path.name, self._read(path, None if columns == Columns() else columns).predictions)

    def read(self, path: Path) -> Read:
        """What is in a file.

        Raises:
            InputError: As :func:`read_predictions`; or if its classes have other names than those of the first file.
        """
        return self._read(path, self.columns)

    def _read(self, path: Path, columns: Columns | None) -> Read:
        read = read_predictions(path, columns)
        name, classes = self._first = self._first or (path.name, read.classes)
        if read.classes != classes:
            differing = f"{', '.join(read.classes[:12])} in {path.name}, {', '.join(classes[:12])} in {name}"
            raise InputError(OWNER, "classes must be the same, in the same order", differing, "Name the columns a,b,c.")
        self.notes += [f"{path.name}: {note}" for note in read.notes]
        return read
