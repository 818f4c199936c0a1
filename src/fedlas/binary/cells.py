"""Cells of nearly equal probability, and a loess curve fitted to their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas.stats.cell_sums import OutcomeCells

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.binary.positive import Positive

_POINTS = 100
"""The curve is computed at so many quantiles of the probabilities, and at as many places between the outer ones."""
# Weight of a pull of slope and curvature to 0: it decides only where too few distinct probabilities determine them.
_HOLD = 1e-9
_QUANTILES = {"e50": 0.5, "e90": 0.9, "emax": 1.0}


class Loess:
    """Loess with local parabolas over cells of nearly equal probability; the curve is linear in the cells' sums."""

    def __init__(
        self, data: Positive, span: float, *, max_cells: int, places: FloatArray | None = None
    ) -> None:
        self.cell = assign_cells(data, max_cells)
        self.sums = make_outcome_cells(data, self.cell)
        self.counts = self.sums.count
        self.positives = self.sums.positives
        self.means: FloatArray = self.sums.expected / self.counts
        self.places = _evaluation_points(data, self.means) if places is None else places
        # The powers of the distances, weighted; a distance of 1 is where the weight ends.
        self._powers: FloatArray = np.empty((5, len(self.places), len(self.means)))
        nearest = max(1, int(span * data.num_samples + 1e-5))
        width = _window_widths(self.means, self.counts, self.places, nearest)[:, None]
        away = self.means - self.places[:, None]
        # If the nearest samples have one probability, the curve there is their share of positives.
        scaled = np.divide(
            away,
            width,
            out=np.where(away == 0.0, 0.0, 2.0),
            where=np.broadcast_to(width > 0, away.shape),
        )
        size = np.abs(scaled)
        rest = np.maximum(1.0 - size * size * size, 0.0)
        self._powers[0] = rest * rest * rest
        # Powers by products, since `**` takes ten times as long. Beyond the window the weight is 0.
        scaled[size >= 1.0] = 0.0
        for power in range(1, 5):
            np.multiply(self._powers[power - 1], scaled, out=self._powers[power])

    def curves(self, counts: FloatArray, positives: FloatArray) -> FloatArray:
        """Return fitted curves at the evaluation points ``(R, G)``, from cell counts and positives ``(R, M)``."""
        moments = np.moveaxis(self._powers @ counts.T, -1, 0)
        right = np.moveaxis(self._powers[:3] @ positives.T, -1, 0)
        normal = np.moveaxis(moments[:, [[0, 1, 2], [1, 2, 3], [2, 3, 4]]], -1, 1)
        total = np.maximum(moments[:, 0], 1e-300)[..., None, None]
        ridged = normal / total + np.diag([1e-12, _HOLD, _HOLD])
        sums = np.moveaxis(right, 1, -1)[..., None] / total
        return np.asarray(np.linalg.solve(ridged, sums)[..., 0, 0], dtype=np.float64)

    def distances(self, curves: FloatArray, counts: FloatArray) -> dict[str, FloatArray]:
        """Return mean, median, 90th percentile and maximum distance ``(R,)`` between curve and probability."""
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
            name: _quantile_of_cells(ranked, reached, q * (total - 1))
            for name, q in _QUANTILES.items()
        }
        return {"ici": ici} | quantiles


def make_outcome_cells(data: Positive, cell: IntArray) -> OutcomeCells:
    """Return cells with their sums and replicates, from each sample's cell index ``(N,)``."""
    return OutcomeCells(
        cell, int(cell.max()) + 1, data.probability, data.outcome, data.weights, data.clusters
    )


def assign_cells(data: Positive, max_cells: int) -> IntArray:
    """Return the cell index of each sample ``(N,)``: one cell per distinct probability, or about ``max_cells``."""
    distinct, cell, count = data.table(_distinct_probs)
    if len(distinct) <= max_cells:
        return cell
    # Half of the cells share the samples, half the probabilities: most samples may have nearly the same.
    rank = (count.cumsum() - count) / data.num_samples
    by_rank = np.floor(0.5 * max_cells * rank)
    by_value = np.floor(0.5 * max_cells * distinct)
    merged: IntArray = np.unique(by_rank + by_value, return_inverse=True)[1]
    return merged[cell]


def _distinct_probs(data: Positive) -> tuple[FloatArray, IntArray, IntArray]:
    """Return distinct probabilities, each sample's index among them, and their counts."""
    return np.unique(data.probability, return_inverse=True, return_counts=True)


def _window_widths(
    means: FloatArray, counts: FloatArray, points: FloatArray, num_nearest: int
) -> FloatArray:
    """Return window half-widths ``(G,)`` that hold the ``num_nearest`` samples around each place."""
    upto = np.concatenate([[0.0], counts.cumsum()])
    rank = np.searchsorted(means, points)
    # The last cell below the place, or the first above it, is at that distance. Bisection finds the innermost cell
    # below from which on as many samples lie as near.
    low = np.full(len(points), -1)
    high = rank.copy()
    while (high - low > 1).any():
        middle = (low + high) // 2
        reach = points - means[np.maximum(middle, 0)]
        last = np.searchsorted(means, points + reach, side="right")
        enough = (middle >= 0) & (upto[last] - upto[np.maximum(middle, 0)] >= num_nearest)
        going = high - low > 1
        low = np.where(going & enough, middle, low)
        high = np.where(going & ~enough, middle, high)
    below = np.where(low >= 0, points - means[np.maximum(low, 0)], np.inf)
    # With all cells beyond that one, so many above are needed.
    last = np.searchsorted(upto, num_nearest + upto[low + 1])
    above = np.where(last < len(upto), means[np.minimum(last, len(means)) - 1] - points, np.inf)
    width = np.minimum(below, np.maximum(above, 0.0))
    return np.where(np.isfinite(width), width, np.maximum(points - means[0], means[-1] - points))


def _evaluation_points(data: Positive, means: FloatArray) -> FloatArray:
    if len(means) <= 2 * _POINTS:
        return means
    low = float(means[0])
    high = float(means[-1])
    quantiles = np.quantile(data.probability, np.linspace(0, 1, _POINTS)).clip(low, high)
    return np.unique(np.concatenate([quantiles, np.linspace(low, high, _POINTS)]))


def _quantile_of_cells(ranked: FloatArray, reached: FloatArray, rank: FloatArray) -> FloatArray:
    """Return the value at a fractional rank, from sorted values and cumulative counts, as :func:`numpy.quantile`."""
    below = np.floor(rank)

    def select_value(whole: FloatArray) -> FloatArray:
        index = np.minimum((reached <= whole[:, None]).sum(axis=1), ranked.shape[1] - 1)
        value: FloatArray = ranked[np.arange(len(ranked)), index]
        return value

    return select_value(below) + (rank - below) * (
        select_value(np.minimum(below + 1, reached[:, -1] - 1)) - select_value(below)
    )
