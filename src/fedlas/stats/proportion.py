"""Confidence intervals of proportions and their differences, and the Poisson binomial test."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import check_count, check_number
from fedlas.resample.clusters import clustered_sum_variance
from fedlas.resample.effective import effective_sample_size
from fedlas.stats.degrees import critical_t, degrees_of_freedom
from fedlas.stats.intervals import check_confidence_level, critical_z

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray


def clopper_pearson(
    successes: int, samples: int, *, confidence_level: float = 0.95, sides: int = 2
) -> tuple[float, float]:
    """Compute the exact confidence interval of a proportion.

    Args:
        successes: Out of ``samples``.
        samples: At least 0; with none the interval is ``(0, 1)``.
        confidence_level: In (0, 1).
        sides: 2 for an interval; 1 for two bounds of which each alone has ``confidence_level``.

    Returns:
        Lower and upper end.

    Raises:
        InputError: If a number is out of range.

    Example:
        >>> tuple(round(end, 4) for end in clopper_pearson(0, 100))
        (0.0, 0.0362)

    Source:
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial" (1934).
    """
    check_count("samples", samples, low=0)
    check_number("successes", check_count("successes", successes, low=0), high=samples)
    alpha = (1 - check_confidence_level(confidence_level)) / check_count("sides", sides)
    events = np.array([successes, samples - successes])
    low, rest = _lower_bounds(events, np.array([samples, samples]), alpha).tolist()
    return low, 1.0 - rest


def clopper_pearson_intervals(
    successes: IntArray, samples: IntArray, *, confidence_level: float
) -> tuple[FloatArray, FloatArray]:
    """Return Clopper-Pearson intervals of several proportions ``(G,)``."""
    alpha = (1 - confidence_level) / 2
    low = _lower_bounds(successes, samples, alpha)
    return low, 1.0 - _lower_bounds(samples - successes, samples, alpha)


def _lower_bounds(successes: IntArray, samples: IntArray, alpha: float) -> FloatArray:
    """Return the proportion ``(G,)`` for which ``successes`` or more of ``samples`` have probability ``alpha``."""
    from scipy.special import betaincinv

    at_least_one = np.maximum(successes, 1)
    bounds: FloatArray = betaincinv(at_least_one, samples - at_least_one + 1, alpha)
    return np.where(successes > 0, bounds, 0.0)


def wilson_interval(share: Any, samples: Any, *, confidence_level: float) -> tuple[Any, Any]:
    """Compute Wilson's approximate confidence interval of one or several proportions."""
    # Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    z = NormalDist().inv_cdf(0.5 + confidence_level / 2.0)
    # The ends solve |share - p| = z * sqrt(p * (1 - p) / n): the variance is that at the end, not at the share.
    center = share + z**2 / (2 * samples)
    scale = 1.0 + z**2 / samples
    half = z * (share * (1.0 - share) / samples + z**2 / (4 * samples**2)) ** 0.5
    return np.maximum(0.0, (center - half) / scale)[()], np.minimum(1.0, (center + half) / scale)[
        ()
    ]


def weighted_share_interval(
    hits: NDArray[Any],
    weights: NDArray[np.float64],
    clusters: NDArray[np.int64] | None = None,
    *,
    confidence_level: float,
) -> tuple[float, float]:
    """Compute Wilson's interval of a proportion of weighted or clustered samples, from their effective number."""
    share, samples = _share_and_effective_samples(hits, weights, clusters, confidence_level)
    return wilson_interval(share, samples, confidence_level=confidence_level)


def _share_and_effective_samples(
    hits: NDArray[Any],
    weights: NDArray[np.float64],
    clusters: NDArray[np.int64] | None,
    confidence_level: float,
) -> tuple[float, float]:
    """Return the proportion of weighted or clustered samples, and their effective number."""
    # That number is `share * (1 - share) / variance` with the variance of the weighted share, but at most `(sum w)**2 /
    # sum w**2`: the variance alone says nothing where all samples are right.
    # Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
    # estimated from survey data", Survey Methodology 24 (1998), for the effective number and its factor for few
    # clusters, there with Clopper's interval.
    shares = weights / weights.sum()
    share = min(1.0, float(shares[hits].sum()))
    terms = shares * (hits - share)
    samples = effective_sample_size(weights)
    variance = float((terms**2).sum())
    if clusters is not None:
        totals = np.bincount(clusters, terms)
        variance = float(clustered_sum_variance(float((totals**2).sum()), len(totals)))
        # Where all are right, or all wrong, the samples of a cluster may be copies of each other; those of one cluster
        # say nothing about others.
        if len(totals) == 1 or hits.all() or not hits.any():
            return share, effective_sample_size(np.bincount(clusters, weights))
        # A variance from few clusters is itself uncertain: Student's interval is wider than the normal one.
        reach = critical_t(confidence_level, degrees_of_freedom(weights, clusters))
        variance *= (reach / critical_z(confidence_level)) ** 2
    if variance > 0:
        samples = min(samples, share * (1.0 - share) / variance)
    return share, samples


