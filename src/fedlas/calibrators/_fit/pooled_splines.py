"""Empirical Bayes fit of logistic spline curves of many labels with a common normal distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedlas.calibrators._fit.buffers import float64_tensor

IDENTITY_CURVE = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
"""Coefficients of :func:`curve_basis` that change nothing."""
_RIDGE = 0.01
"""Ridge of the common starting curve toward the identity."""
_FIRST_VARIANCE = 0.25
_MIN_VARIANCE = 1e-6
_QUANTILES = (0.15, 0.5, 0.85)
_WIDTH = 0.25
"""Width of a bend, in standard deviations of the log-odds of positives."""
_MAX_STEPS = 50
_TOLERANCE = 1e-4
"""Largest change of the covariance at which rounds end."""


@dataclass(frozen=True, eq=False)
class PooledFit:
    """Fitted curves of labels, and the normal distribution that they are drawn from.

    Attributes:
        curves: ``(..., L, P)``.
        mean: ``(..., P)``.
        covariance: ``(..., P, P)``.
        converged: Whether the covariance converged.
    """

    curves: Tensor
    mean: Tensor
    covariance: Tensor
    converged: bool = True


def fit_pooled_splines(
    basis: Tensor,
    labels: Tensor,
    weights: Tensor,
    identity_curve: Tensor,
    *,
    start: PooledFit | None = None,
    most_rounds: int = 12,
) -> PooledFit:
    """Fit the curves by empirical Bayes: posterior modes, and their distribution by expectation maximization.

    Each round finds the posterior modes of all labels by Newton's method. It then sets the mean to the mean of the
    curves, and the covariance to the covariance of the curves plus the mean posterior covariance.

    Args:
        basis: Terms of each label's curve ``(L, P, N)``; ``(1, P, N)`` if all labels share them.
        labels: 0 or 1, ``(L, N)``.
        weights: Weight of each sample and label ``(L, N)`` or ``(1, N)``; 0 where a label is unknown.
        identity_curve: Coefficients of the identity ``(P,)``, where the common curve starts.
        start: A fit to more samples as a warm start; None: start from a common curve of all labels.
        most_rounds: Most rounds.

    Source:
        Empirical Bayes for exchangeable regressions: Lindley and Smith 1972; with Laplace's approximation of the
        posterior, Breslow and Clayton 1993.
    """
    from fedlas.calibrators._fit.partial_pooling import maximize_posteriors

    size = len(identity_curve)
    one = torch.eye(size, dtype=torch.float64, device="cpu")
    if start is None:
        mean = _common_curve(basis, labels, weights, identity_curve)
        covariance = _FIRST_VARIANCE * one
        curves = mean.expand(len(labels), size)
    else:
        curves, mean, covariance = start.curves, start.mean, start.covariance
    data = (basis.expand(len(labels), -1, -1), labels, weights.expand_as(labels))
    converged = False
    for _ in range(most_rounds):
        precision = torch.linalg.inv(covariance).expand(len(curves), -1, -1)
        curves, hessian, *_ = maximize_posteriors(data, curves, mean, precision, _MAX_STEPS)
        posterior = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        mean = curves.mean(dim=0)
        centered = curves - mean
        after = centered.T @ centered / len(curves) + posterior.mean(dim=0) + _MIN_VARIANCE * one
        converged = float((after - covariance).abs().max()) < _TOLERANCE
        covariance = after
        if converged:
            break
    return PooledFit(curves, mean, covariance, converged)


def stable_softplus(values: Tensor) -> Tensor:
    """Return ``log(1 + e^x)``, in operations that ONNX Runtime supports in float64."""
    return values.clamp(min=0) + torch.log1p(torch.exp(-values.abs()))


def _common_curve(basis: Tensor, labels: Tensor, weights: Tensor, identity_curve: Tensor) -> Tensor:
    """Return the coefficients ``(P,)`` of one curve fitted to all labels."""
    from fedlas.calibrators._fit.partial_pooling import maximize_posteriors

    size = len(identity_curve)
    flat = basis.expand(len(labels), -1, -1).movedim(1, 0).reshape(1, size, -1)
    count = weights.expand_as(labels)
    precision = _RIDGE * torch.eye(size, dtype=torch.float64, device="cpu")
    data = (flat, labels.reshape(1, -1), count.reshape(1, -1))
    curve, *_ = maximize_posteriors(
        data, identity_curve[None], identity_curve, precision[None], _MAX_STEPS
    )
    return curve[0]


def curve_basis(log_p: Tensor, log_rest: Tensor, knots: Tensor, width: Tensor) -> Tensor:
    """Return curve terms ``log p``, ``-log(1 - p)``, 1 and a bend per knot, stacked in the second last dimension.

    Args:
        log_p: Logarithms of probabilities ``(..., N)``.
        log_rest: Logarithms of one minus the probabilities ``(..., N)``.
        knots: Log-odds at which the curve bends ``(3,)``.
        width: Log-odds over which it bends ``()``.
    """
    odds = log_p - log_rest
    bends = [width * stable_softplus((odds - knot) / width) for knot in knots]
    return torch.stack([log_p, -log_rest, torch.ones_like(odds), *bends], dim=-2)


def curve_knots(odds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the knots ``(3,)`` and the width ``()`` of bends, from the log-odds of all positives ``(M,)``."""
    ordered, order = odds.sort()
    share = weights[order].cumsum(0) / weights.sum()
    index = torch.searchsorted(share, float64_tensor(_QUANTILES)).clamp(max=len(odds) - 1)
    mean = weights @ odds / weights.sum()
    deviation = (weights @ (odds - mean).square() / weights.sum()).sqrt()
    return ordered[index], _WIDTH * deviation.clamp(min=1e-3)
