"""Student's t distribution, and degrees of freedom of variances over few clusters."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas.resample.effective import effective_sample_size_by_group

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray


def degrees_of_freedom(
    terms: NDArray[np.float64], clusters: NDArray[np.int64] | None = None
) -> float:
    """Return the Satterthwaite degrees of freedom of a variance over clusters: their effective number minus 1.

    Args:
        terms: What each sample adds to the sum ``(N,)``, such as its influence or its weight; or to several sums
            ``(N, k)``, for their covariance.
        clusters: Number of each sample's cluster ``(N,)``, from 0 on; None if samples are independent.

    Returns:
        At least 1 and at most the number of clusters less 1; infinity without clusters, and 0 with a single one, which
        shows nothing of others: no score, interval or p-value is then a number.

    Example:
        >>> round(degrees_of_freedom(np.ones(20), np.arange(5).repeat(4)), 6)
        4.0
        >>> round(degrees_of_freedom(np.ones(20), np.array([0] * 12 + [1] * 4 + [2] * 4)), 2)
        1.27

    Source:
        Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2 (1946),
        with the variance of each cluster as of independent samples, as Bell and McCaffrey, "Bias reduction in standard
        errors for linear regression with multi-stage samples", Survey Methodology 28 (2002), have it.
    """
    if clusters is None:
        return math.inf
    columns = terms.reshape(len(terms), -1)
    size = columns.T @ columns
    # Several sums are counted in units in which their terms are uncorrelated.
    squares = np.einsum("nk,kl,nl->n", columns, np.linalg.pinv(size, hermitian=True), columns)
    variances = np.bincount(clusters, squares)
    return float(group_degrees_of_freedom(variances, np.zeros(len(variances), dtype=np.int64))[0])


def group_degrees_of_freedom(variances: NDArray[Any], group: NDArray[np.int64]) -> FloatArray:
    """Return :func:`degrees_of_freedom` of each group ``(G,)``, from each cluster's variance and group ``(K,)``."""
    degrees = effective_sample_size_by_group(variances, group) - 1.0
    return np.where(np.bincount(group) > 1, degrees.clip(min=1.0), 0.0)


def two_sided_p_value(score: float, degrees: float = math.inf) -> float:
    """Return the two-sided p-value of a t statistic; with infinite degrees of freedom, of a normal score.

    Example:
        >>> round(two_sided_p_value(1.96), 3), round(two_sided_p_value(1.96, 4.0), 3)
        (0.05, 0.122)
    """
    return float(two_sided_p_values(np.array([score]), np.array([degrees]))[0])


def two_sided_p_values(scores: FloatArray, degrees: FloatArray) -> FloatArray:
    """Return the two-sided p-values of t statistics ``(G,)`` with ``degrees (G,)``; NaN for a NaN score."""
    normal = [math.erfc(abs(score) / math.sqrt(2.0)) for score in scores.tolist()]
    p_values = np.where(degrees > 0.0, normal, math.nan)
    finite = (degrees > 0.0) & np.isfinite(degrees)
    if finite.any():
        from scipy.special import stdtr

        p_values[finite] = 2.0 * stdtr(degrees[finite], -np.abs(scores[finite]))
    return p_values


@functools.lru_cache(maxsize=256)
def critical_t(confidence_level: float, degrees: float) -> float:
    """Return the critical value of Student's t: half the interval's width in standard errors."""
    return float(critical_t_values(confidence_level, np.array([degrees]))[0])


def critical_t_values(confidence_level: float, degrees: FloatArray) -> FloatArray:
    """Return critical values of Student's t for several degrees of freedom ``(G,)``."""
    share = 0.5 + confidence_level / 2.0
    scores = np.where(degrees > 0.0, NormalDist().inv_cdf(share), math.nan)
    finite = (degrees > 0.0) & np.isfinite(degrees)
    if finite.any():
        from scipy.special import stdtrit

        scores[finite] = stdtrit(degrees[finite], share)
    return scores


def wald_p_value(statistic: float, degrees: float = math.inf) -> float:
    """Return the p-value of a Wald statistic of two parameters: chi-squared, or Hotelling's T² with few clusters.

    Example:
        >>> round(wald_p_value(5.99), 3), round(wald_p_value(5.99, 9.0), 3)
        (0.05, 0.13)
    """
    if math.isnan(statistic):
        return math.nan
    # With two numbers both tails are elementary: F has 2 and `degrees - 1` degrees of freedom.
    if math.isinf(degrees):
        return math.exp(-0.5 * max(0.0, statistic))
    return float((1.0 + max(0.0, statistic) / degrees) ** (-0.5 * max(degrees - 1.0, 0.0)))


def cluster_widening_factor(confidence_level: float, degrees: float) -> float:
    """Return the factor by which a cluster bootstrap interval must be widened; 1 without clusters."""
    # Drawn clusters spread about their mean by a share 1 / G of the variance too little, as a variance without its
    # `G / (G - 1)`, and their percentiles are normal where few clusters ask for Student's.
    # Source: Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), 5.3.
    if math.isinf(degrees):
        return 1.0
    if degrees == 0.0:
        return math.nan
    ratio = critical_t(confidence_level, degrees) / critical_t(confidence_level, math.inf)
    return ratio * math.sqrt(1.0 + 1.0 / degrees)


def pointwise_interval(
    replicates: FloatArray, confidence_level: float, degrees: float
) -> tuple[FloatArray, FloatArray]:
    """Return pointwise interval ends ``(G,)`` of replicate curves ``(R, G)``, ignoring NaN; wider with few clusters.

    Args:
        replicates: A curve of each replicate.
        confidence_level: In ``(0, 1)``.
        degrees: Degrees of freedom of what is drawn; infinity without clusters.

    Example:
        >>> low, high = pointwise_interval(np.arange(101.0)[:, None], 0.9, math.inf)
        >>> low.round(6).tolist(), high.round(6).tolist()
        ([5.0], [95.0])
    """
    tails = (0.5 - confidence_level / 2, 0.5 + confidence_level / 2)
    has_gaps = bool(np.isnan(replicates).any())  # `nanquantile` takes ten times as long
    low, high = (np.nanquantile if has_gaps else np.quantile)(replicates, tails, axis=0)
    if (factor := cluster_widening_factor(confidence_level, degrees)) == 1.0:
        return low, high
    mean = np.nanmean(replicates, axis=0)
    return mean + factor * (low - mean), mean + factor * (high - mean)
