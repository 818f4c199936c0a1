"""ICI, E50 and E90: how far probabilities are from a smooth curve of the frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedlas._core.check import InputError, check_count, check_number
from fedlas.binary.positive import Floats, Positive, positive_class
from fedlas.predictions import Predictions
from fedlas.stats.bootstrap import error_interval
from fedlas.stats.estimates import Estimate
from fedlas.stats.intervals import check_level, fewest_replicates
from fedlas.stats.noise_floor import least_p, share_at_least

_MOST_CELLS = 8192
"""Neighboring probabilities are put together if there are more distinct ones."""
_POINTS = 100
"""The curve is computed at so many quantiles of the probabilities, and at as many places between the outer ones."""
# Weight of a pull of slope and curvature to 0: it decides only where too few distinct probabilities determine them.
_HOLD = 1e-9
_QUANTILES = {"e50": 0.5, "e90": 0.9}


@dataclass(frozen=True, eq=False)
class IntegratedCalibration:
    """Distances of probabilities from the smoothed frequencies, and the curve itself; float64 arrays ``(G,)``.

    Attributes:
        ici: Mean distance: the integrated calibration index.
        e50: Median distance.
        e90: Ninetieth percentile of the distances.
        probability: Where the curve is given, ascending.
        frequency: The curve: the frequency of the positive class at that probability. It can leave ``[0, 1]`` a little.
        low: Lower end of its pointwise bootstrap interval; NaN without replicates.
        high: Upper end.
    """

    ici: Estimate
    e50: Estimate
    e90: Estimate
    probability: Floats
    frequency: Floats
    low: Floats
    high: Floats


def integrated_calibration(
    predictions: Predictions,
    *,
    positive: int | None = None,
    span: float = 0.75,
    confidence_level: float = 0.95,
    replicates: int = 199,
    seed: int = 0,
) -> IntegratedCalibration:
    """Compute ICI, E50 and E90 with intervals, noise floors and tests, and the curve that they are read from.

    The curve is a loess of the outcomes on the probabilities: at each place a parabola is fitted to the nearest
    ``span`` of the samples, with tricube weights. Unlike bins it has no edges, and unlike the calibration slope it can
    bend.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 10 samples.
        positive: The class to set against the rest; None: class 1 of two.
        span: Share of the samples that each parabola sees, in ``(0, 1]``; the paper's is 0.75.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: Of the bootstrap and of the noise floor, at least 39 for level 0.95; 0 computes neither, and the
            ends of the intervals are NaN.
        seed: The same seed draws the same samples and labels.

    Returns:
        Distances as fractions, each with the floor that a calibrated model with these probabilities would have.

    Raises:
        InputError: For fewer than 10 samples or options out of range, or as all functions here, for predictions of
            other than two classes without ``positive``.

    Note:
        Assumes that the frequency is a smooth function of the probability; a step within the span is smoothed over.

        These numbers are above 0 by chance, as ECE is: compare them with their floors. Floor and test redraw every
        label from its probability. The bootstrap keeps the windows of the parabolas.

        The smoother is our own: statsmodels has lines instead of parabolas, and no other package here has either. The
        fitted curve is not clipped to ``[0, 1]``, as in the paper. More than 8,192 distinct probabilities are put
        together with their neighbors, and between 200 places the curve is a line.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(3000, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> two = torch.stack([torch.zeros(3000), logits], dim=1)
        >>> calibrated = integrated_calibration(Predictions(two, happened)).ici
        >>> too_extreme = integrated_calibration(Predictions(3 * two, happened)).ici
        >>> calibrated.p > 0.05, too_extreme.p < 0.01, round(too_extreme.value, 2)
        (True, True, 0.1...)

    Source:
        Austin and Steyerberg, "The Integrated Calibration Index (ICI) and related metrics for quantifying the
        calibration of logistic regression models", Statistics in Medicine 38 (2019); Cleveland, Devlin, Grosse,
        "Regression by local fitting", Journal of Econometrics 37 (1988), for loess.
    """
    owner = "integrated_calibration"
    check_number(owner, "span", span, low=0.0, high=1.0, low_open=True)
    check_level(owner, confidence_level)
    check_count(owner, "seed", seed, low=0)
    if check_count(owner, "replicates", replicates, low=0) and replicates < fewest_replicates(confidence_level):
        least = fewest_replicates(confidence_level)
        raise InputError(owner, f"replicates must be 0 or at least {least}", replicates, "Ask for more, such as 199.")
    data = positive_class(owner, predictions, positive)
    if data.num_samples < 10:
        raise InputError(owner, "a curve needs at least 10 samples", data.num_samples, "Use a larger test set.")
    smoother = _Loess(data, span)
    counts, positives = smoother.counts[None], smoother.positives[None]
    curve = smoother.curves(counts, positives)
    values = {name: float(value[0]) for name, value in smoother.distances(curve, counts).items()}
    if not replicates:
        unknown = np.full(curve.shape[1], np.nan)
        ici, e50, e90 = (Estimate(value, math.nan, math.nan) for value in values.values())
        return IntegratedCalibration(ici, e50, e90, smoother.places, curve[0], unknown, unknown)

    # Replicates: samples drawn with replacement, a sample being its cell and its outcome; and labels drawn anew.
    random = np.random.default_rng(seed)
    cells = np.concatenate([smoother.positives, smoother.counts - smoother.positives]) / data.num_samples
    counts_drawn = random.multinomial(data.num_samples, cells / cells.sum(), size=replicates).astype(np.float64)
    yes, no = np.split(counts_drawn, 2, axis=1)
    curves = smoother.curves(yes + no, yes)
    samples = smoother.distances(curves, yes + no)
    labels = random.binomial(smoother.counts.astype(np.int64), smoother.means, (replicates, len(smoother.means)))
    floors = smoother.distances(smoother.curves(counts, labels.astype(np.float64)), counts)

    def estimate(name: str) -> Estimate:
        ends = error_interval(values[name], samples[name], floors[name], confidence_level=confidence_level)
        p, least = share_at_least(floors[name], values[name]), least_p(replicates, "worse")
        return Estimate(values[name], ends.low, ends.high, float(floors[name].mean()), p, least, replicates)

    low, high = np.quantile(curves, (0.5 - confidence_level / 2, 0.5 + confidence_level / 2), axis=0)
    ici, e50, e90 = map(estimate, values)
    return IntegratedCalibration(ici, e50, e90, smoother.places, curve[0], low, high)


class _Loess:
    """Local parabolas over cells of equal, or nearly equal, probabilities: a linear function of the cells' sums.

    Attributes:
        means: Mean probability of each cell ``(M,)``, ascending.
        counts: Samples of each ``(M,)``.
        positives: Positives of each ``(M,)``.
        places: Where the parabolas are fitted ``(G,)``, ascending.
    """

    def __init__(self, data: Positive, span: float) -> None:
        distinct, cell, count = np.unique(data.probability, return_inverse=True, return_counts=True)
        if len(distinct) > _MOST_CELLS:
            # Half of the cells share the samples, half the probabilities: most samples may have nearly the same.
            rank = (count.cumsum() - count) / data.num_samples
            by_rank, by_value = (np.floor(0.5 * _MOST_CELLS * each) for each in (rank, distinct))
            cell = np.unique(by_rank + by_value, return_inverse=True)[1][cell]
        self.counts = np.bincount(cell).astype(np.float64)
        self.positives = np.bincount(cell, data.outcome).astype(np.float64)
        self.means: Floats = np.bincount(cell, data.probability) / self.counts
        self.places = self.means
        if len(self.means) > 2 * _POINTS:
            low, high = float(self.means[0]), float(self.means[-1])
            quantiles = np.quantile(data.probability, np.linspace(0, 1, _POINTS)).clip(low, high)
            self.places = np.unique(np.concatenate([quantiles, np.linspace(low, high, _POINTS)]))
        # The powers of the distances, weighted; a distance of 1 is where the weight ends.
        self._powers: Floats = np.empty((5, len(self.places), len(self.means)))
        nearest = max(1, int(span * data.num_samples + 1e-5))
        for row, place in enumerate(self.places):
            away = self.means - place
            size = np.abs(away)
            order = np.argsort(size, kind="stable")
            width = size[order[np.searchsorted(self.counts[order].cumsum(), nearest)]]
            # If the nearest samples have one probability, the curve there is their share of positives.
            scaled = away / width if width > 0 else np.where(size > 0, 2.0, 0.0)
            weight = np.clip(1.0 - np.abs(scaled) ** 3, 0.0, 1.0) ** 3
            self._powers[:, row] = weight * np.where(weight > 0, scaled, 0.0) ** np.arange(5)[:, None]

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
        """Return mean, median and 90th percentile ``(R,)`` of the samples' distances, for curves ``(R, G)``."""
        fitted = np.stack([np.interp(self.means, self.places, curve) for curve in curves])
        away = np.abs(fitted - self.means)
        order = np.argsort(away, axis=1, kind="stable")
        reached = np.take_along_axis(np.broadcast_to(counts, away.shape), order, axis=1).cumsum(axis=1)
        ranked = np.take_along_axis(away, order, axis=1)
        total = reached[:, -1]
        ici = (away * counts).sum(axis=1) / total
        return {"ici": ici} | {name: _quantile(ranked, reached, q * (total - 1)) for name, q in _QUANTILES.items()}


def _quantile(ranked: Floats, reached: Floats, rank: Floats) -> Floats:
    """Return the value at a fractional rank of samples counted in cells, as :func:`numpy.quantile` does."""
    below = np.floor(rank)

    def at(whole: Floats) -> Floats:
        index = np.minimum((reached <= whole[:, None]).sum(axis=1), ranked.shape[1] - 1)
        value: Floats = ranked[np.arange(len(ranked)), index]
        return value

    return at(below) + (rank - below) * (at(np.minimum(below + 1, reached[:, -1] - 1)) - at(below))
