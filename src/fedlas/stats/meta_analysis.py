"""Random-effects mean of cluster estimates, and the heterogeneity between clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, as_float_array, describe
from fedlas.stats.degrees import critical_t
from fedlas.stats.estimates import CONFIDENCE_LEVEL
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

_STEPS = 500
_ROUNDING = 1e-13
_TERMS = 100_000


@dataclass(frozen=True)
class RandomEffects:
    """Random-effects mean of cluster estimates, with prediction interval and heterogeneity.

    Attributes:
        mean: Mean of the truths.
        low: Lower end of the mean's interval (Hartung and Knapp).
        high: Upper end.
        prediction_low: Lower end of the interval for the truth of a further cluster; NaN of fewer than three.
        prediction_high: Upper end.
        tau: Standard deviation of the truths (REML).
        i_squared: Share of the variance of the estimates that is due to it, in ``[0, 1)``.
        p: P-value of Cochran's Q: that all truths are equal.
        count: Number of estimates.
        confidence_level: Level of both intervals.
        method: How tau was estimated: ``"REML"`` of the normal model of :func:`random_effects`, or of which other.
    """

    mean: float
    low: float
    high: float
    prediction_low: float
    prediction_high: float
    tau: float
    i_squared: float
    p: float
    count: int
    confidence_level: float
    method: str = "REML"


def random_effects(
    values: FloatArray, errors: FloatArray, *, confidence_level: float = CONFIDENCE_LEVEL
) -> RandomEffects:
    """Return the random-effects mean of independent estimates, ``value_k ~ N(truth_k, error_k**2)``.

    The truths are ``N(mean, tau**2)`` with tau by restricted maximum likelihood.

    Args:
        values: Estimates of ``K`` clusters ``(K,)``, finite, on a scale on which they are nearly normal.
        errors: Their standard errors ``(K,)``, above 0.
        confidence_level: Level of the intervals, in ``(0, 1)``.

    Raises:
        InputError: If they are no such numbers, or there are fewer than two.

    Note:
        Numbers are those of R's ``metafor::rma(values, sei=errors, method="REML", test="knha")`` with
        ``predict(pi.type="riley")``, which ``metamisc::valmeta`` shows.

    Example:
        >>> found = random_effects(np.array([0.1, 0.5, -0.3]), np.array([0.1, 0.1, 0.2]))
        >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4), round(found.tau**2, 4)
        (0.1249, -0.8503, 1.1, 0.1308)

    Source:
        Viechtbauer, "Bias and efficiency of meta-analytic variance estimators in the random-effects model", Journal of
        Educational and Behavioral Statistics 30 (2005), for REML; Hartung and Knapp, "A refined method for the
        meta-analysis of controlled clinical trials with binary outcome", Statistics in Medicine 20 (2001), for the
        interval; Riley, Higgins and Deeks, "Interpretation of random effects meta-analyses", BMJ 342 (2011), for the
        prediction interval; Higgins and Thompson, "Quantifying heterogeneity in a meta-analysis", Statistics in
        Medicine 21 (2002), for I-squared.
    """
    estimates = as_float_array(values)
    error = as_float_array(errors)
    fits = (
        estimates.ndim == 1
        and estimates.shape == error.shape
        and len(estimates) > 1
        and bool(np.isfinite(estimates).all())
    )
    if not fits or not bool(((error > 0) & np.isfinite(error)).all()):
        raise InputError(
            "values and errors must have shape (K,) with K at least 2 and be finite, and errors must be above 0",
            f"{describe(values)} and {describe(errors)}",
            "Leave out clusters without a standard error.",
        )
    check_confidence_level(confidence_level)
    count = len(estimates)
    variances = error**2
    between = _between_variance(estimates, variances)
    weights = 1.0 / (variances + between)
    mean = float(weights @ estimates / weights.sum())
    # Hartung and Knapp: the variance of the mean is that of the weighted values themselves.
    variance = float(weights @ (estimates - mean) ** 2) / (count - 1) / float(weights.sum())
    reach = critical_t(confidence_level, count - 1.0) * math.sqrt(variance)
    further = math.nan
    if count > 2:
        further = critical_t(confidence_level, count - 2.0) * math.sqrt(between + variance)
    return RandomEffects(
        mean,
        mean - reach,
        mean + reach,
        mean - further,
        mean + further,
        math.sqrt(between),
        share_between_clusters(between, 1.0 / variances),
        chi_squared_p_value(cochran_q(estimates, variances), count - 1.0),
        count,
        confidence_level,
    )


def cochran_q(values: FloatArray, variances: FloatArray) -> float:
    """Return Cochran's Q: squared distances of values ``(K,)`` from their mean, all weighted by inverse variance."""
    weights = 1.0 / variances
    return float(weights @ (values - weights @ values / weights.sum()) ** 2)


