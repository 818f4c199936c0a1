"""Association of two numbers per sample: Pearson, Spearman and AUROC, each with an interval.

The intervals come from the infinitesimal jackknife: the influence of each sample in closed form, without resampling.

Source:
    Spearman: The Proof and Measurement of Association between Two Things, Am. J. Psychology 15 (1904).
    Jaeckel: The Infinitesimal Jackknife, Bell Laboratories Memorandum 72-1215-11 (1972).
    DeLong, DeLong, Clarke-Pearson: Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
    Curves, Biometrics 44 (1988).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, as_numbers, describe
from fedlas.stats.intervals import Interval, check_level
from fedlas.stats.rows import Floats


@dataclass(frozen=True)
class Associations:
    """How closely a score follows a value of each sample.

    Attributes:
        pearson: Linear correlation in ``[-1, 1]``.
        spearman: Correlation of the ranks, ties at their middle rank.
        auroc: Probability that a sample whose value is true scores above one whose value is false, ties counting half;
            None for values that are not boolean.
    """

    pearson: Interval
    spearman: Interval
    auroc: Interval | None


def associations(
    score: Tensor | Floats, value: Tensor | Floats, *, confidence_level: float = 0.95
) -> Associations:
    """Return Pearson's and Spearman's correlation of ``score`` and ``value``, and for booleans the AUROC.

    The interval of a correlation is symmetric on Fisher's scale ``atanh``, that of an AUROC on the scale of its
    log-odds, so that no end leaves the range. A value at the end of its range has an interval of no width.

    Args:
        score: ``(N,)``, finite.
        value: ``(N,)``, finite, or boolean.
        confidence_level: Confidence level in ``(0, 1)``.

    Returns:
        The numbers with their intervals, in ``O(N log N)``. The correlations are NaN if the score or the value is the
        same for all samples; the AUROC of such a score is 1/2. If an interval cannot be estimated, as for an AUROC with
        a single true sample, only its ends are NaN.

    Raises:
        InputError: For other shapes, fewer than three samples, values that are not finite, or a level out of range.

    Note:
        Intervals from few samples are too narrow. In 600 draws, 95 % intervals held the truth in 92 % (Pearson), 94 %
        (Spearman) and 86 % (AUROC, 85 % true) with 20 samples, and in 92 to 95 % with 100 samples.

    Example:
        >>> result = associations(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]))
        >>> round(result.pearson.value, 3), result.auroc.value
        (0.894, 1.0)
    """
    check_level(confidence_level)
    x = _numbers("score", score)
    y = _numbers("value", value)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3:
        raise InputError(
            "score and value must be (N,) with at least 3 samples",
            f"{describe(score)} and {describe(value)}",
            "Pass one number per sample.",
        )
    a = _centered(x)
    b = _centered(y)
    by_x = _Ranked(x)
    by_y = _Ranked(y)
    is_boolean = (
        value.dtype == torch.bool if isinstance(value, Tensor) else np.asarray(value).dtype == bool
    )
    u, v = (ranked.below(np.ones_like(x)) / len(x) - 0.5 for ranked in (by_x, by_y))
    # A sample changes a mean over ranks by its own term and by moving the ranks of the samples above it.
    uv = u * v + by_x.above(v) + by_y.above(u)
    uu = u * u + 2 * by_x.above(u)
    vv = v * v + 2 * by_y.above(v)
    return Associations(
        pearson=_correlation(a, b, a * b, a * a, b * b, confidence_level),
        spearman=_correlation(u, v, uv, uu, vv, confidence_level),
        auroc=_auroc(by_x, y, confidence_level) if is_boolean else None,
    )


def _numbers(name: str, values: Tensor | Floats) -> Floats:
    """Return the values in float64."""
    numbers = as_numbers(values)
    if numbers.ndim and not np.isfinite(numbers).all():
        raise InputError(f"{name} must be finite", "NaN or infinity", "Leave these samples out.")
    return numbers


def _centered(values: Floats) -> Floats:
    """Return distances from the mean, scaled by a power of two to at most 1, so that no product of them underflows.

    A power of two changes no digit.
    """
    about = values - values.mean()
    return np.ldexp(about, -np.frexp(np.abs(about).max())[1])


class _Ranked:
    """Samples in the order of their values."""

    def __init__(self, values: Floats) -> None:
        self.group = np.unique(values, return_inverse=True)[1]  # equal values are one group

    def below(self, weights: Floats) -> Floats:
        """Sum of the weights ``(N,)`` of the samples below each, ties counting half."""
        sums = np.bincount(self.group, weights)
        return np.asarray((sums.cumsum() - sums / 2)[self.group])

    def above(self, weights: Floats) -> Floats:
        """Sum of the weights ``(N,)`` of the samples above each, ties counting half, divided by ``N``."""
        return (weights.sum() - self.below(weights)) / len(weights)


def _correlation(
    u: Floats, v: Floats, uv: Floats, uu: Floats, vv: Floats, level: float
) -> Interval:
    """Return the correlation of the centered ``u`` and ``v``, from the moments ``uv``, ``uu`` and ``vv``."""
    if not np.ptp(u) or not np.ptp(v):
        return _interval(math.nan, math.nan, math.nan, level, math.atanh, math.tanh)
    covariance, var_u, var_v = (float(np.mean(product)) for product in (u * v, u * u, v * v))
    scale = math.sqrt(var_u * var_v)
    value = min(max(covariance / scale, -1.0), 1.0)
    # It is the derivative of cov / sqrt(var_u * var_v) by the weight of each sample, from those of the three moments.
    influence = (uv - uv.mean()) / scale - value / 2 * (
        (uu - uu.mean()) / var_u + (vv - vv.mean()) / var_v
    )
    error = float(influence.std(ddof=1)) / math.sqrt(len(influence))
    return _interval(value, error, 1 - value**2, level, math.atanh, math.tanh)


def _auroc(ranked: _Ranked, truth: Floats, level: float) -> Interval:
    """Return the AUROC, with DeLong's variance.

    It adds the variances of each true sample's share of false samples below it, and of each false sample's share of
    true samples above it.
    """
    right = truth == 1
    positive = truth.sum()
    negative = (1 - truth).sum()
    value = error = math.nan
    if positive and negative:
        below = ranked.below(1 - truth)[right] / negative
        above = ranked.above(truth)[~right] * len(truth) / positive
        value = float(below.mean())
        if min(positive, negative) > 1:  # the variance of one sample cannot be estimated
            error = math.sqrt(below.var(ddof=1) / positive + above.var(ddof=1) / negative)
    return _interval(
        value, error, value * (1 - value), level, lambda p: math.log(p / (1 - p)), _logistic
    )


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _interval(
    value: float,
    error: float,
    slack: float,
    level: float,
    scale: Callable[[float], float],
    inverse: Callable[[float], float],
) -> Interval:
    """Return an interval, symmetric on a scale with derivative ``1 / slack``; empty at the end of the range."""
    low = high = math.nan
    if slack <= 2e-12 and not math.isnan(error):
        low = high = value
    elif not math.isnan(error):
        half = -NormalDist().inv_cdf((1 - level) / 2) * error / slack
        low = inverse(scale(value) - half)
        high = inverse(scale(value) + half)
    return Interval(value, low, high, level, 0, math.nan, error, "jackknife")
