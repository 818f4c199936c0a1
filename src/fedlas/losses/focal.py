"""Focal loss, and its sample-dependent schedule FLSD-53.

Source: Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002), equation 4; Mukhoti et al. 2020,
"Calibrating Deep Neural Networks using Focal Loss" (arXiv 2002.09437), section 4. Written from the papers.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, LossWithStrength, paper_metadata


def focal_loss(nll: Tensor, gamma: Tensor | float, *, rival: Tensor | None = None) -> Tensor:
    """Return the elementwise focal loss ``(1 - p + rival)^gamma (-log p)``, from ``nll = -log p``.

    Args:
        nll: ``-log p``, ``(M,)`` of one class a position or ``(M, C)`` of all classes.
        gamma: Exponent, at least 0: a float, like ``nll``, or one for each position ``(M,)``.
        rival: Probability that is added inside the bracket, like ``nll``; None is 0, the focal loss.
    """
    missing = -torch.expm1(-nll)  # 1 - p without cancellation
    if rival is not None:
        missing = missing + rival
    if isinstance(gamma, Tensor) and gamma.ndim < nll.ndim:
        gamma = gamma[:, None]
    # a bound keeps a power's derivative finite where p is 1
    if isinstance(gamma, Tensor) or gamma < 1:
        missing = missing.clamp(min=torch.finfo(nll.dtype).tiny)
    return missing.pow(gamma) * nll


@LOSSES.register(
    "focal",
    **paper_metadata("Focal Loss for Dense Object Detection", 2017, "1708.02002"),
    tune={"gamma": "0.5:8"},
)
class FocalLoss(LossWithStrength):
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

    masked_classes = True
    _nonfinite_if_masked = True
    strength = "gamma"

    def __init__(self, *, gamma: float = 3.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, low=0)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)``, with ``strength``, a float or ``(M,)``, in place of gamma."""
        return batch.target_cost(lambda nll: focal_loss(nll, strength))


@LOSSES.register(
    "flsd-53",
    **paper_metadata("Calibrating Deep Neural Networks using Focal Loss", 2020, "2002.09437"),
)
class FLSD53(Loss):
    """Sample-dependent focal loss: gamma is 5 where ``p_y < 0.2``, else 3.

    Args:
        reduction: See :class:`~fedlas.losses.Loss`.
        ignore_index: See there.
        weight: See there.

    Note:
        No gradient flows through the choice of gamma. With soft targets each class has the gamma of its own
        probability.

    Example:
        >>> FLSD53()(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.5639)
    """

    masked_classes = True
    _nonfinite_if_masked = True

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return batch.target_cost(
            lambda nll: focal_loss(nll, torch.where((-nll.detach()).exp() < 0.2, 5.0, 3.0).to(nll))
        )
