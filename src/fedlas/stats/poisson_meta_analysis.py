"""Random-effects mean of observed to expected counts, by a Poisson model with a random intercept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedlas._core.check import InputError, as_float_array, describe
from fedlas.stats.degrees import critical_t
from fedlas.stats.estimates import CONFIDENCE_LEVEL
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.meta_analysis import (
    RandomEffects,
    chi_squared_p_value,
    share_between_clusters,
)

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

_NODES, _SHARES = np.polynomial.hermite.hermgauss(21)
_LOG_SHARES = np.log(_SHARES) + _NODES**2 - 0.5 * math.log(math.pi)
_DEVIATIONS = (0.0, *np.geomspace(0.01, 4.0, 16).tolist())
"""Standard deviations between clusters among which the largest likelihood is sought first."""
_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
_STEPS = 100
_MODE_STEPS = 12
_GOLDEN_STEPS = 26
_ROUNDING = 1e-11


class _Fit(NamedTuple):
    """The mean log ratio with the largest likelihood for a given standard deviation between clusters.

    Attributes:
        mean: That mean.
        log_likelihood: There, up to a constant.
        scores: Each cluster's derivative of it by the mean ``(K,)``.
        information: Minus the second derivative.
    """

    mean: float
    log_likelihood: float
    scores: FloatArray
    information: float

    @property
    def adjusted_log_likelihood(self) -> float:
        """Profile log-likelihood, adjusted for the estimated mean (Cox and Reid); for normal values that is REML."""
        # Nodes about the maximum do not reach the tail that a wide distribution of truths has where counts are near 0.
        if not self.information > 0.0:
            return -math.inf
        return self.log_likelihood - 0.5 * math.log(self.information)


def poisson_random_effects(
    observed: FloatArray, expected: FloatArray, *, confidence_level: float = CONFIDENCE_LEVEL
) -> RandomEffects:
    """Return the random-effects mean of log ratios of counts, ``observed_k ~ Poisson(expected_k exp(truth_k))``.

    The truths are ``N(mean, tau**2)``. A cluster without an event counts as any other: no half events are added, and
    clusters with few events do not bias the mean, unlike in a normal model of log ratios.

    Args:
        observed: Counts of ``K`` clusters ``(K,)``, at least 0 and one above 0. A count whose variance is not its mean
            is divided by their ratio, as its expectation is, and need not be an integer.
        expected: Their expectations ``(K,)``, above 0.
        confidence_level: Level of the intervals, in ``(0, 1)``.

    Returns:
        Mean, intervals and tau of the log ratio. Tau is by the adjusted profile likelihood, which is REML where counts
        are large. The interval of the mean is Wald's, with Student's ``K - 1`` degrees of freedom. ``p`` is of the
        score test that tau is 0, given the sum of the counts.

    Raises:
        InputError: If they are no such numbers, or there are fewer than two.

    Note:
        The likelihood is integrated by adaptive Gauss-Hermite quadrature with 21 nodes. ``results/coverage.md`` has how
        often the intervals hold the mean and a further cluster.

    Example:
        >>> found = poisson_random_effects(np.array([0.0, 3.0, 9.0, 4.0]), np.array([2.0, 3.0, 5.0, 4.0]))
        >>> round(math.exp(found.mean), 3), round(math.exp(found.low), 3), round(found.tau, 3), round(found.p, 3)
        (1.006, 0.349, 0.402, 0.233)

    Source:
        Stijnen, Hamza and Ozdemir, "Random effects meta-analysis of event outcome in the framework of the generalized
        linear mixed model with applications in sparse data", Statistics in Medicine 29 (2010), for the model; Cox and
        Reid, "Parameter orthogonality and approximate conditional inference", Journal of the Royal Statistical Society
        B 49 (1987), for the likelihood of tau; Dean, "Testing for overdispersion in Poisson and binomial regression
        models", Journal of the American Statistical Association 87 (1992), for the test.
    """
    counts = as_float_array(observed)
    means = as_float_array(expected)
    fits = (
        counts.ndim == 1
        and counts.shape == means.shape
        and len(counts) > 1
        and bool(((counts >= 0) & (counts < math.inf)).all())
        and bool(counts.any())
    )
    if not fits or not bool(((means > 0) & (means < math.inf)).all()):
        raise InputError(
            "observed and expected must have shape (K,) with K at least 2; observed must be at least 0 and not all 0, "
            "expected above 0",
            f"{describe(observed)} and {describe(expected)}",
            "Leave out clusters that expect no event.",
        )
    check_confidence_level(confidence_level)
    count = len(counts)
    tau, fit = _fit_deviation(counts, means)
    # Wald's variance: that of Hartung and Knapp, or of the clusters' scores, held the mean in 84 to 92 % of sets where
    # clusters are of very unequal sizes.
    variance = 1.0 / fit.information
    reach = critical_t(confidence_level, count - 1.0) * math.sqrt(variance)
    further = math.nan
    if count > 2:
        further = critical_t(confidence_level, count - 2.0) * math.sqrt(tau**2 + variance)
    return RandomEffects(
        fit.mean,
        fit.mean - reach,
        fit.mean + reach,
        fit.mean - further,
        fit.mean + further,
        tau,
        share_between_clusters(tau**2, means * math.exp(fit.mean)),
        overdispersion_p_value(counts, means),
        count,
        confidence_level,
        "Poisson, adjusted profile likelihood",
    )


def overdispersion_p_value(observed: FloatArray, expected: FloatArray) -> float:
    """Return the p-value of the score test that all clusters ``(K,)`` have one ratio of observed to expected."""
    # Given their sum the counts are multinomial, and the sum of squared gaps has exact moments, also of rare events. A
    # scaled chi-squared distribution has the same two: 4 to 6 % of sets are at most 0.05 from 0.3 events a cluster on,
    # of clusters of any sizes.
    total = float(observed.sum())
    share = expected / expected.sum()
    squares, cubes = float((share**2).sum()), float((share**3).sum())
    gaps = observed - total * share
    mean = total * (1.0 - squares)
    variance = 2.0 * total * max(total - 1.0, 0.0) * (squares - 2.0 * cubes + squares**2)
    variance += 4.0 * total * max(cubes - squares**2, 0.0)
    if variance <= _ROUNDING * mean**2:
        return 1.0
    scale = variance / (2.0 * mean)
    return chi_squared_p_value(float(gaps @ gaps) / scale, mean / scale)


def _fit_deviation(observed: FloatArray, expected: FloatArray) -> tuple[float, _Fit]:
    """Return the standard deviation between clusters with the largest adjusted likelihood, and the fit there."""
    # The likelihood may have two maxima, one of them at 0: the grid finds the higher one.
    start = math.log(float(observed.sum()) / float(expected.sum()))
    coarse = [_fit_mean(observed, expected, tau, start) for tau in _DEVIATIONS]
    best = int(np.argmax([each.adjusted_log_likelihood for each in coarse]))
    low, high = (
        _DEVIATIONS[place] for place in (max(best - 1, 0), min(best + 1, len(_DEVIATIONS) - 1))
    )
    start = coarse[best].mean

    def likelihood(tau: float) -> float:
        return _fit_mean(observed, expected, tau, start).adjusted_log_likelihood

    tau = _golden_section(likelihood, low, high)
    fine = _fit_mean(observed, expected, tau, start)
    if fine.adjusted_log_likelihood <= coarse[0].adjusted_log_likelihood + _ROUNDING:
        return 0.0, coarse[0]
    return tau, fine


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one maximum between two numbers has it, to 1e-5 of their distance."""
    first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    first_value, second_value = function(first), function(second)
    for _ in range(_GOLDEN_STEPS):
        if first_value < second_value:
            low, first, first_value = first, second, second_value
            second = low + _GOLDEN * (high - low)
            second_value = function(second)
        else:
            high, second, second_value = second, first, first_value
            first = high - _GOLDEN * (high - low)
            first_value = function(first)
    return 0.5 * (low + high)


