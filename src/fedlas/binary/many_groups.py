"""Events, slope and calibration in the large of many groups at once: passes over all samples, not one for each group.

Formulas and results are those of :mod:`fedlas.binary.recalibration`, for samples that are independent and count once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas.binary.positive import Floats, Integers, Positive
from fedlas.stats.estimates import Estimate
from fedlas.stats.intervals import z_score
from fedlas.stats.proportion import clopper_pearsons, poisson_binomial_ps

_STEPS = 100
_ROUNDING = 1e-14
_SINGULAR = 2.0 * np.finfo(np.float64).eps

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Grouped:
    """Samples in the order of their groups, of which each has one or more."""

    # Log-odds and outcomes `(N,)` of the samples, and how many samples each group has `(G,)`.
    log_odds: Floats
    outcome: Floats
    size: Integers

    @classmethod
    def of(cls, data: Positive, number: Integers) -> Grouped:
        """Return the samples of groups with these numbers ``(N,)``, in the order of the numbers."""
        order = np.argsort(number, kind="stable")
        size = np.bincount(number)
        return cls(data.log_odds[order], data.outcome[order], size[size > 0])

    def only(self, chosen: Mask) -> Grouped:
        """Return the chosen groups ``(G,)``."""
        rows = self.spread(chosen)
        return Grouped(self.log_odds[rows], self.outcome[rows], self.size[chosen])

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each sample's group ``(N,)`` from those of the groups ``(G,)``."""
        return np.repeat(values, self.size)

    def totals(self, values: Floats, function: np.ufunc = np.add) -> Floats:
        """Return the sum of ``values (N,)`` in each group ``(G,)``."""
        start = np.concatenate(([0], self.size.cumsum()[:-1]))
        return np.asarray(function.reduceat(values, start), dtype=np.float64)

    def log_likelihood(self, log_odds: Floats) -> Floats:
        """Return that of these log-odds ``(N,)`` in each group ``(G,)``."""
        return -self.totals(np.logaddexp(0.0, np.where(self.outcome > 0, -log_odds, log_odds)))


@dataclass(frozen=True)
class GroupRow:
    """Samples and events of a group, and its estimates; None where it has none."""

    num_samples: int
    events: int
    expected: float
    observed: float
    ratio: Estimate
    slope: Estimate | None
    shift: Estimate | None


def measured_groups(data: Grouped, confidence_level: float) -> Iterator[GroupRow]:
    """Yield a row for each group, in their order."""
    probability = _sigmoid(data.log_odds)
    size = data.size
    events = data.totals(data.outcome)
    expected = data.totals(probability) / size
    counts = events.astype(np.int64)
    low, high = clopper_pearsons(counts, size, confidence_level=confidence_level)
    p_values = poisson_binomial_ps(probability, size, counts)

    # Lines only where both outcomes occur and no threshold separates them.
    chosen = _overlap(data) & (expected > 0.0)
    lines = _estimates(data, chosen, confidence_level)
    mean = np.maximum(expected, 1e-300)
    columns = (
        size.tolist(),
        counts.tolist(),
        expected.tolist(),
        (events / size).tolist(),
        (events / size / mean).tolist(),
        (low / mean).tolist(),
        (high / mean).tolist(),
        p_values.tolist(),
    )
    for row, has_line in zip(zip(*columns, strict=True), chosen.tolist(), strict=True):
        samples, happened, mean_probability, share, ratio, low_end, high_end, p = row
        slope, shift = next(lines) if has_line else (None, None)
        estimate = Estimate(
            ratio,
            low_end,
            high_end,
            p=p,
            confidence_level=confidence_level,
            test="Poisson binomial",
        )
        yield GroupRow(samples, happened, mean_probability, share, estimate, slope, shift)


def _overlap(data: Grouped) -> Mask:
    """Return the groups ``(G,)`` in which the log-odds of both outcomes overlap."""
    happened = data.outcome > 0
    ends = [
        data.totals(np.where(side, data.log_odds, -sign * np.inf), function)
        for side in (happened, ~happened)
        for sign, function in ((1.0, np.maximum), (-1.0, np.minimum))
    ]
    most_yes, least_yes, most_no, least_no = ends
    both = np.isfinite(most_yes) & np.isfinite(most_no)
    return both & (most_no > least_yes) & (most_yes > least_no)


