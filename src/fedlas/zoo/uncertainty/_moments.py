"""Moments of activations in a network with Gaussian weights, and their gradients.

Source:
    Hernández-Lobato, Adams: Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks,
    ICML 2015, section 3.2. https://arxiv.org/abs/1502.05336
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

NUM_NODES = 32
"""Number of nodes of the Gauss-Hermite quadrature."""

Moments = tuple[Tensor, Tensor]
"""Mean and variance."""


@dataclass
class GaussianLayer:
    """Linear layer with independent Gaussian weights ``N(mean, var)``, each ``(out, in + 1)``, the bias last."""

    mean: Tensor
    var: Tensor


def linear_moments(layer: GaussianLayer, mean: Tensor, var: Tensor) -> Moments:
    """Return the exact mean and variance of ``W z / sqrt(n)`` for independent weights and inputs ``(N, n)``."""
    n = mean.shape[1]
    out_var = var @ layer.mean.square().T + (var + mean.square()) @ layer.var.T
    return mean @ layer.mean.T / math.sqrt(n), out_var / n


def relu_moments(mean: Tensor, var: Tensor) -> Moments:
    """Return the exact mean and variance of ``max(a, 0)`` for ``a ~ N(mean, var)``."""
    std = var.sqrt()
    alpha = mean / std
    above = torch.special.ndtr(alpha)
    below = torch.special.ndtr(-alpha)
    density = _normal_density(alpha)
    # Arranged so that no large squares cancel where alpha is large; what is left below 0 is rounding.
    spread = (
        above
        + alpha.square() * above * below
        + alpha * density * (below - above)
        - density.square()
    )
    return (std * (alpha * above + density)).clamp_min(0), var * spread.clamp_min(0)


def propagate_moments(layers: Sequence[GaussianLayer], features: Tensor) -> list[Moments]:
    """Return the input and output moments of every layer, in order; inputs include a constant 1 for the bias."""
    mean = features
    var = torch.zeros_like(features)
    passed: list[Moments] = []
    for depth, layer in enumerate(layers):
        if depth:
            mean, var = relu_moments(mean, var)
        # The bias belongs to an input that is 1 without variance.
        mean, var = (
            torch.cat([x, x.new_full((len(x), 1), one)], dim=1)
            for x, one in ((mean, 1.0), (var, 0.0))
        )
        passed.append((mean, var))
        mean, var = linear_moments(layer, mean, var)
        passed.append((mean, var))
    return passed


def label_log_prob(mean: Tensor, var: Tensor, label: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log probability that logit ``label`` plus normal noise is the largest, and its gradients.

    ``Z = E_u prod_k Phi((m_y + s_y u - m_k) / s_k)`` over ``k != y``, ``u ~ N(0, 1)``, ``s^2 = v + 1``, by quadrature.

    Args:
        mean: Means of the logits ``(N, C)``.
        var: Variances of the logits ``(N, C)``.
        label: ``y``, the same for all rows.

    Returns:
        ``log Z (N,)``, and its gradients with respect to ``mean`` and ``var``, each ``(N, C)``.
    """
    nodes, log_weights = _quadrature()
    std = (var + 1).sqrt()
    t = (
        mean[:, label, None, None] + std[:, label, None, None] * nodes[:, None] - mean[:, None]
    ) / std[:, None]
    log_above = torch.special.log_ndtr(t)  # (N, nodes, C)
    log_above[:, :, label] = 0
    terms = log_above.sum(dim=2) + log_weights
    log_z = terms.logsumexp(dim=1)
    # In the logarithm, because density and probability both vanish far below 0 while their ratio does not.
    hazard = (-0.5 * t.square() - 0.5 * math.log(2 * math.pi) - log_above).exp() / std[:, None]
    hazard[:, :, label] = 0
    share = (terms - log_z[:, None]).exp()[:, :, None]
    to_mean = -(share * hazard).sum(dim=1)
    to_std = -(share * hazard * t).sum(dim=1)
    to_mean[:, label] = -to_mean.sum(dim=1)
    to_std[:, label] = (share * hazard * nodes[:, None]).sum(dim=(1, 2))
    return log_z, to_mean, to_std / (2 * std)


def log_prob_gradients(
    layers: Sequence[GaussianLayer], features: Tensor, label: int
) -> tuple[Tensor, list[Moments]]:
    """Return ``log Z`` of one sample ``(D,)``, and its gradients with respect to the moments of all weights."""
    passed = propagate_moments(layers, features[None])
    log_z, to_mean, to_var = label_log_prob(*passed[-1], label)
    slopes: list[Moments] = []
    for depth in range(len(layers) - 1, -1, -1):
        layer, (mean, var) = layers[depth], passed[2 * depth]
        n = mean.shape[1]
        to_mean = to_mean / math.sqrt(n)
        to_var = to_var / n
        slopes.append(
            (to_mean.T @ mean + 2 * layer.mean * (to_var.T @ var), to_var.T @ (mean.square() + var))
        )
        if not depth:
            break
        # Through the linear layer; the constant input has no source.
        back_mean = to_mean @ layer.mean + 2 * mean * (to_var @ layer.var)
        back_var = to_var @ (layer.mean.square() + layer.var)
        to_mean, to_var = _relu_backward(
            *passed[2 * depth - 1], back_mean[:, :-1], back_var[:, :-1], mean[:, :-1]
        )
    return log_z[0], slopes[::-1]


def _relu_backward(
    mean: Tensor, var: Tensor, to_mean: Tensor, to_var: Tensor, out_mean: Tensor
) -> Moments:
    """Return the gradients for the input moments of a ReLU, from the gradients for its output moments."""
    std = var.sqrt()
    alpha = mean / std
    above = torch.special.ndtr(alpha)
    below = torch.special.ndtr(-alpha)
    density = _normal_density(alpha) / std
    return to_mean * above + to_var * 2 * out_mean * below, to_mean * density / 2 + to_var * (
        above - out_mean * density
    )


@cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Return the nodes and log weights of Gauss-Hermite quadrature for a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    return torch.from_numpy(nodes), torch.from_numpy(np.log(weights / weights.sum()))


def _normal_density(x: Tensor) -> Tensor:
    return (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)
