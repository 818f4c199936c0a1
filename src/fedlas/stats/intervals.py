"""Confidence intervals from bootstrap replicates, normal approximations and influence functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas.predictions import MultiLabel, Predictions
from fedlas.resample.clusters import clustered_sum_variance
from fedlas.stats.degrees import cluster_widening_factor, critical_t, degrees_of_freedom

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.metrics.metric import Metric
    from fedlas.predictions.any_predictions import AnyPredictions

Bounds = tuple[float, float]
METHODS = ("auto", "percentile", "basic", "centered")
ALPHA = 0.05
"""Significance level of every test, and 1 minus the level of every interval, where nothing else is said."""
SMALL_BIAS = 0.25
"""Bias in standard errors up to which it does no harm to an interval (Efron & Tibshirani 1993, chapter 10)."""


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval; by the bootstrap unless ``method`` says otherwise.

    Attributes:
        value: The number itself, from all samples.
        low: Lower end.
        high: Upper end.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Number of bootstrap replicates; 0 without.
        bias: Mean of the replicates minus ``value``: the bootstrap's estimate of by how much ``value`` is too high; NaN
            without.
        standard_error: Standard deviation of the replicates, or what is computed in its place.
        method: ``"percentile"``, ``"basic"``, ``"centered"``, ``"floor"`` (see :func:`floor_corrected_interval`),
            ``"exact"`` and ``"wilson"`` (see :mod:`fedlas.stats.proportion`), ``"normal"``, ``"student"`` for few
            clusters, or ``"jackknife"`` (see :func:`fedlas.diagnose.associations`).
        degrees: Degrees of freedom of the standard error: with clusters their effective number less 1, else None.
    """

    value: float
    low: float
    high: float
    confidence_level: float
    replicates: int
    bias: float
    standard_error: float
    method: str
    degrees: float | None = field(default=None, repr=False)

    def __eq__(self, other: object) -> bool:
        # NaN stands for "without" and is equal to itself here.
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))


def interval_from_replicates(
    value: float,
    replicates: FloatArray,
    *,
    confidence_level: float,
    method: str,
    degrees: float = math.inf,
) -> Interval:
    """Return the confidence interval of ``value`` from bootstrap ``replicates (R,)``; wider with few clusters."""
    # With `k = floor((R + 1) * (1 - l) / 2)` for level `l`, the percentile interval goes from the `k`-th lowest to the
    # `k`-th highest replicate. The basic one reflects these ends about the value: `(2 * value - high, 2 * value -
    # low)`. So it moves away from a bias where the percentile interval follows it. The centered one moves these ends by
    # the bias, so that the replicates lie about the value: `(low - bias, high - bias)`. `"auto"` is the basic interval
    # where the bias exceeds a quarter of a standard error, else the percentile interval.
    ordered = np.sort(replicates)
    rank = _tail_rank(len(ordered), confidence_level)
    low = float(ordered[rank - 1])
    high = float(ordered[-rank])
    mean = float(ordered.mean())
    bias = mean - value
    error = float(ordered.std(ddof=1)) * math.sqrt(1.0 + 1.0 / degrees) if degrees else math.nan
    if (factor := cluster_widening_factor(confidence_level, degrees)) != 1.0:
        low, high = (mean + factor * (end - mean) for end in (low, high))
    if method == "auto":
        method = "basic" if abs(bias) > SMALL_BIAS * error else "percentile"
    if method == "basic":
        low, high = 2.0 * value - high, 2.0 * value - low
    elif method == "centered":
        low = low - bias
        high = high - bias
    count = len(ordered)
    few = None if math.isinf(degrees) else degrees
    return Interval(value, low, high, confidence_level, count, bias, error, method, few)


def floor_corrected_interval(
    value: float,
    replicates: FloatArray,
    *,
    floor: float,
    confidence_level: float,
    bias: Bounds = (0.0, 0.0),
    degrees: float = math.inf,
) -> Interval:
    """Return the interval of a calibration error, given bounds of its bias."""
    # A calibration error is too high by its noise floor if the model is calibrated, and by less the worse the model is:
    # where all gaps are larger than chance, by nothing. So the upper end takes no bias off, `value + (high - mean)`
    # with the percentile interval's `high` and the replicates' `mean`. The lower end takes off `b`, which is the bias
    # at the error that then remains: `value - b - (high - mean)`, where the bias falls on a straight line from `floor`
    # at an error of 0 to the replicates' bias at an error of `value`. The curve is below that line where bins hold many
    # samples. Where they hold few, both ends of the line are too low: the replicates keep the label of a bin of one
    # sample, and the labels of an over-confident model vary more than its own probabilities do. So `b` is at least the
    # `bias` from `metric_bias_bounds`. The upper end subtracts the lower bound of the bias, which is above 0
    # only for sums of squares.
    percentile = interval_from_replicates(
        value, replicates, confidence_level=confidence_level, method="percentile", degrees=degrees
    )
    least = max(percentile.bias, 0.0)
    above = max(value - floor, 0.0)
    # It solves e + b(e) = value, where b(e) lies on the line from floor at e = 0 to the least bias at e = value.
    remaining = value * above / (above + least) if above > 0.0 else 0.0
    removed = max(least, min(value - remaining, floor), bias[1])
    # Where nearly all replicates are 0, their mean may lie above the percentile.
    reach = max(percentile.high - (value + percentile.bias), 0.0)
    high = max(value - bias[0] + reach, 0.0)
    return replace(percentile, low=value - removed - reach, high=high, method="floor")


