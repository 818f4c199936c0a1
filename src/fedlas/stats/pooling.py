"""Partial pooling of group estimates: shrinkage toward their mean by their standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, as_float_array, describe

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

_STEPS = 200


@dataclass(frozen=True, eq=False)
class PooledEstimates:
    """Estimates of groups after partial pooling; arrays ``(G,)``.

    Attributes:
        values: Pooled estimates, between the group's own and the mean.
        errors: Their standard errors, the error of the mean included.
        mean: Mean over groups.
        spread: Standard deviation between groups beyond their errors; 0 if the errors explain all differences.
    """

    values: FloatArray
    errors: FloatArray
    mean: float
    spread: float


def partial_pooling(values: FloatArray, errors: FloatArray) -> PooledEstimates:
    """Pool estimates of groups by a random-effects model, ``value_g ~ N(truth_g, error_g**2)``.

    The truths are ``N(mean, spread**2)`` with a spread that makes the weighted squares of the differences what they are
    expected to be (Paule and Mandel). A group's pooled value is the mean of its own value and the overall one, weighted
    by the inverse variances.

    Args:
        values: Estimates of ``G`` groups ``(G,)``, finite.
        errors: Their standard errors ``(G,)``, above 0.

    Raises:
        InputError: If they are no such numbers.

    Example:
        >>> pooled = partial_pooling(np.array([0.2, 1.0, 1.1, 0.9]), np.array([0.6, 0.1, 0.1, 0.1]))
        >>> pooled.values.round(2).tolist(), round(pooled.spread, 3)
        ([0.98, 0.99, 1.03, 0.96], 0.075)

    Source:
        Paule and Mandel, "Consensus values and weighting factors", Journal of Research of the NBS 87 (1982); Morris,
        "Parametric empirical Bayes inference", JASA 78 (1983), for the pooled values and their errors.
    """
    estimates = as_float_array(values)
    error = as_float_array(errors)
    fits = (
        estimates.ndim == 1
        and estimates.shape == error.shape
        and len(estimates)
        and bool(np.isfinite(estimates).all())
    )
    if not fits or not bool(((error > 0) & np.isfinite(error)).all()):
        raise InputError(
            "values and errors must have shape (G,) and be finite, and errors must be above 0",
            f"{describe(values)} and {describe(errors)}",
            "Leave out groups without a standard error.",
        )
    spread = _paule_mandel_tau(estimates, error)
    weights = 1.0 / (error**2 + spread**2)
    mean = float(weights @ estimates / weights.sum())
    share = spread**2 * weights  # how much of a group's own estimate stays
    pooled = share * estimates + (1.0 - share) * mean
    variance = share * error**2 + (1.0 - share) ** 2 / float(weights.sum())
    return PooledEstimates(pooled, np.sqrt(variance), mean, spread)


def _paule_mandel_tau(values: FloatArray, errors: FloatArray) -> float:
    """Return the between-group standard deviation tau (Paule-Mandel): the tau for which Q equals ``G - 1``."""

    def q_excess(variance: float) -> float:
        weights = 1.0 / (errors**2 + variance)
        mean = weights @ values / weights.sum()
        return float(weights @ (values - mean) ** 2) - (len(values) - 1)

    low = 0.0
    high = max(float(np.ptp(values)) ** 2, 1e-300)
    if q_excess(0.0) <= 0.0:
        return 0.0
    # The squares fall with the variance: bisection ends at the last bit.
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if q_excess(middle) > 0.0:
            low = middle
        else:
            high = middle
    return float(np.sqrt(middle))
