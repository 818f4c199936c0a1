"""Cells of probability: loess of their outcomes, and replicates of their samples and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fedlas.binary.positive import Floats, Integers, Positive
from fedlas.stats.cell_sums import ReplicateCellSums, times_drawn

_POINTS = 100
"""The curve is computed at so many quantiles of the probabilities, and at as many places between the outer ones."""
# Weight of a pull of slope and curvature to 0: it decides only where too few distinct probabilities determine them.
_HOLD = 1e-9
_QUANTILES = {"e50": 0.5, "e90": 0.9, "emax": 1.0}


class Loess:
    """Local parabolas over cells of equal, or nearly equal, probabilities: a linear function of the cells' sums."""

    def __init__(
        self, data: Positive, span: float, *, most: int, places: Floats | None = None
    ) -> None:
        self.cell = cells_of(data, most)
        self.counts = sums_of(self.cell, data.counts)
        self.positives = sums_of(self.cell, data.counts * data.outcome)
        self.means: Floats = sums_of(self.cell, data.counts * data.probability) / self.counts
        self.places = _places(data, self.means) if places is None else places
        # The powers of the distances, weighted; a distance of 1 is where the weight ends.
        self._powers: Floats = np.empty((5, len(self.places), len(self.means)))
        nearest = max(1, int(span * data.num_samples + 1e-5))
        for row, place in enumerate(self.places):
            away = self.means - place
            size = np.abs(away)
            order = np.argsort(size, kind="stable")
            last = int(np.searchsorted(self.counts[order].cumsum(), nearest))
            width = size[order[min(last, len(order) - 1)]]
            # If the nearest samples have one probability, the curve there is their share of positives.
            scaled = away / width if width > 0 else np.where(size > 0, 2.0, 0.0)
            weight = np.clip(1.0 - np.abs(scaled) ** 3, 0.0, 1.0) ** 3
            self._powers[:, row] = (
                weight * np.where(weight > 0, scaled, 0.0) ** np.arange(5)[:, None]
            )

    def curves(self, counts: Floats, positives: Floats) -> Floats:
        """Return the curve at the places ``(R, G)``, from samples and positives of the cells ``(R, M)``."""
        moments = np.moveaxis(self._powers @ counts.T, -1, 0)
        right = np.moveaxis(self._powers[:3] @ positives.T, -1, 0)
        normal = np.moveaxis(moments[:, [[0, 1, 2], [1, 2, 3], [2, 3, 4]]], -1, 1)
        total = np.maximum(moments[:, 0], 1e-300)[..., None, None]
        ridged = normal / total + np.diag([1e-12, _HOLD, _HOLD])
        sums = np.moveaxis(right, 1, -1)[..., None] / total
        return np.asarray(np.linalg.solve(ridged, sums)[..., 0, 0], dtype=np.float64)

    def distances(self, curves: Floats, counts: Floats) -> dict[str, Floats]:
        """Return mean, median, 90th percentile and maximum ``(R,)`` of the samples' distances of ``curves (R, G)``."""
        fitted = np.stack([np.interp(self.means, self.places, curve) for curve in curves])
        away = np.abs(fitted - self.means)
        order = np.argsort(away, axis=1, kind="stable")
        reached = np.take_along_axis(np.broadcast_to(counts, away.shape), order, axis=1).cumsum(
            axis=1
        )
        ranked = np.take_along_axis(away, order, axis=1)
        total = reached[:, -1]
        ici = (away * counts).sum(axis=1) / total
        quantiles = {
            name: _quantile(ranked, reached, q * (total - 1)) for name, q in _QUANTILES.items()
        }
        return {"ici": ici} | quantiles


def sums_of(cell: Integers, values: Floats) -> Floats:
    """Return the sum of ``values (N,)`` in each cell."""
    return np.bincount(cell, values).astype(np.float64)


def cells_of(data: Positive, most: int) -> Integers:
    """Return the cell of each sample ``(N,)``: one for each distinct probability, or at most about ``most``."""
    distinct, cell, count = np.unique(data.probability, return_inverse=True, return_counts=True)
    if len(distinct) <= most:
        return cell
    # Half of the cells share the samples, half the probabilities: most samples may have nearly the same.
    rank = (count.cumsum() - count) / data.num_samples
    by_rank = np.floor(0.5 * most * rank)
    by_value = np.floor(0.5 * most * distinct)
    merged: Integers = np.unique(by_rank + by_value, return_inverse=True)[1]
    return merged[cell]


def _places(data: Positive, means: Floats) -> Floats:
    if len(means) <= 2 * _POINTS:
        return means
    low = float(means[0])
    high = float(means[-1])
    quantiles = np.quantile(data.probability, np.linspace(0, 1, _POINTS)).clip(low, high)
    return np.unique(np.concatenate([quantiles, np.linspace(low, high, _POINTS)]))