def _fit_mean(observed: FloatArray, expected: FloatArray, tau: float, start: float) -> _Fit:
    """Return the mean with the largest likelihood for one tau, by Newton's method."""
    # The likelihood is a log-concave function of the mean, as that of the mean and all truths together is. A step of
    # at most 1 does not pass the maximum far.
    mean = start
    for _ in range(_STEPS):
        log_likelihood, scores, information = _marginal_likelihood(observed, expected, mean, tau)
        if not information > 0.0:
            break
        step = float(scores.sum()) / information
        if abs(step) <= _ROUNDING * (1.0 + abs(mean)):
            break
        mean += min(max(step, -1.0), 1.0)
    return _Fit(mean, log_likelihood, scores, information)


def _marginal_likelihood(
    observed: FloatArray, expected: FloatArray, mean: float, tau: float
) -> tuple[float, FloatArray, float]:
    """Return the log-likelihood, each cluster's derivative by the mean ``(K,)``, and minus the second derivative."""
    if tau == 0.0:
        counts = expected * math.exp(mean)
        log_likelihood = mean * float(observed.sum()) - float(counts.sum())
        return log_likelihood, observed - counts, float(counts.sum())
    variance = tau**2
    # The integrand has its maximum where `exp(power) = variance * (expected count there)` solves
    # `exp(power) + power = logs`. Newton's steps from above fall to it, since the left side is convex.
    logs = np.log(variance * expected) + mean + variance * observed
    power = np.where(logs > 1.0, np.log(np.maximum(logs, 1.0)), logs)
    for _ in range(_MODE_STEPS):
        power = power - (np.exp(power) + power - logs) / (np.exp(power) + 1.0)
    mode = variance * observed - np.exp(power)
    width = tau / np.sqrt(1.0 + np.exp(power))
    # Nodes about that maximum, in units of the width there.
    truths = mode[:, None] + math.sqrt(2.0) * width[:, None] * _NODES
    counts = expected[:, None] * np.exp(mean + truths)
    terms = observed[:, None] * (mean + truths) - counts
    terms += _LOG_SHARES - truths**2 / (2.0 * variance)
    largest = terms.max(axis=1)
    shares = np.exp(terms - largest[:, None])
    total = shares.sum(axis=1)
    shares /= total[:, None]
    log_likelihood = float((largest + np.log(total) + np.log(width / tau)).sum())
    # Two forms of the same derivatives: by the counts where they say little of a cluster, by its truth where they say
    # much. Each loses its digits where the other one keeps them.
    posterior, gaps = (shares * truths).sum(axis=1), observed[:, None] - counts
    spread = (shares * (truths - posterior[:, None]) ** 2).sum(axis=1)
    score = (shares * gaps).sum(axis=1)
    curvature = (shares * (counts - (gaps - score[:, None]) ** 2)).sum(axis=1)
    is_certain = np.exp(power) > 1.0
    scores = np.where(is_certain, posterior / variance, score)
    information = np.where(is_certain, (1.0 - spread / variance) / variance, curvature)
    return log_likelihood, scores, float(information.sum())
