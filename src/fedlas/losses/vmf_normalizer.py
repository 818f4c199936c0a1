"""The normalizer of the von Mises-Fisher distribution, for any dimension and concentration.

Source: NIST Digital Library of Mathematical Functions, 10.41.3 (expansion of I_v for large order v, uniform in its
argument; https://dlmf.nist.gov/10.41) and 10.29.1 (recurrence); Abramowitz & Stegun 9.7.7. The logarithm of the
expansion is taken term by term.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["log_mgf", "log_normalizer", "resultant_rate"]

_LEAST = 20.0  # smallest order for the expansion; its three terms are then within 2e-7 of the logarithm


class _LogMgf(torch.autograd.Function):
    """Elementwise ``log_mgf``, given its slope ``rate / 2``."""

    @staticmethod
    def forward(ctx: Any, square: Tensor, rate: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(rate)
        return _log_mgf(square, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rate,) = ctx.saved_tensors
        return rate * (0.5 * grad), None, None


class _Rate(torch.autograd.Function):
    """Elementwise ``resultant_rate``; its slope is ``q (q' - q) / 2``, ``q'`` the rate two dimensions further up.

    That is the recurrence ``q (D + square q') = 1`` in the Riccati equation of the ratio, without its cancellation.
    """

    @staticmethod
    def forward(ctx: Any, square: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        rate = _rate(square, dim)
        ctx.save_for_backward(square, rate)
        return rate

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        square, rate = ctx.saved_tensors
        return rate * (resultant_rate(square, dim=ctx.dim + 2) - rate) * (0.5 * grad), None


def log_mgf(square: Tensor, *, dim: int, rate: Tensor | None = None) -> Tensor:
    """``log E exp(a . u)`` for ``u`` uniform on the unit sphere, from ``square = ||a||^2``.

    It is ``log C(0) - log C(||a||)`` with ``C`` the density's constant (:func:`log_normalizer`). Differences of it are
    log moment generating functions: ``log E exp(b . z) = log_mgf(||a + b||^2) - log_mgf(||a||^2)`` for z distributed
    as von Mises-Fisher with mean direction ``a / ||a||`` and concentration ``||a||``.

    Args:
        square: At least 0, of any shape, float32 or float64.
        dim: Dimension D of the space, at least 1.
        rate: ``resultant_rate(square)`` if it is known already, or None.

    Returns:
        Of the shape of ``square``, at least 0; within 2e-7 of the exact value, or a few units in its last place.
        Differentiable twice, with the slope ``resultant_rate(square) / 2``, finite at 0.

    Example:
        >>> log_mgf(torch.tensor([1.0, 100.0]), dim=3)  # log(sinh(a) / a)
        tensor([0.1614, 7.0043])
    """
    value: Tensor = _LogMgf.apply(square, resultant_rate(square, dim=dim) if rate is None else rate, dim)
    return value


def log_normalizer(concentration: Tensor, *, dim: int) -> Tensor:
    """``log C_D(kappa)``, with which ``C_D(kappa) exp(kappa m . x)`` is a density on the unit sphere.

    ``C_D(kappa) = kappa^(D/2 - 1) / ((2 pi)^(D/2) I_(D/2 - 1)(kappa))``; at 0 it is one over the area of the sphere.

    Args:
        concentration: kappa, at least 0, of any shape, float32 or float64.
        dim: Dimension D of the space, at least 1.

    Example:
        >>> log_normalizer(torch.tensor([0.0, 2.0]), dim=3).exp()
        tensor([0.0796, 0.0439])
    """
    area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    return -area - log_mgf(concentration.square(), dim=dim)


def resultant_rate(square: Tensor, *, dim: int) -> Tensor:
    """``R(kappa) / kappa`` from ``square = kappa^2``; ``R = I_(D/2) / I_(D/2 - 1)`` is the length of the mean.

    Args:
        square: At least 0, of any shape, float32 or float64.
        dim: Dimension D of the space, at least 1.

    Returns:
        Of the shape of ``square``, in ``(0, 1 / dim]``; within 4e-7 of its own size.

    Example:
        >>> 2 * resultant_rate(torch.tensor([4.0]), dim=3)  # coth(2) - 1/2
        tensor([0.5373])
    """
    value: Tensor = _Rate.apply(square, dim)
    return value


def _rate(square: Tensor, dim: int) -> Tensor:
    """``R(kappa) / kappa``: the expansion at a large order, then the recurrence down to the order of ``dim``."""
    order, steps = _start(dim)
    inverse = (square + order**2).rsqrt()  # 1 / r with r = sqrt(order^2 + kappa^2)
    y = (inverse * order).square()
    third = ((49725 * y - 69615) * y + 23895) * y - 1125
    tail = (15 * y - 3) / 24 + inverse * (((24 - 30 * y) * y - 2) / 16 + inverse * (third / 5760))
    rate = inverse / (1 + order * inverse) + inverse.square() * (inverse * tail - 0.5)
    # Downward the recurrence is a continued fraction of positive terms: no cancellation, and errors shrink.
    for step in range(steps):
        rate = 1 / (2 * (order - step) + square * rate)
    return rate


def _log_mgf(square: Tensor, dim: int) -> Tensor:
    """``log E exp(a . u)``: the expansion at a large order, then one logarithm of a rate for each step down."""
    order, steps = _start(dim)
    root = (square + order**2).sqrt()
    grown = square / (root + order)  # root - order without cancellation
    value = grown - order * (grown / (2 * order)).log1p() - 0.5 * (grown / order).log1p()
    inverse = 1 / root
    y = (inverse * order).square()
    third = ((9945 - 5525 * y) * y - 4779) * y + 375
    tail = inverse * ((3 - 5 * y) / 24 + inverse * ((1 - y) * (1 - 5 * y) / 16 + inverse * (third / 5760)))
    value = value + tail + (1 / (12 * order) - 1 / (360 * order**3))  # the last is minus the tail at 0
    rate = _rate(square, dim + 2 * steps) if steps else square
    for step in range(steps):
        rate = 1 / (2 * (order - step) + square * rate)
        value = value - (2 * (order - step) * rate).log()
    return value


def _start(dim: int) -> tuple[float, int]:
    """Order at which the expansion is evaluated, and how many steps of the recurrence lead down to ``dim / 2 - 1``."""
    order = dim / 2 - 1
    steps = max(0, math.ceil(_LEAST - order))
    return order + steps, steps