def _quantile(ranked: Floats, reached: Floats, rank: Floats) -> Floats:
    """Return the value at a fractional rank of samples counted in cells, as :func:`numpy.quantile` does."""
    below = np.floor(rank)

    def at(whole: Floats) -> Floats:
        index = np.minimum((reached <= whole[:, None]).sum(axis=1), ranked.shape[1] - 1)
        value: Floats = ranked[np.arange(len(ranked)), index]
        return value

    return at(below) + (rank - below) * (at(np.minimum(below + 1, reached[:, -1] - 1)) - at(below))


_ELEMENTS = 2**20
"""Elements of a block of replicates of rows."""
Random = np.random.Generator


class CellDraws:
    """Sums over cells of replicates of samples."""

    # Independent samples that count once are drawn cell by cell. With weights or clusters rows are drawn, whole
    # clusters at a time.

    def __init__(self, data: Positive, cell: Integers, replicates: int, random: Random) -> None:
        self._data = data
        self._replicates = replicates
        self._random = random
        self._counts = sums_of(cell, data.counts)
        self._positives = sums_of(cell, data.counts * data.outcome)
        self._expected = sums_of(cell, data.counts * data.probability)
        # Cells of rows in which the event did not occur, and did: one pass adds up samples and positives.
        if not data.is_plain:
            unit = np.arange(len(cell)) if data.clusters is None else data.clusters
            self._units = int(unit.max()) + 1
            self._cells = ReplicateCellSums(
                unit, 2 * cell + (data.outcome > 0), 2 * len(self._counts)
            )
            self._weights = None if data.weights is None else data.counts[self._cells.order]

    def resampled(self) -> tuple[Floats, Floats]:
        """Return samples and positives of the cells ``(R, M)`` of bootstrap replicates."""
        data = self._data
        if data.is_plain:
            cells = (
                np.concatenate([self._positives, self._counts - self._positives]) / data.num_samples
            )
            draws = self._random.multinomial(
                data.num_samples, cells / cells.sum(), size=self._replicates
            )
            yes, no = np.split(draws.astype(np.float64), 2, axis=1)
            return yes + no, yes
        sums = np.concatenate(
            [self._sums(block, self._weights) for block in self._blocks(self._times)]
        )
        counts = sums.sum(axis=-1)
        positives = sums[..., 1]
        scale = data.num_samples / counts.sum(axis=1, keepdims=True)
        return counts * scale, positives * scale

    def redrawn(self) -> Floats:
        """Return the positives of the cells ``(R, M)`` if the probabilities are right."""
        # With clusters, whose outcomes may depend on each other in any way, the gaps between outcome and probability of
        # a whole cluster keep or change their sign (wild bootstrap): their mean is then 0, as that of a calibrated
        # model.
        data = self._data
        size = (self._replicates, len(self._counts))
        if data.is_plain:
            share = np.clip(self._expected / self._counts, 0.0, 1.0)
            return self._random.binomial(self._counts.astype(np.int64), share, size).astype(
                np.float64
            )
        if data.clusters is None:
            values = self._weights
            blocks = self._blocks(self._labels)
        else:
            gaps = data.counts * (data.outcome - data.probability)
            values = gaps[self._cells.order]
            blocks = self._blocks(self._signs)
        moved = np.concatenate([self._sums(block, values) for block in blocks]).sum(axis=-1)
        return moved if data.clusters is None else moved + self._expected

    def _blocks(self, make: Callable[[int], Floats]) -> Iterator[Floats]:
        step = max(1, _ELEMENTS // self._data.num_samples)
        for start in range(0, self._replicates, step):
            yield make(min(step, self._replicates - start))

    def _times(self, size: int) -> Floats:
        """Return how often each row, or cluster, is drawn ``(size, U)``."""
        return times_drawn(self._random.integers(self._units, size=(size, self._units)))

    def _labels(self, size: int) -> Floats:
        """Return outcomes ``(size, N)`` that are drawn from the probabilities."""
        draws = self._random.random((size, self._data.num_samples)) < self._data.probability
        return draws.astype(np.float64)

    def _signs(self, size: int) -> Floats:
        """Return a sign for each cluster ``(size, U)``."""
        return np.asarray(self._random.integers(2, size=(size, self._units)) * 2.0 - 1.0)

    def _sums(self, weights: Floats, values: Floats | None) -> Floats:
        """Return sums over the rows of each cell in which the event did not occur, and did ``(R, M, 2)``."""
        return self._cells.sums(weights, values).reshape(len(weights), -1, 2)