def check_bootstrap_options(
    *, confidence_level: float, replicates: int, seed: int, method: str
) -> None:
    """Raise InputError unless the options are valid for a bootstrap interval."""
    check_confidence_level(confidence_level)
    check_count("replicates", replicates)
    check_count("seed", seed, low=0)
    check_choice("method", method, METHODS)
    if _tail_rank(replicates, confidence_level) < 1:
        raise InputError(
            f"replicates must be at least {min_replicates(confidence_level)} for level {confidence_level:g}",
            replicates,
            "Use more replicates, or a lower confidence level.",
        )


def check_confidence_level(confidence_level: float, *, name: str = "confidence_level") -> float:
    """Return ``confidence_level`` if it is in ``(0, 1)``, else raise InputError."""
    return check_number(name, confidence_level, low=0.0, high=1.0, low_open=True, high_open=True)


def min_replicates(confidence_level: float) -> int:
    """Return the smallest number of replicates for an interval of this level: 39 for 0.95."""
    # 1 - level is rounded: for 0.9 the quotient is a little above 20, and its ceiling would be 21.
    return math.ceil(2.0 / (1.0 - confidence_level) - 1e-9) - 1


def _tail_rank(replicates: int, confidence_level: float) -> int:
    # For the same reason 19 replicates would have no rank at level 0.9: the product is a little below 1.
    return math.floor((replicates + 1) * (1.0 - confidence_level) / 2.0 + 1e-9)


def critical_z(confidence_level: float) -> float:
    """Return the normal critical value of a two-sided interval of this level: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + check_confidence_level(confidence_level) / 2.0)


def normal_interval(
    value: float, error: float, *, confidence_level: float, degrees: float = math.inf
) -> Interval:
    """Return the interval ``value +/- z * error``, or Student's t interval with few clusters."""
    reach = critical_t(check_confidence_level(confidence_level), degrees) * error
    return Interval(
        value,
        value - reach,
        value + reach,
        confidence_level,
        0,
        float("nan"),
        error,
        "normal" if math.isinf(degrees) else "student",
        None if math.isinf(degrees) else degrees,
    )


def metric_influence(entry: Metric, predictions: AnyPredictions) -> FloatArray | None:
    """Return the influence of each sample on a metric ``(N,)``, or None if the metric defines none."""
    influence = entry.influence
    if influence is None or not isinstance(predictions, Predictions):
        return None
    values: FloatArray | None = influence(predictions)
    return values


def standard_error(influence: FloatArray, predictions: AnyPredictions | MultiLabel) -> float:
    """Return the standard error of a metric from the samples' influences, summed over clusters."""
    if predictions.clusters is None:
        return math.sqrt(float(influence @ influence))
    number = np.unique(predictions.clusters, return_inverse=True)[1]
    sums = np.bincount(number, influence)
    return math.sqrt(clustered_sum_variance(float(sums @ sums), len(sums)))


def auroc_interval(
    auroc: float,
    error: float,
    influence: FloatArray,
    target: IntArray,
    *,
    clusters: IntArray | None = None,
    confidence_level: float,
) -> Bounds:
    """Return the interval of an AUROC: Student's t on the log-odds scale."""
    # With few events the area is skewed and its error uncertain: `z` errors to both sides hold the area in 88 % of test
    # sets with 11 events (`results/coverage.md`). An area of 0 or 1 has no error; its other end is the one that as many
    # samples as the rarest outcome has would show in so few test sets.
    count = np.unique(target, return_counts=True)[1]
    if auroc in (0.0, 1.0) or error == 0.0:
        end = (0.5 - confidence_level / 2.0) ** (1.0 / int(count.min()))
        return {1.0: (end, 1.0), 0.0: (0.0, 1.0 - end)}.get(auroc, (auroc, auroc))
    # Welch's degrees of freedom: the variance is a sum of one for each outcome.
    variance = np.bincount(np.unique(target, return_inverse=True)[1], influence**2)
    several = count > 1
    parts = variance[several] ** 2 / (count[several] - 1)
    degrees = max(float(variance.sum() ** 2 / parts.sum()), 1.0) if parts.any() else 1.0
    if clusters is not None:
        number = np.unique(clusters, return_inverse=True)[1]
        degrees = min(degrees, degrees_of_freedom(np.ones(len(number)), number))
    middle = math.log(auroc / (1.0 - auroc))
    reach = critical_t(confidence_level, degrees) * error / (auroc * (1.0 - auroc))
    low, high = (0.5 + 0.5 * math.tanh(end / 2.0) for end in (middle - reach, middle + reach))
    return low, high
