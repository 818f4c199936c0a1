"""Focal loss, and its sample-dependent schedule FLSD-53.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002), equation 4; Mukhoti et al. 2020,
"Calibrating Deep Neural Networks using Focal Loss" (arXiv 2002.09437), section 4. Written from the papers.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions
from fedlas.losses.label_smoothing import smoothed_nll


def modulated_nll(batch: Batch, gamma: Tensor | float, *, rival: Tensor | None = None) -> Tensor:
    """``-sum_k w_k t_k (1 - p_k + rival_k)^gamma log p_k`` of each position, ``(M,)``.

    Args:
        batch: Logits, hard or soft targets, class weights.
        gamma: Exponent, at least 0: a float, or one for each position ``(M,)``; soft targets: or each class ``(M, C)``.
        rival: Probability added inside the bracket, for soft targets ``(M, C)``; None is 0, the focal loss.
    """
    if batch.soft:
        log_probs = F.log_softmax(batch.logits, dim=1)
        if isinstance(gamma, Tensor) and gamma.ndim == 1:
            gamma = gamma[:, None]
        terms = -_bracket(log_probs, rival).pow(gamma) * log_probs
        return (batch.target * (terms if batch.weight is None else terms * batch.weight)).sum(dim=1)
    return batch.weighted(focal(smoothed_nll(batch.logits, batch.target, 0.0), gamma))


def focal(nll: Tensor, gamma: Tensor | float, *, rival: Tensor | None = None) -> Tensor:
    """``(1 - p + rival)^gamma (-log p)`` from ``nll = -log p (M,)``: one number a position, whatever C is."""
    return _bracket(-nll, rival).pow(gamma) * nll


def _bracket(log_probs: Tensor, rival: Tensor | None) -> Tensor:
    """``1 - p + rival`` without cancellation; the bound keeps a power's derivative finite where p is 1."""
    missing = -torch.expm1(log_probs)
    if rival is not None:
        missing = missing + rival
    return missing.clamp(min=torch.finfo(log_probs.dtype).tiny)


@LOSSES.register(
    "focal",
    paper="Focal Loss for Dense Object Detection",
    year=2017,
    url="https://arxiv.org/abs/1708.02002",
    tune={"gamma": "0.5:8"},
)
class FocalLoss(Loss):
    """Focal loss: ``-(1 - p_y)^gamma log p_y``.

    Args:
        gamma: Exponent, at least 0; 0 is cross-entropy.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If gamma is negative.

    Note:
        Soft targets: each class contributes its share, ``-sum_k t_k (1 - p_k)^gamma log p_k``.

    Example:
        >>> FocalLoss()(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.0002)
    """

    strength = "gamma"
    strength_bound = float("inf")

    def __init__(self, *, gamma: float = 3.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.gamma = check_number("FocalLoss", "gamma", gamma, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.gamma)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another gamma, a float or ``(M,)``."""
        return modulated_nll(batch, strength)


@LOSSES.register(
    "flsd-53",
    paper="Calibrating Deep Neural Networks using Focal Loss",
    year=2020,
    url="https://arxiv.org/abs/2002.09437",
)
class FLSD53(Loss):
    """Sample-dependent focal loss: gamma is 5 where ``p_y < 0.2``, else 3.

    Args:
        reduction: See :class:`~fedlas.losses.Loss`.
        ignore_index: See there.
        weight: See there.

    Note:
        No gradient flows through the choice of gamma. Soft targets: gamma goes by each class's own probability.

    Example:
        >>> FLSD53()(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.5639)
    """

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        fixed = batch.logits.detach()
        probs = fixed.softmax(dim=1) if batch.soft else (-smoothed_nll(fixed, batch.target, 0.0)).exp()
        return modulated_nll(batch, torch.where(probs < 0.2, 5.0, 3.0).to(probs.dtype))
