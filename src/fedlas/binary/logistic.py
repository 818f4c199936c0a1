"""Logistic regressions of the outcomes, and shifts of log-odds, in many groups at once, with errors and influences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.ops import sigmoid
from fedlas.binary.grouped_samples import GroupedSamples

if TYPE_CHECKING:
    from fedlas._core.types import BoolArray, FloatArray

_STEPS = 100
_ROUNDING = 1e-14
"""Relative error of a log-likelihood or a mean probability, sums of many terms."""
_SMALL_MOVE = 1e-5
"""Change of the log-odds by a Newton step after which the next one changes them by its square."""
_SINGULAR = 2.0 * np.finfo(np.float64).eps
"""Smallest over largest eigenvalue of the information below which it is singular, as far as doubles tell."""


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Logistic regression of ``k`` coefficients in each of ``G`` groups, with its uncertainty."""

    samples: GroupedSamples
    # Coefficients `(G, k)`, and whether these samples determine them `(G,)`.
    coefficients: FloatArray
    exists: BoolArray
    log_likelihood: FloatArray
    # Probability by the fit `(N,)`, and how much each sample's gap to it moves each coefficient `(k, N)`.
    probability: FloatArray
    factors: FloatArray
    # Covariance by the curvature of the likelihood `(G, k, k)`.
    model_covariance: FloatArray

    @cached_property
    def influence(self) -> FloatArray:
        """How much each sample moves each coefficient ``(k, N)``, before its weight."""
        return self.factors * (self.samples.outcome - self.probability)

    @cached_property
    def covariances(self) -> list[FloatArray]:
        """Covariances of the coefficients ``(G, k, k)``, see :meth:`GroupedSamples.covariances`."""
        if self.samples.is_iid:
            return [self.model_covariance]
        return self.samples.covariances(self.factors, self.probability)

    @property
    def degrees(self) -> FloatArray:
        """Degrees of freedom of each coefficient's variance ``(G, k)``."""
        return np.stack([self.samples.degrees(row) for row in self.influence], axis=1)

    @property
    def joint_degrees(self) -> FloatArray:
        """Degrees of freedom of the covariance ``(G,)``."""
        return self.samples.degrees(self.influence)

    def errors(self, rows: FloatArray) -> FloatArray:
        """Return standard errors ``(G, R)`` of the linear combinations ``rows (R, k)`` of the coefficients."""
        variances = [np.einsum("ri,gij,rj->gr", rows, each, rows) for each in self.covariances]
        # A group of one cluster has NaN.
        return np.asarray(np.sqrt(np.max(variances, axis=0)))


def fit_logistic(
    samples: GroupedSamples,
    columns: FloatArray,
    back: FloatArray | None = None,
    start: FloatArray | None = None,
) -> LogisticFit:
    """Fit a logistic regression of the outcomes on ``columns (k, N)`` in each group.

    Args:
        samples: The groups.
        columns: Of nearly the same size, which the solution of the normal equations takes for granted.
        back: Maps the coefficients of ``columns`` to those that are returned ``(G, k, k)``.
        start: Coefficients to start from ``(G, k)``, where these fit better than zeros.
    """
    zeros = np.zeros((len(samples.size), len(columns)))
    point, converged = _maximize_likelihood(samples, columns, zeros if start is None else start)
    if start is not None and not converged.all():
        # From zeros no step goes far beyond the maximum, also where rounding hides whether the likelihood falls.
        lost = ~converged
        columns_lost = columns[:, np.repeat(lost, samples.size)]
        point[lost], converged[lost] = _maximize_likelihood(
            samples.select(lost), columns_lost, zeros[lost]
        )
    at = samples.combine(columns, point)
    probability = sigmoid(at)
    spread = samples.weigh(probability * (1.0 - probability))
    information = samples.products(columns, spread)
    ends = np.linalg.eigvalsh(information)[:, [0, -1]]
    exists = converged & (ends[:, 0] > _SINGULAR * ends[:, 1])
    unit = np.eye(len(columns))
    inverse = np.linalg.inv(np.where(exists[:, None, None], information, unit))
    back = unit[None] if back is None else back
    rows = back @ inverse
    return LogisticFit(
        samples,
        (back @ point[..., None])[..., 0],
        exists,
        samples.log_likelihood(at),
        probability,
        np.stack([samples.combine(columns, rows[:, row]) for row in range(len(columns))]),
        rows @ np.swapaxes(back, 1, 2),
    )


