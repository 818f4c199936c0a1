"""From a table to predictions: scores checked row by row, probabilities turned into logits, labels into numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.predictions.columns import OWNER, Columns, Labels
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.sources import Block
from fedlas.predictions.tables import source_of

FLOOR = float(np.finfo(np.float32).tiny)
"""Replaces a probability of exactly 0, whose logarithm is no logit: the smallest normal float32."""
SUM_TOLERANCE = 1e-3
"""By how much the probabilities of a row may miss 1: they may be rounded to three or four digits."""
_RANGE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Read:
    """Predictions from a table.

    Attributes:
        predictions: Logits and labels.
        classes: Names of the classes; none if they have none.
        notes: What was made of the table, as sentences.
    """

    predictions: Predictions
    classes: tuple[str, ...]
    notes: tuple[str, ...]


class Table:
    """A table that is read once, a block of rows at a time.

    Args:
        path: CSV, TSV, JSON lines, Parquet or ``.npz``.
        columns: Which columns hold what.

    Raises:
        InputError: If the file cannot be read, or a column is not there.

    State:
        What :meth:`notes` says: it is filled by :meth:`blocks`.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns
        self._source = source_of(path)
        self._found = columns.find(self._source.names, where=path.name)
        self.num_rows = 0
        self._zeros = self._zero_labels = 0
        self._labels: Labels | None = None
        self._binary = False
        self._classes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, known after the first block; none if they have none."""
        return self._classes

    def blocks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Logits ``(n, C)`` and labels ``(n,)`` of some rows after another; None if no column holds labels.

        Raises:
            InputError: For the first row that cannot be used; row and column are named.
        """
        for block in self._source.blocks(self._found.scores, self.columns.target):
            scores = self._scores(block)
            if self._labels is None:
                self._set_classes(scores.shape[1], block)
            if scores.shape[1] != self._num_classes:
                got = f"{scores.shape[1]} in row {block.first_row} of {self.path.name}"
                raise InputError(OWNER, f"all rows must have {self._num_classes} classes", got, "Check the file.")
            target = None
            if block.labels is not None and self._labels is not None:
                target = torch.from_numpy(self._labels.numbers(block.labels, block.first_row))
            logits = self._logits(scores, target)
            self.num_rows += len(scores)
            yield torch.from_numpy(np.require(logits, requirements=["C", "W"])), target

    def notes(self) -> tuple[str, ...]:
        """What was made of the rows so far, as sentences."""
        lines = []
        if self.columns.target is not None and self._labels is not None:
            lines.append(self._labels.said())
        if self._binary:
            lines.append(
                f"The one column {self._found.scores[0]!r} is the {'probability' if self._is_probs else 'logit'} "
                "of the second of two classes."
            )
        if self._is_probs:
            lines.append("Probabilities became logits by their logarithm.")
        if self._zeros:
            text = f"{self._zeros:,} probabilities of exactly 0 became {FLOOR:.2g}"
            if self._zero_labels:
                text += (
                    f"; {self._zero_labels:,} of them are those of the label, where the NLL would be infinite and "
                    f"counts {-np.log(FLOOR):.1f} instead: do not compare it"
                )
            lines.append(f"{text}.")
        return tuple(lines)

    @property
    def _is_probs(self) -> bool:
        return self.columns.kind == "probs"

    def _set_classes(self, num_classes: int, block: Block) -> None:
        given, parts = self.columns.classes, () if self._binary or block.lists else self._found.parts
        if given and len(given) != num_classes:
            got = f"{len(given)} for {num_classes} classes"
            raise InputError(OWNER, "--classes must name every class, in the order of the columns", got, "Name all.")
        self._classes, self._num_classes = given or parts, num_classes
        column = self.columns.target or ""
        self._labels = Labels(num_classes, self._classes, column=column, where=self.path.name)

    def _scores(self, block: Block) -> NDArray[Any]:
        """Scores of every class ``(n, C)``, checked; the missing class of two added."""
        scores, binary = block.scores, block.scores.shape[1] == 1
        if self._labels is not None and binary is not self._binary:  # blocks after the first must be of its kind
            raise InputError(
                OWNER,
                f"every row must have as many scores as the first, {'one' if self._binary else self._num_classes}",
                f"{scores.shape[1]} in row {block.first_row} of {self.path.name}",
                "Check the file.",
            )
        self._binary = binary
        wrong = ~np.isfinite(scores)
        if wrong.any():
            raise self._cell(block, wrong, "scores must be finite numbers", "Fill it in, or remove the row.")
        if self._is_probs:
            outside = (scores < -_RANGE_TOLERANCE) | (scores > 1 + _RANGE_TOLERANCE)
            if outside.any():
                fix = "Name them with --logits if they are logits; divide percent by 100."
                raise self._cell(block, outside, "probabilities must be in [0, 1]", fix)
            scores = scores.clip(0.0, 1.0)
            if binary:
                return np.concatenate([1.0 - scores, scores], axis=1)
            sums = scores.sum(axis=1, dtype=np.float64)
            far = np.abs(sums - 1.0) > SUM_TOLERANCE
            if far.any():
                place = int(np.flatnonzero(far)[0])
                raise InputError(
                    OWNER,
                    "the probabilities of a row must sum to 1",
                    f"{sums[place]:.6g} in row {block.first_row + place} of {self.path.name} "
                    f"({int(far.sum())} such rows among {len(far)})",
                    "Name the columns of all classes, and no other; for independent classes there is no softmax.",
                )
            return scores
        return np.concatenate([np.zeros_like(scores), scores], axis=1) if binary else scores

    def _logits(self, scores: NDArray[Any], target: Tensor | None) -> NDArray[Any]:
        if not self._is_probs:
            return scores
        zero = scores <= 0
        self._zeros += int(zero.sum())
        if target is not None:
            self._zero_labels += int(zero[np.arange(len(zero)), target.numpy()].sum())
        logits: NDArray[Any] = np.log(np.maximum(scores, FLOOR))
        return logits

    def _cell(self, block: Block, wrong: NDArray[np.bool_], expected: str, fix: str) -> InputError:
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        names = self._found.scores
        name = f"{names[column]!r}" if len(names) == wrong.shape[1] else f"{names[0]!r}, number {column}"
        value = block.scores[row, column]
        shown = "no number" if np.isnan(value) else f"{value:.6g}"
        where = f"{shown} in row {block.first_row + row}, column {name} of {self.path.name}"
        return InputError(OWNER, expected, where, fix)


