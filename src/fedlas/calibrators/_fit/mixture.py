"""Weights of a mixture by expectation maximization: of calibrators, of temperatures, or of shifted classes."""

from __future__ import annotations

import torch
from torch import Tensor

_GAP = 0.01
_FEW = 32
_MOST_STEPS = 50
_SHORTEST = 1e-3


@torch.no_grad()
def mixture_weights(
    parts: Tensor,
    counts: Tensor,
    prior: Tensor | None = None,
    *,
    start: Tensor | None = None,
    most_steps: int = 10_000,
) -> tuple[Tensor, bool]:
    """Return the weights ``w`` that maximize ``sum_i counts_i log sum_k w_k parts_ik + sum_k prior_k log w_k``.

    A step multiplies ``w_k`` by ``d_k = (sum_i counts_i parts_ik / sum_j w_j parts_ij + prior_k / w_k) / n``, where
    ``n`` is the sum of counts and prior. The objective is concave, so its distance from the maximum is at most
    ``n (max_k d_k - 1)``, and the search stops when this bound is 0.01 nats: that is a seventh of a standard error.
    With few parts and no start Newton's method goes ahead; where a weight goes to 0, these steps alone are thousands.

    Args:
        parts: What each part gives the sample ``(N, K)`` float64, at least 0, and above 0 in one part.
        counts: Weight of each sample ``(N,)``.
        prior: Samples that count for one part alone ``(K,)``; None: 0.
        start: First weights ``(K,)``, above 0; None: equal ones.
        most_steps: Steps after which the search stops anyway.

    Returns:
        Weights ``(K,)``, float64, summing to 1; and whether the bound was reached.
    """
    prior = (
        torch.zeros(parts.shape[1], dtype=torch.float64, device="cpu") if prior is None else prior
    )
    weights = torch.full_like(prior, 1 / len(prior)) if start is None else start
    total = float(counts.sum() + prior.sum())
    if start is None and len(prior) <= _FEW:
        weights = _newton(parts, counts, prior, weights, total)
    for _ in range(most_steps):
        share = (weights * ((counts / (parts @ weights)) @ parts) + prior) / total
        growth = float((share / weights.clamp(min=torch.finfo(torch.float64).tiny)).max())
        weights = share / share.sum()
        if (growth - 1) * total <= _GAP:
            return weights, True
    return weights, False


def _newton(parts: Tensor, counts: Tensor, prior: Tensor, weights: Tensor, total: float) -> Tensor:
    """Return weights near the maximum: of the objective less ``n sum_k w_k``, which needs no constraint on their sum.

    A barrier worth a quarter of the gap keeps them above 0.
    """
    barrier = prior + _GAP / 4 / len(prior)

    def loss(weights: Tensor) -> float:
        return total * float(weights.sum()) - float(
            counts @ (parts @ weights).log() + barrier @ weights.log()
        )

    value = loss(weights)
    for _ in range(_MOST_STEPS):
        ratio = parts / (parts @ weights).unsqueeze(1)
        weighted = ratio * counts.unsqueeze(1)
        slope = total - weighted.sum(dim=0) - barrier / weights
        step = torch.linalg.solve(weighted.T @ ratio + (barrier / weights**2).diag(), slope)
        size = min(1.0, 0.9 / max(float((step / weights).max()), 0.9))
        while (lower := loss(weights - size * step)) > value and size > _SHORTEST:
            size /= 2
        if not value - lower > _GAP / 100:
            break
        weights = weights - size * step
        value = lower
    return weights / weights.sum()
