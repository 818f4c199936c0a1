"""The classes' shares of unlabeled samples, by expectation maximization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_STEPS = 10_000
_GAP = 0.01
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class ClassShares:
    """Where the search ended.

    Attributes:
        shares: Share of each class ``(C,)``, float64, above 0 and summing to 1.
        steps: How many there were.
        converged: Whether the log-likelihood is proven to be within 0.01 nats of its maximum.
    """

    shares: Tensor
    steps: int
    converged: bool


@torch.no_grad()
def class_shares(probs: Tensor, source: Tensor) -> ClassShares:
    """The shares ``q`` that maximize ``sum_i log sum_k q_k p_ik / s_k``.

    A step takes the mean of the probabilities that the samples have at the present shares: it multiplies ``q_k`` by
    ``d_k = mean_i (p_ik / s_k) / sum_j (q_j p_ij / s_j)``. The log-likelihood is concave in ``q``, so its distance from
    the maximum is at most ``N (max_k d_k - 1)``, and the search stops when this bound is 0.01 nats: that is a seventh
    of a standard error.

    Args:
        probs: ``p (N, C)`` float64 of the unlabeled samples, of a model that is calibrated where shares are ``source``.
        source: ``s (C,)``, above 0.
    """
    ratio = probs / source
    shares = source.clone()
    for step in range(_MOST_STEPS):
        density = ratio @ shares
        growth = ratio.T @ (1 / density) / len(ratio)
        if float(growth.max() - 1) * len(ratio) <= _GAP:
            return ClassShares(_positive(shares), step, converged=True)
        shares = shares * growth
        shares = shares / shares.sum()
    return ClassShares(_positive(shares), _MOST_STEPS, converged=False)


def _positive(shares: Tensor) -> Tensor:
    """Shares without 0, whose logarithm no logit could hold."""
    held = shares.clamp(min=_LEAST)
    return held / held.sum()