def paired_share_interval(
    a: NDArray[Any],
    b: NDArray[Any],
    weights: NDArray[np.float64] | None = None,
    clusters: NDArray[np.int64] | None = None,
    *,
    confidence_level: float,
) -> tuple[float, float]:
    """Compute a confidence interval of the difference of two proportions of the same samples."""
    # Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired
    # data", Statistics in Medicine 17 (1998), method 10; with weights or clusters each share has its effective number.
    counts = np.ones(len(a)) if weights is None else weights
    if weights is None and clusters is None:
        pairs = [(float(each.mean()), float(len(a))) for each in (a, b)]
    else:
        pairs = [
            _share_and_effective_samples(each, counts, clusters, confidence_level)
            for each in (a, b)
        ]
    (first, first_samples), (second, second_samples) = pairs
    (first_low, first_high), (second_low, second_high) = (
        wilson_interval(share, samples, confidence_level=confidence_level)
        for share, samples in pairs
    )
    # The correlation is that of sums over clusters, which vary together.
    sums = [counts * (each - share) for each, (share, _) in zip((a, b), pairs, strict=True)]
    if clusters is not None:
        sums = [np.bincount(clusters, each).astype(np.float64) for each in sums]
    one, other = sums
    spread = math.sqrt(float(one @ one) * float(other @ other))
    # A share of 0 or 1 has no spread, so nothing can be correlated with it.
    correlation = float(one @ other) / spread if spread else 0.0
    # It is less sure where it is positive: it is taken half a pair smaller, but not below 0.
    if correlation > 0:
        deviation = math.sqrt(first * (1.0 - first) * second * (1.0 - second))
        half = 0.5 / min(first_samples, second_samples)
        correlation = max(correlation - half / deviation, 0.0)

    def combined_error(one: float, other: float) -> float:
        # With a correlation of 1 and equal lengths the square is 0, and may round to below 0.
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    difference = first - second
    return (
        difference - combined_error(first - first_low, second_high - second),
        difference + combined_error(first_high - first, second - second_low),
    )


_NORMAL_VARIANCE = 400.0
"""Variance of a count from which on its distribution is the normal one with a correction for skewness."""
_MAX_BATCH = 2**16
"""Probabilities of numbers of events that are computed at once, as many as stay in the cache of a processor."""
_CELLS = 512
"""Probabilities are put together in so many cells before their counts are added up."""


def poisson_binomial_p_value(probs: NDArray[np.float64], events: int) -> float:
    """Return the two-sided mid-p-value of a number of events, given each event's probability.

    The number is a sum of independent indicators. Twice the smaller tail, in which the observed number counts half.

    Args:
        probs: Probability of each event ``(N,)``.
        events: Number that occurred, at most ``N``.

    Note:
        Up to a variance of 400 the distribution is convolved from cells of nearly equal probabilities, beyond it is
        the normal one with a correction for skewness; both miss the tail by less than 1e-4 at p-values above 1e-3.

    Example:
        >>> round(poisson_binomial_p_value(np.full(10, 0.5), 1), 4)
        0.0117

    Source:
        Lancaster, "Significance tests in discrete distributions", JASA 56 (1961), for the mid-p-value.
    """
    return float(poisson_binomial_p_values(probs, np.array([len(probs)]), np.array([events]))[0])