def _maximize_likelihood(
    samples: GroupedSamples, columns: FloatArray, start: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Return the coefficients ``(G, k)`` of highest likelihood, and whether Newton's method found them ``(G,)``."""
    samples = replace(samples, clusters=None)
    at = samples.combine(columns, start)
    value, chance = samples.log_likelihood(at), samples.log_likelihood(np.zeros(len(at)))
    is_better = value > chance
    point = np.where(is_better[:, None], start, 0.0)
    at = np.where(samples.broadcast(is_better), at, 0.0)
    value = np.where(is_better, value, chance)
    converged = np.zeros(len(value), dtype=np.bool_)
    active = np.arange(len(value))
    for _ in range(_STEPS):
        step, rise = _newton_step(samples, columns, at)
        move = samples.combine(columns, step)
        # The likelihood rises by half of gradient times step. Where that is less than rounding of its sum, a comparison
        # says nothing: the step is taken whole.
        rounding = _ROUNDING * np.abs(value)
        is_flat = rise <= rounding
        # Elsewhere a full step may pass the maximum far from it: it is halved until the likelihood does not fall.
        share = np.ones(len(active))
        while True:
            ahead = at + samples.broadcast(share) * move
            new = samples.log_likelihood(ahead)
            falls = (new < value - rounding) & ~is_flat
            if not falls.any():
                break
            share[falls] /= 2.0
        point[active] += share[:, None] * step
        at, value = ahead, new
        if not is_flat.any():
            continue
        # Scores of hardly any weight change the likelihood by less than its rounding long before they are fitted.
        done = is_flat & (samples.sum_by_group(np.abs(move), np.maximum) <= _SMALL_MOVE)
        converged[active] = done
        active = active[~done]
        if not len(active):
            break
        if done.any():
            rows = np.repeat(~done, samples.size)
            columns, at, value = columns[:, rows], at[rows], value[~done]
            samples = samples.select(~done)
    return point, converged


def _newton_step(
    samples: GroupedSamples, columns: FloatArray, at: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the Newton step ``(G, k)`` from log-odds ``at (N,)``, and gradient times step ``(G,)``."""
    probability = sigmoid(at)
    information = samples.products(columns, samples.weigh(probability * (1.0 - probability)))
    gradient = samples.dot(columns, samples.weigh(samples.outcome - probability))
    # A singular curvature gets a step that is short where it says nothing, and no other is changed by it.
    diagonal = np.einsum("gii->gi", information)
    diagonal += _SINGULAR * diagonal.sum(axis=1, keepdims=True) + 1e-300
    step = np.asarray(np.linalg.solve(information, gradient[..., None])[..., 0], dtype=np.float64)
    return step, (gradient * step).sum(axis=1)


@dataclass(frozen=True, eq=False)
class Shifts:
    """Calibration in the large of each group ``(G,)``, with standard errors and their degrees of freedom."""

    value: FloatArray
    error: FloatArray
    degrees: FloatArray
    # How much each sample moves it `(N,)`, before its weight, over the samples of its group.
    influence: FloatArray


def fit_shifts(samples: GroupedSamples) -> Shifts:
    """Fit calibration in the large of each group, in which both outcomes must occur."""
    prevalence = samples.mean(samples.outcome)
    target = np.log(prevalence) - np.log1p(-prevalence)
    low = target - samples.sum_by_group(samples.log_odds, np.maximum)
    high = target - samples.sum_by_group(samples.log_odds, np.minimum)
    # The mean probability rises with the shift. Newton's step is taken where it stays between shifts that are too low
    # and too high, and their middle elsewhere, as for logits of any size.
    shift = 0.5 * (low + high)
    active = np.arange(len(shift))
    some = replace(samples, clusters=None)
    for _ in range(_STEPS):
        at = shift[active]
        probability = sigmoid(some.log_odds + some.broadcast(at))
        information = some.mean(probability * (1.0 - probability))
        gap = prevalence[active] - some.mean(probability)
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
        some = some.select(going)
    probability = sigmoid(samples.log_odds + samples.broadcast(shift))
    information = samples.mean(probability * (1.0 - probability))
    gaps = samples.outcome - probability
    # Where the slope is not 1 the outcomes vary otherwise than the shifted probabilities say: the sandwich estimate
    # takes their own squares, and holds for any slope.
    variance = np.max(samples.covariances(np.ones(len(gaps)), probability), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # without curvature there is no error
        error = np.where(information > 0, np.sqrt(variance) / samples.size / information, np.inf)
        influence = gaps / samples.broadcast(information)
    return Shifts(shift, error, samples.degrees(gaps), influence)
