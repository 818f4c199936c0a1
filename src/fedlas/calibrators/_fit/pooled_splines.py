"""Logistic curves of many labels at once, each drawn from a normal distribution that is estimated too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedlas.calibrators._fit.partial_pooling import maximize_posteriors
from fedlas.calibrators._fit.state import doubles

IDENTITY = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
"""Coefficients of :func:`curve_basis` that change nothing."""
_RIDGE = 0.01
"""Ridge of the first common curve toward the identity."""
_FIRST_VARIANCE = 0.25
_LEAST_VARIANCE = 1e-6
_QUANTILES = (0.15, 0.5, 0.85)
_WIDTH = 0.25
"""Width of a bend, in standard deviations of the log-odds of positives."""
_MOST_STEPS = 50
_CONVERGED = 1e-4
"""Largest change of the covariance at which rounds end."""


@dataclass(frozen=True, eq=False)
class PooledFit:
    """Coefficients of each label's curve and the normal distribution that they are drawn from.

    Attributes:
        curves: ``(..., L, P)``.
        mean: ``(..., P)``.
        covariance: ``(..., P, P)``.
        converged: Whether the covariance stood still before the rounds ended.
    """

    curves: Tensor
    mean: Tensor
    covariance: Tensor
    converged: bool = True


def fit_pooled_splines(
    basis: Tensor,
    labels: Tensor,
    weights: Tensor,
    identity: Tensor,
    *,
    start: PooledFit | None = None,
    most_rounds: int = 12,
) -> PooledFit:
    """Return the curves with the highest posterior, by expectation maximization over their distribution.

    A round finds the maximum of likelihood and prior of each label by Newton's method, all labels at once, and then
    sets the mean to that of the curves, the covariance to theirs and the mean posterior covariance.

    Args:
        basis: Terms of each label's curve ``(L, P, N)``; ``(1, P, N)`` if all labels share them.
        labels: 0 or 1, ``(L, N)``.
        weights: Of each sample and label ``(L, N)`` or ``(1, N)``; 0 where a label is unknown.
        identity: Coefficients that change nothing ``(P,)``, where the common curve starts.
        start: The fit of more samples, to start from; None: one curve that all labels share.
        most_rounds: Most rounds.

    Source:
        Empirical Bayes for exchangeable regressions: Lindley and Smith 1972; with Laplace's approximation of the
        posterior, Breslow and Clayton 1993.
    """
    size = len(identity)
    one = torch.eye(size, dtype=torch.float64, device="cpu")
    if start is None:
        mean = _common_curve(basis, labels, weights, identity)
        covariance = _FIRST_VARIANCE * one
        curves = mean.expand(len(labels), size)
    else:
        curves, mean, covariance = start.curves, start.mean, start.covariance
    data = (basis.expand(len(labels), -1, -1), labels, weights.expand_as(labels))
    converged = False
    for _ in range(most_rounds):
        precision = torch.linalg.inv(covariance).expand(len(curves), -1, -1)
        curves, hessian, *_ = maximize_posteriors(data, curves, mean, precision, _MOST_STEPS)
        posterior = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        mean = curves.mean(dim=0)
        away = curves - mean
        after = away.T @ away / len(curves) + posterior.mean(dim=0) + _LEAST_VARIANCE * one
        converged = float((after - covariance).abs().max()) < _CONVERGED
        covariance = after
        if converged:
            break
    return PooledFit(curves, mean, covariance, converged)


def stable_softplus(values: Tensor) -> Tensor:
    """Return ``log(1 + e^x)``; that of torch has no float64 in ONNX Runtime."""
    return values.clamp(min=0) + torch.log1p(torch.exp(-values.abs()))


def _common_curve(basis: Tensor, labels: Tensor, weights: Tensor, identity: Tensor) -> Tensor:
    """Return the coefficients of the one curve of all labels ``(P,)``."""
    size = len(identity)
    flat = basis.expand(len(labels), -1, -1).movedim(1, 0).reshape(1, size, -1)
    count = weights.expand_as(labels)
    precision = _RIDGE * torch.eye(size, dtype=torch.float64, device="cpu")
    data = (flat, labels.reshape(1, -1), count.reshape(1, -1))
    curve, *_ = maximize_posteriors(data, identity[None], identity, precision[None], _MOST_STEPS)
    return curve[0]


def curve_basis(log_p: Tensor, rest: Tensor, knots: Tensor, width: Tensor) -> Tensor:
    """Return the terms of a curve: both logarithms, 1, and a bend at each knot, in a new second last dimension.

    Args:
        log_p: Logarithms of probabilities ``(..., N)``.
        rest: Logarithms of 1 minus these ``(..., N)``.
        knots: Log-odds at which the curve bends ``(3,)``.
        width: Log-odds over which it bends ``()``.
    """
    odds = log_p - rest
    bends = [width * stable_softplus((odds - knot) / width) for knot in knots]
    return torch.stack([log_p, -rest, torch.ones_like(odds), *bends], dim=-2)


def curve_knots(odds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the knots ``(3,)`` and the width ``()`` of bends, from the log-odds of all positives ``(M,)``."""
    ordered, order = odds.sort()
    share = weights[order].cumsum(0) / weights.sum()
    index = torch.searchsorted(share, doubles(_QUANTILES)).clamp(max=len(odds) - 1)
    mean = weights @ odds / weights.sum()
    deviation = (weights @ (odds - mean).square() / weights.sum()).sqrt()
    return ordered[index], _WIDTH * deviation.clamp(min=1e-3)