def poisson_binomial_p_values(probs: FloatArray, sizes: IntArray, events: IntArray) -> FloatArray:
    """Return :func:`poisson_binomial_p_value` of each group ``(G,)``; ``probs (N,)`` hold the groups one after another.

    Args:
        probs: Probability of each event ``(N,)``.
        sizes: How many of them each group has ``(G,)``, at least 1.
        events: Number that occurred in each group ``(G,)``.
    """
    start = np.concatenate(([0], sizes.cumsum()[:-1]))
    spread = probs * (1.0 - probs)
    mean, variance, third = (
        np.add.reduceat(each, start) for each in (probs, spread, spread * (1.0 - 2.0 * probs))
    )
    has_spread = variance > 0.0
    deviation = np.sqrt(np.where(has_spread, variance, 1.0))
    z = (events - mean) / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    is_small = variance <= _NORMAL_VARIANCE
    below = np.zeros(len(sizes))
    below[~is_small] = [NormalDist().cdf(each) for each in z[~is_small].tolist()]
    below += third / deviation**3 * (1.0 - z * z) * density / 6.0
    below = np.where(has_spread, below, np.where(events == np.rint(mean), 0.5, 0.0))
    # Groups of nearly as many events are computed together, up to these events: more do not count.
    max_events = np.minimum(events, np.ceil(mean + 40.0 + 12.0 * deviation).astype(np.int64))
    cells = 2 ** np.ceil(np.log2(np.minimum(sizes, _CELLS))).astype(np.int64)
    numbers = np.maximum(cells * (2 + np.minimum(sizes // _CELLS, max_events)), max_events + 1)
    order = np.flatnonzero(has_spread & is_small)
    order = order[np.lexsort((max_events[order], cells[order]))]
    while len(order):
        last = order[-1]
        batch = order[-max(1, _MAX_BATCH // int(numbers[last])) :]
        batch = batch[cells[batch] == cells[last]]
        order = order[: -len(batch)]
        numbers_and_shares = _merge_probs(probs, start[batch], sizes[batch], int(cells[last]))
        pmf = _count_distributions(*numbers_and_shares, int(max_events[batch].max()))
        column = np.arange(len(batch))
        row = np.minimum(events[batch], len(pmf) - 1)
        half = np.where(events[batch] < len(pmf), 0.5 * pmf[row, column], 0.0)
        below[batch] = pmf.cumsum(axis=0)[row, column] - half
    return np.clip(2.0 * np.minimum(below, 1.0 - below), 0.0, 1.0)


def _merge_probs(
    probs: FloatArray, start: IntArray, sizes: IntArray, cells: int
) -> tuple[FloatArray, FloatArray]:
    """Return sizes and mean probabilities of cells of similar probabilities in each group ``(cells, G)``."""
    row = np.arange(cells)[:, None]
    number = (sizes // _CELLS) + (row < sizes % _CELLS)
    if sizes.max() <= _CELLS:
        inside = row < sizes
        return inside.astype(np.float64), np.where(
            inside, probs[np.where(inside, start + row, 0)], 0.0
        )
    first = number.cumsum(axis=0) - number
    share = np.zeros(number.shape)
    for group, (begin, size) in enumerate(zip(start.tolist(), sizes.tolist(), strict=True)):
        filled = slice(min(size, _CELLS)), group
        share[filled] = (
            np.add.reduceat(np.sort(probs[begin:][:size]), first[filled]) / number[filled]
        )
    return number.astype(np.float64), share


def _count_distributions(trials: FloatArray, share: FloatArray, max_events: int) -> FloatArray:
    """Return the probability of 0 to ``max_events`` events in each group ``(most + 1, G)``.

    Args:
        trials: Events of a cell of each group ``(cells, G)``; as many cells as a power of two.
        share: Their probability ``(cells, G)``.
        max_events: Larger numbers are left out.
    """
    # Cells are put together two by two.
    pmf = _binomial_probs(trials, share, min(int(trials.max()), max_events))
    while pmf.shape[1] > 1:
        first, second = np.split(pmf, 2, axis=1)
        pmf = np.zeros((min(2 * len(pmf) - 1, max_events + 1), *first.shape[1:]))
        if first[0].size < len(first):
            for place in np.ndindex(first[0].shape):
                pmf[:, *place] = np.convolve(first[:, *place], second[:, *place])[: len(pmf)]
            continue
        for events, chance in enumerate(first):
            pmf[events : events + len(second)] += chance * second[: len(pmf) - events]
    return pmf[:, 0]


def _binomial_probs(trials: FloatArray, share: FloatArray, max_events: int) -> FloatArray:
    """Return binomial probabilities of 0 to ``max_events`` events in ``trials`` trials, along a new first axis."""
    counts = np.arange(max_events + 1.0)[:, None, None]
    rest = trials - counts
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log(np.maximum(rest[:-1], 0.0)) - np.log1p(counts[:-1])
        coefficients = np.concatenate([np.zeros((1, *trials.shape)), ratios.cumsum(axis=0)])
        happen = np.where(counts > 0, counts * np.log(share), 0.0)
        others = np.where(rest > 0, rest * np.log1p(-share), 0.0)
        chance = np.exp(coefficients + happen + others)
    return np.where(rest >= 0, chance, 0.0)