def _estimates(
    data: Grouped, chosen: Mask, confidence_level: float
) -> Iterator[tuple[Estimate | None, Estimate | None]]:
    """Yield slope and calibration in the large of the chosen groups, in their order."""
    if not chosen.any():
        return
    groups = data.only(chosen)
    reach = z_score(confidence_level)
    values = [each.tolist() for pair in (_slopes(groups), _shifts(groups)) for each in pair]
    for slope, slope_error, shift, shift_error in zip(*values, strict=True):
        yield (
            _wald(slope, slope_error, 1.0, reach, confidence_level),
            _wald(shift, shift_error, 0.0, reach, confidence_level),
        )


def _wald(
    value: float, error: float, ideal: float, reach: float, confidence_level: float
) -> Estimate | None:
    if not 0.0 < error < math.inf:
        return None
    p = math.erfc(abs((value - ideal) / error) / math.sqrt(2.0))
    ends = (value - reach * error, value + reach * error)
    return Estimate(value, *ends, p=p, confidence_level=confidence_level, test="Wald")


def _slopes(groups: Grouped) -> tuple[Floats, Floats]:
    """Return the slopes ``(G,)`` and their standard errors, by Newton's method."""
    size = groups.size
    center = groups.totals(groups.log_odds) / size
    away = groups.log_odds - groups.spread(center)
    unit = np.sqrt(groups.totals(away**2) / size)
    samples = Grouped(away / groups.spread(unit), groups.outcome, size)
    line = np.zeros((2, len(size)))
    variance = np.zeros(len(size))
    value = samples.log_likelihood(0.0 * away)
    active = np.arange(len(size))
    for _ in range(_STEPS):
        step, rise, variance[active] = _newton_step(samples, line[:, active])
        # As in `fit_logistic`: below rounding of the likelihood a comparison says nothing.
        rounding = _ROUNDING * np.abs(value)
        is_last = rise <= rounding
        share = np.ones(len(active))
        while True:
            new = samples.log_likelihood(_at(samples, line[:, active] + share * step))
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
        samples = samples.only(going)
    return line[0] / unit, np.sqrt(variance) / unit


def _newton_step(samples: Grouped, line: Floats) -> tuple[Floats, Floats, Floats]:
    """Return Newton's step ``(2, G)``, gradient times step, and the variance of the slope by this curvature."""
    x = samples.log_odds
    probability = _sigmoid(_at(samples, line))
    curvature = probability * (1.0 - probability)
    gap = samples.outcome - probability
    first, mixed, last, *gradient = (
        samples.totals(values)
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
    variance = np.where(regular, inverse[0], np.inf)
    return step, step[0] * gradient[0] + step[1] * gradient[1], variance


def _at(samples: Grouped, line: Floats) -> Floats:
    """Return the log-odds ``(N,)`` of a line ``(2, G)`` in each group."""
    return np.asarray(samples.spread(line[0]) * samples.log_odds + samples.spread(line[1]))


def _shifts(groups: Grouped) -> tuple[Floats, Floats]:
    """Return calibration in the large ``(G,)`` and its standard error."""
    size = groups.size
    prevalence = groups.totals(groups.outcome) / size
    target = np.log(prevalence) - np.log1p(-prevalence)
    low = target - groups.totals(groups.log_odds, np.maximum)
    high = target - groups.totals(groups.log_odds, np.minimum)
    shift = 0.5 * (low + high)
    active = np.arange(len(size))
    samples = groups
    for _ in range(_STEPS):
        at = shift[active]
        probability = _sigmoid(samples.log_odds + samples.spread(at))
        information = samples.totals(probability * (1.0 - probability)) / samples.size
        gap = prevalence[active] - samples.totals(probability) / samples.size
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
        samples = samples.only(going)
    probability = _sigmoid(groups.log_odds + groups.spread(shift))
    information = groups.totals(probability * (1.0 - probability))
    squares = groups.totals((groups.outcome - probability) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):  # without curvature there is no error
        return shift, np.where(information > 0, np.sqrt(squares) / information, np.inf)


def _sigmoid(log_odds: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * log_odds)))
