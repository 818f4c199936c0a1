"""Sums of replicates over cells: how often each row, or cluster of rows, was drawn, added up cell by cell.

A replicate is a row of weights: how often it drew each row, or which sign a cluster has. Every sum that bootstrap and
noise floor need of rows is one over cells: of classes and bins of their probabilities, as in
:mod:`fedlas.stats.class_cells`, or of an event's probabilities and outcomes, as in :mod:`fedlas.binary.cells`.
"""

from __future__ import annotations

import numpy as np

from fedlas.stats.rows import Floats, Integers, starts_of_runs


def times_drawn(index: Integers) -> Floats:
    """Return how often each unit was drawn ``(R, U)``, from as many drawn units of each replicate ``(R, U)``.

    Changes ``index``. A unit is a row, or a whole cluster of rows.

    Example:
        >>> times_drawn(np.array([[0, 2, 2], [1, 1, 1]])).tolist()
        [[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]
    """
    # Each replicate counts in a range of its own, so that one bincount serves the whole block.
    index += np.arange(len(index))[:, None] * index.shape[1]
    times = np.bincount(index.ravel(), minlength=index.size)
    return times.reshape(index.shape).astype(np.float64)


class ReplicateCellSums:
    """Sums over cells of entries that belong to units.

    Attributes:
        order: Entries by their cell ``(E,)``; equal ones stay in their order.
    """

    def __init__(self, unit: Integers, cell: Integers, num_cells: int) -> None:
        """Sort entries, each of a ``unit (E,)`` and a ``cell (E,)``."""
        # Sorted by cell, the entries of each are one run, which reduceat adds for all replicates in one call.
        self.order = np.argsort(cell, kind="stable")
        cell = cell[self.order]
        self._unit = unit[self.order]
        self._num_cells = num_cells
        self._starts = starts_of_runs(cell) if len(cell) else np.zeros(0, dtype=np.int64)
        self._filled = cell[self._starts]

    def sums(self, weights: Floats, values: Floats | None = None) -> Floats:
        """Return the sums ``(R, cells)`` of the entries, each times the weight of its unit.

        Args:
            weights: Weights of the units in each replicate ``(R, U)``.
            values: Further factors ``(E,)``, in the order of :attr:`order`.
        """
        sums = np.zeros((len(weights), self._num_cells))
        if len(self._starts):
            weighted = weights.take(self._unit, axis=1)
            if values is not None:
                weighted *= values
            sums[:, self._filled] = np.add.reduceat(weighted, self._starts, axis=1)
        return sums
