"""Events, calibration slope and calibration in the large of many groups at once, vectorized over samples.

Formulas and results are those of :mod:`fedlas.binary.recalibration`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas.binary.positive import EventSums, Positive
from fedlas.resample.clusters import clustered_sum_variance
from fedlas.resample.effective import effective_sample_size_by_group
from fedlas.stats.degrees import critical_t_values, group_degrees_of_freedom, two_sided_p_values
from fedlas.stats.estimates import Estimate
from fedlas.stats.proportion import clopper_pearson_intervals, poisson_binomial_p_values

if TYPE_CHECKING:
    from fedlas._core.types import BoolArray, FloatArray, IntArray

_STEPS = 100
_ROUNDING = 1e-14
_SINGULAR = 2.0 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class GroupedSamples(EventSums):
    """Samples sorted by group; every group has at least one."""

    # Log-odds and outcomes `(N,)` of the samples, and how many samples each group has `(G,)`.
    log_odds: FloatArray
    outcome: FloatArray
    size: IntArray
    # How much each sample counts `(N,)`; averages 1 in each group.
    counts: FloatArray
    # Number of each sample's cluster `(N,)`, of which no group shares one; None if all samples are independent.
    clusters: IntArray | None = None
    is_weighted: bool = False

    @classmethod
    def from_positive(cls, data: Positive, codes: IntArray) -> GroupedSamples:
        """Return the samples sorted by group codes ``(N,)``."""
        order = np.argsort(codes, kind="stable")
        size = np.bincount(codes)
        counts = data.counts[order]
        groups = cls(data.log_odds[order], data.outcome[order], size[size > 0], counts)
        if data.weights is not None:
            counts = counts / groups.broadcast(groups.mean(np.ones(len(counts))))
            groups = replace(groups, counts=counts, is_weighted=True)
        if data.clusters is None:
            return groups
        pair = codes[order] * (data.clusters.max() + 1) + data.clusters[order]
        return replace(groups, clusters=np.unique(pair, return_inverse=True)[1])

    def select(self, chosen: BoolArray) -> GroupedSamples:
        """Return the samples of the chosen groups ``(G,)``."""
        rows = self.broadcast(chosen)
        some = replace(
            self,
            log_odds=self.log_odds[rows],
            outcome=self.outcome[rows],
            size=self.size[chosen],
            counts=self.counts[rows],
        )
        if self.clusters is None:
            return some
        return replace(some, clusters=np.unique(self.clusters[rows], return_inverse=True)[1])

    def mean(self, values: FloatArray) -> FloatArray:
        """Return the weighted mean of ``values (N,)`` in each group ``(G,)``."""
        return self.sum_by_group(self.counts * values) / self.size

    def variance_of_sum(self, terms: FloatArray) -> FloatArray:
        """Return the variance of the weighted sum of ``terms (N,)`` in each group ``(G,)``; NaN for one cluster."""
        sums = self.counts * terms
        if self.clusters is None:
            return self.sum_by_group(sums**2)
        group = self._group_of_clusters(self.clusters)
        squares = np.bincount(group, np.bincount(self.clusters, sums) ** 2)
        return clustered_sum_variance(squares, np.bincount(group))

    def binomial_variance(self, factors: FloatArray, probability: FloatArray) -> FloatArray:
        """Return the variance ``(G,)`` of weighted sums of ``factors (N,)`` times gaps, for independent outcomes."""
        return self.sum_by_group((self.counts * factors) ** 2 * (probability * (1.0 - probability)))

    def effective_samples(self) -> FloatArray:
        """Return the effective number of samples, or clusters, of each group ``(G,)`` (Kish)."""
        if self.clusters is None:
            return effective_sample_size_by_group(self.counts, self._group)
        weights = np.bincount(self.clusters, self.counts)
        return effective_sample_size_by_group(weights, self._group_of_clusters(self.clusters))

    def degrees(self, terms: FloatArray) -> FloatArray:
        """Return the degrees of freedom ``(G,)`` of each group's variance, see :func:`degrees_of_freedom`."""
        if self.clusters is None:
            return np.full(len(self.size), math.inf)
        squares = (self.counts * terms) ** 2
        shares = squares / self.broadcast(np.maximum(self.sum_by_group(squares), 1e-300))
        group = self._group_of_clusters(self.clusters)
        return group_degrees_of_freedom(np.bincount(self.clusters, shares), group)

    @property
    def _group(self) -> IntArray:
        """Group of each sample ``(N,)``."""
        return self.broadcast(np.arange(len(self.size)))

    def _group_of_clusters(self, clusters: IntArray) -> IntArray:
        """Return the group of each cluster ``(K,)``."""
        group = np.empty(clusters.max() + 1, dtype=np.int64)
        group[clusters] = self._group
        return group

    def broadcast(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each sample's group ``(N,)``, from values of the groups ``(G,)``."""
        return np.repeat(values, self.size)

    def sum_by_group(self, values: FloatArray, function: np.ufunc = np.add) -> FloatArray:
        """Return the sum of ``values (N,)`` in each group ``(G,)``, or another reduction by ``function``."""
        start = np.concatenate(([0], self.size.cumsum()[:-1]))
        return np.asarray(function.reduceat(values, start), dtype=np.float64)

    def log_likelihood(self, log_odds: FloatArray) -> FloatArray:
        """Return the log-likelihood of the outcomes in each group ``(G,)``, given log-odds ``(N,)``."""
        return -self.sum_by_group(self.counts * softplus((1.0 - 2.0 * self.outcome) * log_odds))


@dataclass(frozen=True)
class GroupRow:
    """Sample and event counts of a group, and its estimates; None if undefined."""

    num_samples: int
    events: int
    expected: float
    observed: float
    ratio: Estimate
    slope: Estimate | None
    shift: Estimate | None


def iter_group_rows(
    data: GroupedSamples, confidence_level: float, *, is_iid: bool
) -> Iterator[GroupRow]:
    """Yield the measures of each group in order; ``is_iid``: samples are independent and unweighted."""
    # Small ones to the last digit, unlike by the hyperbolic tangent: where all are small, gaps are nothing else.
    probability = np.exp(-softplus(-data.log_odds))
    size = data.size
    counts = data.sum_by_group(data.outcome).astype(np.int64)
    expected = data.mean(probability)
    observed = data.mean(data.outcome)
    mean = np.maximum(expected, 1e-300)
    if is_iid:
        test = "Poisson binomial"
        ends = clopper_pearson_intervals(counts, size, confidence_level=confidence_level)
        low, high = (end / mean for end in ends)
        p_values = poisson_binomial_p_values(probability, size, counts)
    else:
        test = "Wald"
        low, high = _ratio_intervals(data, probability, observed / mean, confidence_level)
        p_values = _event_count_p_values(data, probability)

    # Lines only where both outcomes occur and no threshold separates them.
    chosen = _outcomes_overlap(data) & (expected > 0.0)
    lines = _recalibration_estimates(data, chosen, confidence_level, is_iid=is_iid)
    ratio = observed / mean
    arrays = (size, counts, expected, observed, ratio, low, high, p_values, chosen)
    for row in zip(*(each.tolist() for each in arrays), strict=True):
        samples, happened, mean_probability, share, value, low_end, high_end, p, has_line = row
        slope, shift = next(lines) if has_line else (None, None)
        is_tested = not math.isnan(p)
        estimate = Estimate(
            value,
            low_end,
            high_end,
            p=p if is_tested else None,
            confidence_level=confidence_level,
            test=test if is_tested else "",
        )
        yield GroupRow(samples, happened, mean_probability, share, estimate, slope, shift)


def _ratio_intervals(
    data: GroupedSamples, probability: FloatArray, ratio: FloatArray, confidence_level: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of log-normal intervals of the O/E ratio ``(G,)``."""
    gaps = data.outcome - data.broadcast(ratio) * probability
    observed = data.mean(data.outcome)
    error, degrees = data.event_sum_error(gaps, probability)
    score = critical_t_values(confidence_level, degrees)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        reach = np.exp(score * error / (observed * data.size))
        # The logarithm of no event has no interval: of as many samples as the weights, or clusters, are worth the share
        # of events is below this end (Clopper and Pearson).
        samples = data.effective_samples()
        end = -np.expm1(np.log((1.0 - confidence_level) / 2.0) / samples) / data.mean(probability)
        high = np.where(observed > 0, ratio * reach, np.where(degrees > 0.0, end, math.nan))
        return np.where(observed > 0, ratio / reach, high * 0.0), high


def _event_count_p_values(data: GroupedSamples, probability: FloatArray) -> FloatArray:
    """Return the p-value of the number of events in each group ``(G,)``; NaN for one cluster."""
    gaps = data.outcome - probability
    mean = data.mean(gaps)
    error, degrees = data.event_sum_error(gaps - data.broadcast(mean), probability)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Without an error every probability is 0 or 1, and so is every outcome what it says, or none is.
        scores = np.where((error == 0.0) & (mean == 0.0), 0.0, mean * data.size / error)
    return two_sided_p_values(scores, degrees)


def _outcomes_overlap(data: GroupedSamples) -> BoolArray:
    """Return whether the log-odds of both outcomes overlap in each group ``(G,)``."""
    happened = data.outcome > 0
    ends = [
        data.sum_by_group(np.where(side, data.log_odds, -sign * np.inf), function)
        for side in (happened, ~happened)
        for sign, function in ((1.0, np.maximum), (-1.0, np.minimum))
    ]
    most_yes, least_yes, most_no, least_no = ends
    both = np.isfinite(most_yes) & np.isfinite(most_no)
    return both & (most_no > least_yes) & (most_yes > least_no)


def _recalibration_estimates(
    data: GroupedSamples, chosen: BoolArray, confidence_level: float, *, is_iid: bool
) -> Iterator[tuple[Estimate | None, Estimate | None]]:
    """Yield slope and calibration in the large of each chosen group."""
    if not chosen.any():
        return
    groups = data.select(chosen)
    yield from zip(
        _wald_estimates(*_fit_slopes(groups, is_iid=is_iid), 1.0, confidence_level),
        _wald_estimates(*_fit_shifts(groups), 0.0, confidence_level),
        strict=True,
    )


def _wald_estimates(
    value: FloatArray, error: FloatArray, degrees: FloatArray, ideal: float, confidence_level: float
) -> Iterator[Estimate | None]:
    """Yield estimates of values ``(G,)`` with Wald tests against ``ideal``; None without a standard error."""
    has_error = (error > 0.0) & (error < math.inf)
    error = np.where(has_error, error, 1.0)
    reach = critical_t_values(confidence_level, degrees) * error
    p_values = two_sided_p_values((value - ideal) / error, degrees)
    arrays = (has_error, value, value - reach, value + reach, p_values)
    for is_measured, number, low, high, p in zip(*(each.tolist() for each in arrays), strict=True):
        estimate = Estimate(number, low, high, p=p, confidence_level=confidence_level, test="Wald")
        yield estimate if is_measured else None


def _fit_slopes(
    groups: GroupedSamples, *, is_iid: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit each group's calibration slope by Newton's method; return slopes, standard errors and degrees ``(G,)``."""
    size = groups.size
    center = groups.sum_by_group(groups.log_odds) / size
    away = groups.log_odds - groups.broadcast(center)
    unit = np.sqrt(groups.sum_by_group(away**2) / size)
    whole = samples = replace(groups, log_odds=away / groups.broadcast(unit), clusters=None)
    line = np.zeros((2, len(size)))
    inverse = np.zeros((2, len(size)))
    value = samples.log_likelihood(0.0 * away)
    active = np.arange(len(size))
    for _ in range(_STEPS):
        step, rise, inverse[:, active] = _newton_step(samples, line[:, active])
        # As in `fit_logistic`: below rounding of the likelihood a comparison says nothing.
        rounding = _ROUNDING * np.abs(value)
        is_last = rise <= rounding
        share = np.ones(len(active))
        while True:
            new = samples.log_likelihood(_line_log_odds(samples, line[:, active] + share * step))
            lower = (new < value - rounding) & ~is_last
            if not lower.any():
                break
            share[lower] /= 2.0
        line[:, active] += share * step
        going = ~is_last
        active = active[going]
        if not len(active):
            break
        value = new[going]
        samples = samples.select(going)
    slope = line[0] / unit
    if is_iid:
        return slope, np.sqrt(inverse[0]) / unit, np.full(len(size), math.inf)
    # How much each sample moves the slope: its score, by the row of the inverse of the curvature.
    probability = _sigmoid(_line_log_odds(whole, line))
    regular = np.isfinite(inverse[0])
    first, mixed = np.where(regular, inverse, 0.0) / unit
    factors = groups.broadcast(first) * whole.log_odds + groups.broadcast(mixed)
    influence = factors * (groups.outcome - probability)
    variance = np.max(groups.covariances(factors, probability), axis=0)
    error = np.where(regular, np.sqrt(variance), math.inf)
    return slope, error, groups.degrees(influence)


def _newton_step(
    samples: GroupedSamples, line: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the Newton step ``(2, G)``, its predicted rise, and the slope's row of the inverse Hessian ``(2, G)``."""
    x = samples.log_odds
    probability = _sigmoid(_line_log_odds(samples, line))
    curvature = samples.counts * probability * (1.0 - probability)
    gap = samples.counts * (samples.outcome - probability)
    first, mixed, last, *gradient = (
        samples.sum_by_group(values)
        for values in (curvature * x * x, curvature * x, curvature, gap * x, gap)
    )
    determinant = first * last - mixed**2
    trace = np.maximum(first + last, 1e-300)
    # The pseudo-inverse of a matrix of rank 1 is itself over its squared trace.
    regular = determinant > _SINGULAR * trace**2
    below = np.where(regular, determinant, trace**2)
    inverse = np.where(regular, [last, -mixed, first], [first, mixed, last]) / below
    step = np.stack(
        [
            inverse[0] * gradient[0] + inverse[1] * gradient[1],
            inverse[1] * gradient[0] + inverse[2] * gradient[1],
        ]
    )
    row = np.where(regular, inverse[:2], np.inf)
    return step, step[0] * gradient[0] + step[1] * gradient[1], row


def _line_log_odds(samples: GroupedSamples, line: FloatArray) -> FloatArray:
    """Return ``slope * log_odds + intercept`` ``(N,)`` with each group's line ``(2, G)``."""
    return np.asarray(samples.broadcast(line[0]) * samples.log_odds + samples.broadcast(line[1]))


def _fit_shifts(groups: GroupedSamples) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit calibration in the large of each group; return shifts, standard errors and degrees ``(G,)``."""
    prevalence = groups.mean(groups.outcome)
    target = np.log(prevalence) - np.log1p(-prevalence)
    low = target - groups.sum_by_group(groups.log_odds, np.maximum)
    high = target - groups.sum_by_group(groups.log_odds, np.minimum)
    shift = 0.5 * (low + high)
    active = np.arange(len(shift))
    samples = replace(groups, clusters=None)
    for _ in range(_STEPS):
        at = shift[active]
        probability = _sigmoid(samples.log_odds + samples.broadcast(at))
        information = samples.mean(probability * (1.0 - probability))
        gap = prevalence[active] - samples.mean(probability)
        low[active] = np.where(gap > 0, at, low[active])
        high[active] = np.where(gap > 0, high[active], at)
        new = at + gap / np.maximum(information, 1e-300)
        inside = (low[active] < new) & (new < high[active])
        new = np.where(inside, new, 0.5 * (low[active] + high[active]))
        going = (new != at) & (np.abs(gap) > _ROUNDING * prevalence[active])
        shift[active[going]] = new[going]
        active = active[going]
        if not len(active):
            break
        samples = samples.select(going)
    probability = _sigmoid(groups.log_odds + groups.broadcast(shift))
    information = groups.size * groups.mean(probability * (1.0 - probability))
    gaps = groups.outcome - probability
    variance = np.max(groups.covariances(np.ones(len(gaps)), probability), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # without curvature there is no error
        error = np.where(information > 0, np.sqrt(variance) / information, np.inf)
    return shift, error, groups.degrees(gaps)


def _sigmoid(log_odds: FloatArray) -> FloatArray:
    # PyTorch computes it, as the softplus, in a tenth of NumPy's time.
    return np.asarray(torch.from_numpy(log_odds).sigmoid())


def softplus(values: FloatArray) -> FloatArray:
    """Return ``log(1 + exp(x))``, accurate for values of any size."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return np.asarray(torch.nn.functional.softplus(tensor, threshold=40.0))
