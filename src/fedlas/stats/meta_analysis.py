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
    fixed = 1.0 / variances
    total = float(fixed.sum())
    typical = (count - 1) * total / (total**2 - float(fixed @ fixed))
    q = float(fixed @ (estimates - fixed @ estimates / total) ** 2)
    return RandomEffects(
        mean,
        mean - reach,
        mean + reach,
        mean - further,
        mean + further,
        math.sqrt(between),
        between / (between + typical),
        _chi_squared_p_value(q, count - 1),
        count,
        confidence_level,
    )


def _between_variance(values: FloatArray, variances: FloatArray) -> float:
    """Return the between-cluster variance by restricted maximum likelihood, at least 0."""
    # Fisher scoring.
    between = max(float(np.var(values, ddof=1) - variances.mean()), 0.0)
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


def _chi_squared_p_value(statistic: float, degrees: int) -> float:
    """Return the chi-squared p-value for an integer number of degrees of freedom."""
    # The tail is a finite sum: Abramowitz and Stegun 26.4.4 and 26.4.5. Terms as logarithms, which do not overflow.
    half = 0.5 * max(statistic, 0.0)
    if half == 0.0:
        return 1.0
    first = degrees % 2
    tail = math.erfc(math.sqrt(half)) if first else 0.0
    powers = np.arange(degrees // 2) + 0.5 * first
    logarithms = powers * math.log(half) - half - [math.lgamma(power + 1.0) for power in powers]
    return min(1.0, tail + float(np.exp(logarithms).sum()))
