"""Calibration map of the top label's log-odds, applied after a mixture of many classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor, ones, zeros
from fedlas.calibrators._fit.pooled_splines import stable_softplus
from fedlas.calibrators._fit.state import require_valid
from fedlas.resample.clusters import mean_and_standard_error

_KNOTS = 3
_RIDGE = 3.0
"""Ridge toward unchanged log-odds, in samples."""
_MIN_GAIN = 0.5
"""Gain of held-out likelihood that the map needs, in standard errors."""
_MAX_LOG_ODDS = 30.0
"""Largest log-odds; float64 still represents them below certainty."""
_MAX_STEPS = 30


class TopLabelMap(BufferModule):
    """Spline map of the top label's log-odds; other classes keep their ratios, and the top label stays on top.

    ``s -> s + c + b s + sum_j d_j softplus(s - k_j)``.

    Attributes:
        knots: ``k (K,)``.
        coefficients: ``c``, ``b`` and ``d (2 + K,)``.
    """

    shapes: ClassVar = {"knots": "K", "coefficients": "L"}

    def forward(self, log_probs: Tensor) -> Tensor:
        """Return calibrated log-probabilities ``(n, C)`` for normalized log-probabilities ``(n, C)``."""
        top_two = log_probs.topk(2, dim=1)
        top = top_two.indices[:, :1]
        odds, others = _top_log_odds(log_probs)
        basis = _spline_basis(odds.squeeze(1), self.knots)
        mapped = odds + (basis @ self.coefficients).unsqueeze(1)
        # If the second label would overtake the top one, both become equally probable.
        mapped = torch.maximum(mapped, top_two.values[:, 1:] - others).clamp(
            -_MAX_LOG_ODDS, _MAX_LOG_ODDS
        )
        lifted = log_probs - (stable_softplus(mapped) + others)
        return lifted.scatter(1, top, -stable_softplus(-mapped))

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes."""
        super().check(classes)
        require_valid(
            len(self.coefficients) == 2 + len(self.knots),
            "there must be two coefficients more than knots",
        )


def _top_log_odds(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-odds of the top label, and the log-probability of all other labels, both ``(n, 1)``."""
    top, index = log_probs.max(dim=1, keepdim=True)
    others = log_probs.scatter(1, index, -torch.inf).logsumexp(dim=1, keepdim=True)
    others = others.clamp(min=-_MAX_LOG_ODDS)
    return (top - others).clamp(-_MAX_LOG_ODDS, _MAX_LOG_ODDS), others


def _spline_basis(odds: Tensor, knots: Tensor) -> Tensor:
    """Return spline terms ``1, s, softplus(s - k_j)`` of log-odds ``s (n,)`` as columns ``(n, 2 + K)``."""
    bends = stable_softplus(odds.unsqueeze(1) - knots)
    return torch.cat([torch.ones_like(bends[:, :1]), odds.unsqueeze(1), bends], dim=1)


def fit_top_label_map(
    log_probs: Tensor, target: Tensor, weights: Tensor, folds: Tensor, clusters: Tensor | None
) -> TopLabelMap | None:
    """Fit the map to held-out log-probabilities ``(n, C)``; None if cross-validation shows no gain.

    Args:
        log_probs: Held-out samples ``(n, C)``.
        target: ``(n,)``.
        weights: ``(n,)``.
        folds: ``(n,)``, whole clusters.
        clusters: ``(n,)``, or None.
    """
    before = log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
    gain = zeros(len(target))
    for fold in folds.unique():
        is_train = folds != fold
        fold_map = _fit_map(log_probs[is_train], target[is_train], weights[is_train])
        after = fold_map(log_probs[~is_train]).gather(1, target[~is_train].unsqueeze(1)).squeeze(1)
        gain[~is_train] = after - before[~is_train]
    mean, error = mean_and_standard_error(gain, weights, clusters)
    return _fit_map(log_probs, target, weights) if mean > _MIN_GAIN * error else None


def _fit_map(log_probs: Tensor, target: Tensor, weights: Tensor) -> TopLabelMap:
    """Fit the map by ridge-penalized logistic regression of "the top label is right", by Newton's method."""
    odds = _top_log_odds(log_probs)[0].squeeze(1)
    right = (log_probs.argmax(dim=1) == target).double()
    knots = _weighted_quartiles(odds, weights)
    basis = _spline_basis(odds, knots)
    total = weights.sum()
    mean = weights @ basis / total
    deviation = (weights @ (basis - mean).square() / total).sqrt().clamp(min=1e-6)
    mean[0] = 0.0
    deviation[0] = 1.0
    standard = (basis - mean) / deviation
    ridge = _RIDGE * ones(len(mean))
    point = zeros(len(mean))
    for _ in range(_MAX_STEPS):
        probs = (odds + standard @ point).sigmoid()
        slope = (weights * (probs - right)) @ standard + ridge * point
        curvature = (standard.T * (weights * probs * (1 - probs))) @ standard + ridge.diag()
        step = torch.linalg.solve(curvature, slope)
        point = point - step
        if float(step.abs().max()) < 1e-10:
            break
    coefficients = point / deviation
    coefficients[0] = coefficients[0] - (coefficients[1:] * mean[1:]).sum()
    return TopLabelMap(knots=knots, coefficients=coefficients)


def _weighted_quartiles(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted quartiles ``(3,)``."""
    ordered, order = values.sort()
    share = weights[order].cumsum(0) / weights.sum()
    cuts = float64_tensor([(number + 1) / (_KNOTS + 1) for number in range(_KNOTS)])
    return ordered[torch.searchsorted(share, cuts).clamp(max=len(values) - 1)]
