"""Replicates of samples in cells of probability: samples drawn anew, and outcomes drawn as if calibrated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fedlas.binary.positive import Floats, Integers, Positive

_ELEMENTS = 2**20
"""Elements of a block of replicates of rows."""
Random = np.random.Generator


class CellDraws:
    """Sums over cells of replicates of samples.

    Independent samples that count once are drawn cell by cell. With weights or clusters rows are drawn, whole clusters
    at a time.

    Args:
        data: The samples.
        cell: Cell of each sample ``(N,)``, from 0 on.
        replicates: ``R``.
        random: Source of random numbers.
    """

    def __init__(self, data: Positive, cell: Integers, replicates: int, random: Random) -> None:
        self._data = data
        self._replicates = replicates
        self._random = random
        self._counts = np.bincount(cell, data.counts)
        self._positives = np.bincount(cell, data.counts * data.outcome)
        self._expected = np.bincount(cell, data.counts * data.probability)
        # Rows by cell, and where each cell begins.
        self._order = np.argsort(cell, kind="stable")
        self._starts = np.searchsorted(cell[self._order], np.arange(len(self._counts)))

    def resampled(self) -> tuple[Floats, Floats]:
        """Return samples and positives of the cells ``(R, M)`` of bootstrap replicates."""
        data = self._data
        if data.is_plain:
            cells = (
                np.concatenate([self._positives, self._counts - self._positives]) / data.num_samples
            )
            drawn = self._random.multinomial(
                data.num_samples, cells / cells.sum(), size=self._replicates
            )
            yes, no = np.split(drawn.astype(np.float64), 2, axis=1)
            return yes + no, yes
        times = list(self._blocks(self._times))
        counts = np.concatenate([self._sums(each) for each in times])
        positives = np.concatenate([self._sums(each * data.outcome) for each in times])
        scale = data.num_samples / counts.sum(axis=1, keepdims=True)
        return counts * scale, positives * scale

    def redrawn(self) -> Floats:
        """Return the positives of the cells ``(R, M)`` if the probabilities are right.

        With clusters, whose outcomes may depend on each other in any way, the gaps between outcome and probability of
        a whole cluster keep or change their sign (wild bootstrap): their mean is then 0, as that of a calibrated model.
        """
        data = self._data
        size = (self._replicates, len(self._counts))
        if data.is_plain:
            share = np.clip(self._expected / self._counts, 0.0, 1.0)
            return self._random.binomial(self._counts.astype(np.int64), share, size).astype(
                np.float64
            )
        if data.clusters is None:
            return np.concatenate([self._sums(block) for block in self._blocks(self._labels)])
        gaps = data.counts * (data.outcome - data.probability)
        moved = [self._sums(signs * gaps) for signs in self._blocks(self._signs)]
        return np.concatenate(moved) + self._expected

    def _blocks(self, make: Callable[[int], Floats]) -> Iterator[Floats]:
        step = max(1, _ELEMENTS // self._data.num_samples)
        for start in range(0, self._replicates, step):
            yield make(min(step, self._replicates - start))

    def _times(self, size: int) -> Floats:
        """Return how much each row counts in replicates ``(size, N)`` that draw rows, or clusters, anew."""
        data = self._data
        units = data.num_samples if data.clusters is None else int(data.clusters.max()) + 1
        index = self._random.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        times = (
            np.bincount(index.ravel(), minlength=index.size).reshape(index.shape).astype(np.float64)
        )
        return (times if data.clusters is None else times[:, data.clusters]) * data.counts

    def _labels(self, size: int) -> Floats:
        drawn = self._random.random((size, self._data.num_samples)) < self._data.probability
        return drawn * self._data.counts

    def _signs(self, size: int) -> Floats:
        clusters = np.asarray(self._data.clusters)
        signs = self._random.integers(2, size=(size, int(clusters.max()) + 1)) * 2.0 - 1.0
        return np.asarray(signs[:, clusters])

    def _sums(self, rows: Floats) -> Floats:
        """Return the sums over the rows of each cell ``(R, M)``."""
        return np.asarray(np.add.reduceat(rows[:, self._order], self._starts, axis=1))
