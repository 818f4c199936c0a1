"""Sums over every class and bin of its probability, for many replicates at a time."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedlas.stats.rows import Floats, Integers, Rows, starts_of_runs

FIXED_POINT = 2.0**30
"""Probabilities are rounded to multiples of its inverse, 1e-9, so that float64 sums of fewer than 2**23 of them are
exact, and do not depend on the order in which a matrix product of so many threads happens to add."""
_ROWS = 2**12


class _Entries:
    """What rows add to cells: ``value`` of row ``index`` to ``cell``, all ``(E,)``."""

    def __init__(self, index: Integers, cell: Integers, value: Floats) -> None:
        order = np.argsort(cell, kind="stable")
        cell = cell[order]
        self._starts = starts_of_runs(cell) if len(cell) else np.zeros(0, dtype=np.int64)
        self._index, self._value, self._filled = index[order], value[order], cell[self._starts]

    def add_to(self, sums: Floats, weights: Floats) -> None:
        """Add the entries to ``sums (R, cells)``, those of row ``i`` with ``weights[:, i]``."""
        if len(self._starts):
            weighted = weights[:, self._index] * self._value
            sums[:, self._filled] += np.add.reduceat(weighted, self._starts, axis=1)


class ClassCells:
    """Sums by cell. A cell is a class and a bin of its probability, ``class * num_bins + bin``.

    A row of probabilities adds up to 1, so fewer than ``num_bins`` of its entries are beyond the first bin. Only those
    are put into cells one by one; the first bin is what they leave of the class.

    Args:
        rows: The rows and the number of bins.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._num_bins = rows.num_bins
        self._num_cells = rows.num_classes * rows.num_bins
        self._fixed: NDArray[np.int32] = np.rint(rows.probs * np.float64(FIXED_POINT)).astype(np.int32)

    def probs(self, weights: Floats) -> Floats:
        """Sum of the class's probability ``(R, cells)``, row ``i`` counted ``weights[:, i]`` times."""
        sums = np.zeros((len(weights), self._num_cells))
        sums[:, :: self._num_bins] = self._class_sums(weights)
        self._moves.add_to(sums, weights)
        return sums

    def counts(self, weights: Floats) -> Floats:
        """Number of rows ``(R, cells)``; those of each class add up to ``N``."""
        sums = np.zeros((len(weights), self._num_cells))
        self._places.add_to(sums, weights)
        by_class = sums.reshape(len(weights), self._rows.num_classes, self._num_bins)
        by_class[:, :, 0] = weights.sum(axis=1, keepdims=True) - by_class.sum(axis=2)
        return sums

    def labels(self, weights: Floats) -> Floats:
        """Number of rows of which the class is the label ``(R, cells)``."""
        sums = np.zeros((len(weights), self._num_cells))
        self._own_labels.add_to(sums, weights)
        return sums

    def drawn_labels(self, labels: Integers) -> Floats:
        """The same for drawn ``labels (R, N)``, every row counted once."""
        cell = self._label_cells(labels) + np.arange(len(labels))[:, None] * self._num_cells
        counts = np.bincount(cell.ravel(), minlength=len(labels) * self._num_cells)
        return counts.reshape(len(labels), self._num_cells).astype(np.float64)

    def _label_cells(self, labels: Integers) -> Integers:
        probs = self._rows.probs[np.arange(self._rows.num_samples), labels]
        return labels * self._num_bins + self._rows.bins_of(probs)

    def _class_sums(self, weights: Floats) -> Floats:
        sums = np.zeros((len(weights), self._rows.num_classes))
        for start in range(0, self._rows.num_samples, _ROWS):
            part = slice(start, start + _ROWS)
            sums += weights[:, part] @ self._fixed[part].astype(np.float64)
        return sums / FIXED_POINT

    @cached_property
    def _beyond(self) -> tuple[Integers, Integers]:
        """Row and class of the probabilities that are not in the first bin."""
        index, classes = np.nonzero(self._rows.bins_of(self._rows.probs))
        return index, classes

    @cached_property
    def _places(self) -> _Entries:
        """1 in the cell of each of them."""
        index, _ = self._beyond
        return _Entries(index, self._cells_beyond, np.ones(len(index)))

    @cached_property
    def _moves(self) -> _Entries:
        """What brings them from the first bin, where all of the class has been counted, into their own."""
        index, classes = self._beyond
        value = self._fixed[index, classes] / FIXED_POINT
        cell = np.concatenate((self._cells_beyond, classes * self._num_bins))
        return _Entries(np.concatenate((index, index)), cell, np.concatenate((value, -value)))

    @cached_property
    def _cells_beyond(self) -> Integers:
        index, classes = self._beyond
        return classes * self._num_bins + self._rows.bins_of(self._rows.probs[index, classes])

    @cached_property
    def _own_labels(self) -> _Entries:
        cell = self._label_cells(self._rows.target[None])[0]
        return _Entries(np.arange(len(cell)), cell, np.ones(len(cell)))