def share_between_clusters(between: float, information: FloatArray) -> float:
    """Return I-squared: the share of the variance of estimates that is due to the variance between clusters.

    Args:
        between: Variance of the truths, at least 0.
        information: Inverse variance of each estimate around its truth ``(K,)``.
    """
    total = float(information.sum())
    typical = (len(information) - 1) * total / (total**2 - float(information @ information))
    return between / (between + typical)


def _between_variance(values: FloatArray, variances: FloatArray) -> float:
    """Return the between-cluster variance by restricted maximum likelihood, at least 0."""
    # The likelihood may have two maxima, one of them at 0: of the ends of both ascents the higher one is taken.
    moments = max(float(np.var(values, ddof=1) - variances.mean()), 0.0)
    ends = [_ascend(values, variances, start) for start in (moments, 0.0)]
    return max([*ends, 0.0], key=lambda between: _restricted_likelihood(values, variances, between))


def _ascend(values: FloatArray, variances: FloatArray, between: float) -> float:
    """Return the end of Fisher scoring of the restricted likelihood from a between-cluster variance."""
    for _ in range(_STEPS):
        weights = 1.0 / (variances + between)
        total = float(weights.sum())
        squares = float(weights @ weights)
        mean = weights @ values / total
        slope = float(weights**2 @ (values - mean) ** 2) - (total - squares / total)
        cubes = float((weights**3).sum())
        information = squares - 2.0 * cubes / total + (squares / total) ** 2
        new = max(between + slope / information, 0.0)
        if abs(new - between) <= _ROUNDING * (new + between):
            break
        between = new
    return between


def _restricted_likelihood(values: FloatArray, variances: FloatArray, between: float) -> float:
    """Return the restricted log-likelihood of a between-cluster variance, up to a constant."""
    weights = 1.0 / (variances + between)
    total = float(weights.sum())
    mean = weights @ values / total
    squares = float(weights @ (values - mean) ** 2)
    return 0.5 * float(np.log(weights).sum() - math.log(total) - squares)


def chi_squared_p_value(statistic: float, degrees: float) -> float:
    """Return the chi-squared p-value for a number of degrees of freedom above 0, which need not be an integer.

    Source:
        Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 6.5.29 for the series and 6.5.31 for the
        continued fraction.
    """
    half, shape = 0.5 * max(statistic, 0.0), 0.5 * degrees
    if half == 0.0:
        return 1.0
    # Powers as logarithms, which do not overflow.
    density = math.exp(shape * math.log(half) - half - math.lgamma(shape))
    if half < shape + 1.0:
        term = total = 1.0 / shape
        divisor = shape
        while term > _ROUNDING * 1e-3 * total:
            divisor += 1.0
            term *= half / divisor
            total += term
        return max(0.0, 1.0 - density * total)
    # Lentz's recurrence of the continued fraction.
    offset = half + 1.0 - shape
    last = math.inf
    inverse = fraction = 1.0 / offset
    for number in range(1, _TERMS):
        factor = number * (shape - number)
        offset += 2.0
        inverse = 1.0 / (offset + factor * inverse)
        last = offset + factor / last
        fraction *= last * inverse
        if abs(last * inverse - 1.0) < _ROUNDING * 1e-3:
            break
    return min(1.0, density * fraction)
