"""Loess of outcomes on probabilities, for many replicates of the outcomes at a time."""

from __future__ import annotations

import numpy as np

from fedlas.binary.positive import Floats, Integers, Positive

_POINTS = 100
"""The curve is computed at so many quantiles of the probabilities, and at as many places between the outer ones."""
# Weight of a pull of slope and curvature to 0: it decides only where too few distinct probabilities determine them.
_HOLD = 1e-9
_QUANTILES = {"e50": 0.5, "e90": 0.9, "emax": 1.0}


class Loess:
    """Local parabolas over cells of equal, or nearly equal, probabilities: a linear function of the cells' sums.

    Args:
        data: The samples.
        span: Share of the samples that each parabola sees.
        most: Largest number of cells; neighboring probabilities are put together if there are more distinct ones.
        places: Where the parabolas are fitted; None chooses.

    Attributes:
        cell: Cell of each sample ``(N,)``.
        means: Mean probability of each cell ``(M,)``, ascending.
        counts: Samples of each ``(M,)``, by their weights.
        positives: Positives of each ``(M,)``.
        places: Where the parabolas are fitted ``(G,)``, ascending.
    """

    def __init__(
        self, data: Positive, span: float, *, most: int, places: Floats | None = None
    ) -> None:
        self.cell = cells_of(data, most)
        self.counts = np.bincount(self.cell, data.counts)
        self.positives = np.bincount(self.cell, data.counts * data.outcome)
        self.means: Floats = np.bincount(self.cell, data.counts * data.probability) / self.counts
        self.places = _places(data, self.means) if places is None else places
        # The powers of the distances, weighted; a distance of 1 is where the weight ends.
        self._powers: Floats = np.empty((5, len(self.places), len(self.means)))
        nearest = max(1, int(span * data.num_samples + 1e-5))
        for row, place in enumerate(self.places):
            away = self.means - place
            size = np.abs(away)
            order = np.argsort(size, kind="stable")
            last = np.searchsorted(self.counts[order].cumsum(), nearest)
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
