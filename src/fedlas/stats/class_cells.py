"""Sums over every class and bin of its probability, for many replicates at a time."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas.stats.rows import CACHED, Floats, Integers, Rows, starts_of_runs

FIXED_POINT = 2.0**30
"""Probabilities are rounded to multiples of its inverse, 1e-9, so that float64 sums of fewer than 2**23 of them are
exact, and do not depend on the order in which a matrix product of so many threads happens to add. With weights of
samples they round, and depend on it in the last digits."""


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
        step = max(1, CACHED // rows.num_classes)
        self._parts = [slice(start, start + step) for start in range(0, rows.num_samples, step)]

    def probs(self, weights: Floats) -> Floats:
        """Sum of the class's probability ``(R, cells)``, row ``i`` counted ``weights[:, i]`` times."""
        beyond = self._beyond
        return self._with_first(beyond.sums(weights, beyond.value), self._class_sums(weights))

    def counts(self, weights: Floats) -> Floats:
        """Number of rows ``(R, cells)``; those of each class add up to ``N``."""
        return self._with_first(self._beyond.sums(weights), weights.sum(axis=1, keepdims=True))

    def labels(self, weights: Floats) -> Floats:
        """Number of rows of which the class is the label ``(R, cells)``."""
        return self._own_labels.sums(weights)

    def drawn_labels(self, place: Integers, row: Integers, label: Integers, replicates: int) -> Floats:
        """The same for drawn labels, every row counted once, times its weight.

        Args:
            place: Where another class than the predicted one was drawn, as :meth:`Rows.draw_others` has it.
            row: Row of each.
            label: Class of each.
            replicates: ``R``.
        """
        # All rows start with the predicted class as label; then each exception moves one label to another cell.
        predicted = self._rows.predicted
        cells = self._cell_of(np.arange(len(predicted)), predicted)
        start, size = place // len(predicted) * self._num_cells, replicates * self._num_cells
        weights = self._rows.weights
        moved = None if weights is None else weights[row]
        counts = np.bincount(start + self._cell_of(row, label), moved, minlength=size)
        counts -= np.bincount(start + cells[row], moved, minlength=size)
        counts = counts.reshape(replicates, -1) + np.bincount(cells, weights, minlength=self._num_cells)
        return counts.astype(np.float64)

    def _with_first(self, sums: Floats, totals: Floats) -> Floats:
        """``sums (R, cells)`` with what they leave of ``totals (R, C or 1)`` in the first bin of every class."""
        by_class = sums.reshape(len(sums), self._rows.num_classes, self._num_bins)
        # Both sides are exact multiples of 1 / FIXED_POINT, so an empty first bin gets 0 and no rounding error.
        by_class[:, :, 0] = totals - by_class.sum(axis=2)
        return sums

    def _cell_of(self, row: Integers, label: Integers) -> Integers:
        """Cell of each row's probability of ``label``."""
        return label * self._num_bins + self._rows.bins_of(self._rows.probs[row, label])

    def _class_sums(self, weights: Floats) -> Floats:
        sums = np.zeros((len(weights), self._rows.num_classes))
        for part in self._parts:
            sums += weights[:, part] @ self._fixed(part)
        return sums / FIXED_POINT

    def _fixed(self, part: slice) -> Floats:
        """Probabilities of some rows as multiples of ``1 / FIXED_POINT``; few are remembered."""
        if len(self._parts) == 1:
            return self._fixed_of_all
        return _fixed_point(self._rows.probs[part])

    @cached_property
    def _fixed_of_all(self) -> Floats:
        return _fixed_point(self._rows.probs)

    @cached_property
    def _beyond(self) -> _Entries:
        """The probabilities that are not in the first bin."""
        probs = self._rows.probs.ravel()
        place = np.flatnonzero(probs >= 0.99 / self._num_bins)  # all that are beyond, and few others
        place = place[self._rows.bins_of(probs[place]) > 0]
        index, label = np.divmod(place, self._rows.num_classes)
        return _Entries(index, self._cell_of(index, label), _fixed_point(probs[place]) / FIXED_POINT, self._num_cells)

    @cached_property
    def _own_labels(self) -> _Entries:
        index = np.arange(self._rows.num_samples)
        return _Entries(index, self._cell_of(index, self._rows.target), None, self._num_cells)


def _fixed_point(probs: NDArray[Any]) -> Floats:
    fixed = probs * np.float64(FIXED_POINT)
    return np.rint(fixed, out=fixed)


class _Entries:
    """What rows add to cells: ``value`` of row ``index`` to ``cell``, all ``(E,)``."""

    def __init__(self, index: Integers, cell: Integers, value: Floats | None, num_cells: int) -> None:
        # Sorted by cell, the entries of each are one run, which reduceat adds for all replicates in one call.
        order = np.argsort(cell, kind="stable")
        cell = cell[order]
        self.value = None if value is None else value[order]
        self._index, self._num_cells = index[order], num_cells
        self._starts = starts_of_runs(cell) if len(cell) else np.zeros(0, dtype=np.int64)
        self._filled = cell[self._starts]

    def sums(self, weights: Floats, value: Floats | None = None) -> Floats:
        """Sums ``(R, cells)`` of the entries, those of row ``i`` times ``weights[:, i]``, and ``value`` if given."""
        sums = np.zeros((len(weights), self._num_cells))
        if len(self._starts):
            weighted = weights.take(self._index, axis=1)
            if value is not None:
                weighted *= value
            sums[:, self._filled] = np.add.reduceat(weighted, self._starts, axis=1)
        return sums
