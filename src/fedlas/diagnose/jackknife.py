"""Infinitesimal jackknife: intervals of Pearson, Spearman and AUROC from each sample's influence, without resampling.

Source:
    Jaeckel: The Infinitesimal Jackknife, Bell Laboratories Memorandum 72-1215-11 (1972).
    DeLong, DeLong, Clarke-Pearson: Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
    Curves, Biometrics 44 (1988).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from fedlas.diagnose.ranked import RankedScores, centered
from fedlas.stats.auroc import auroc
from fedlas.stats.intervals import Interval
from fedlas.stats.rows import Floats


def jackknife(x: Floats, y: Floats, *, boolean: bool, level: float) -> dict[str, Interval]:
    """``pearson``, ``spearman`` and, for a boolean ``y``, ``auroc``, each with its interval; ``O(N log N)``.

    A correlation's interval is symmetric on Fisher's scale ``atanh``, an AUROC's on the scale of its log-odds, so that
    no end leaves the range. A value at the end of its range has an interval of no width, as with the bootstrap.

    Args:
        x: Score ``(N,)``.
        y: Value ``(N,)``.
        boolean: Whether y is 0 and 1.
        level: Confidence level in ``(0, 1)``.
    """
    a, b = centered(x), centered(y)
    by_x, by_y = RankedScores(x), RankedScores(y)
    u, v = _standing(by_x), _standing(by_y)
    # A sample changes a mean over standings by its own term and by moving the standings of the samples above it.
    uv = u * v + _above(by_x, v) + _above(by_y, u)
    uu, vv = u * u + 2 * _above(by_x, u), v * v + 2 * _above(by_y, v)
    estimate = {
        "pearson": _correlation(a, b, a * b, a * a, b * b, level),
        "spearman": _correlation(u, v, uv, uu, vv, level),
    }
    if boolean:
        estimate["auroc"] = _auroc(by_x, y, level)
    return estimate


def _standing(ranked: RankedScores) -> Floats:
    """Share of the samples below each, ties counting half, less its mean."""
    samples = len(ranked.order)
    return np.asarray(ranked.ranks(np.ones((1, samples)))[0] / samples - 0.5)


def _above(ranked: RankedScores, weights: Floats) -> Floats:
    """Sum of the weights of the samples above each, ties counting half, divided by ``N``."""
    return np.asarray((weights.sum() - ranked.ranks(weights[None])[0]) / len(weights))


def _correlation(u: Floats, v: Floats, uv: Floats, uu: Floats, vv: Floats, level: float) -> Interval:
    """The correlation of the centered ``u`` and ``v``; a sample moves their moments by ``uv``, ``uu`` and ``vv``."""
    if not np.ptp(u) or not np.ptp(v):
        return _interval(math.nan, math.nan, math.nan, math.nan, level)
    covariance, var_u, var_v = (float(np.mean(product)) for product in (u * v, u * u, v * v))
    scale = math.sqrt(var_u * var_v)
    value = min(max(covariance / scale, -1.0), 1.0)
    # It is the derivative of cov / sqrt(var_u * var_v) by the weight of each sample, from those of the three moments.
    influence = (uv - uv.mean()) / scale - value / 2 * ((uu - uu.mean()) / var_u + (vv - vv.mean()) / var_v)
    error = float(influence.std(ddof=1)) / math.sqrt(len(influence))
    # A perfect correlation has no place on Fisher's scale, where 1 is infinite.
    if abs(value) >= 1 - 1e-12:
        return _interval(value, value, value, error, level)
    half = _quantile(level) * error / (1 - value**2)  # the derivative of atanh
    middle = math.atanh(value)
    return _interval(value, math.tanh(middle - half), math.tanh(middle + half), error, level)


def _auroc(ranked: RankedScores, truth: Floats, level: float) -> Interval:
    """The AUROC, with DeLong's variance.

    It adds the variances of each true sample's share of false samples below it, and of each false sample's share of
    true samples above it.
    """
    positive = truth.sum()
    negative = len(truth) - positive
    if not positive or not negative:
        return _interval(math.nan, math.nan, math.nan, math.nan, level)
    right = truth == 1
    below = ranked.ranks((~right).astype(np.float64)[None])[0][right] / negative
    above = _above(ranked, truth)[~right] * len(truth) / positive
    value = float(auroc(ranked.groups(1 - truth[None]), ranked.groups(truth[None]))[0])
    if min(positive, negative) < 2:  # the variance of one sample cannot be estimated
        return _interval(value, math.nan, math.nan, math.nan, level)
    error = math.sqrt(below.var(ddof=1) / positive + above.var(ddof=1) / negative)
    if not 0 < value < 1:
        return _interval(value, value, value, error, level)
    half = _quantile(level) * error / (value * (1 - value))  # the derivative of the log-odds
    middle = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-end)) for end in (middle - half, middle + half))
    return _interval(value, low, high, error, level)


def _quantile(level: float) -> float:
    return -NormalDist().inv_cdf((1 - level) / 2)


def _interval(value: float, low: float, high: float, error: float, level: float) -> Interval:
    return Interval(value, low, high, level, 0, math.nan, error, "jackknife")