def open_table(path: Path, columns: Columns | None) -> Table:
    """The table in ``path``; without ``columns`` only an ``.npz`` with ``logits`` and perhaps ``target``.

    Raises:
        InputError: As :class:`Table`; or if ``columns`` are missing for another file, whose columns are then named.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    if columns is not None:
        return Table(path, columns)
    names = source_of(path).names
    if path.suffix.lower() == ".npz" and "logits" in names:
        return Table(path, Columns(logits="logits", target="target" if "target" in names else None))
    archive = path.suffix.lower() == ".npz"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    raise InputError(
        OWNER,
        "it must be said which columns hold the scores and which the labels"
        + (", where arrays are not called 'logits' and 'target'" if archive else ""),
        f"{path.name} with {'arrays' if archive else 'columns'} {shown}",
        "Add --logits 'PREFIX*' (or a,b,c) or --probs likewise, and --target NAME.",
    )


def _is_saved(path: Path, labels: bool) -> bool:
    """Whether :meth:`Predictions.load` reads the file; with ``labels``, whether it holds some too."""
    return {"logits", "target"} & set(source_of(path).names) >= ({"logits", "target"} if labels else {"logits"})


def read_predictions(path: Path, columns: Columns | None = None, *, labels: bool = True) -> Read:
    """All predictions of a table.

    Args:
        path: CSV, TSV, JSON lines, Parquet or ``.npz``.
        columns: Which columns hold what; None for an ``.npz`` with arrays ``logits`` and ``target``.
        labels: Whether there must be labels; where they are not needed, predictions without target are as good.

    Raises:
        InputError: As :func:`open_table` and :meth:`Table.blocks`; or if there are no labels and must be, or no rows.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    if columns is None and path.suffix.lower() == ".npz" and (not path.is_file() or _is_saved(path, labels)):
        return Read(Predictions.load(path), (), ())
    table = open_table(path, columns)
    if labels and table.columns.target is None:
        fix = "Add --target NAME."
        raise InputError(OWNER, "--target must name the column of the labels", "none", fix)
    blocks = list(table.blocks())
    if not blocks:
        raise InputError(OWNER, "there must be at least one row", f"none in {path.name}", "Check the file.")
    target = [block for _, block in blocks if block is not None]
    predictions = Predictions(torch.cat([logits for logits, _ in blocks]), torch.cat(target) if target else None)
    return Read(predictions, table.classes, table.notes())


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
        """The predictions in a file.

        Raises:
            InputError: As :func:`read_predictions`; or if its classes have other names than those of the first file.
        """
        read = read_predictions(path, self.columns)
        name, classes = self._first = self._first or (path.name, read.classes)
        if read.classes != classes:
            differing = f"{', '.join(read.classes[:12])} in {path.name}, {', '.join(classes[:12])} in {name}"
            raise InputError(OWNER, "classes must be the same, in the same order", differing, "Name the columns a,b,c.")
        self.notes += [f"{path.name}: {note}" for note in read.notes]
        return read.predictions
