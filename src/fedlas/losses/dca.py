"""DCA: the difference between mean confidence and accuracy of a batch as an auxiliary loss.

Source: Liang et al. 2020, "Improved Trainable Calibration Method for Neural Networks on Medical Imaging
Classification", BMVC (arXiv 2009.04057). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions
from fedlas.losses.confidence import nll_and_confidence


def confidence_gap(confidence: Tensor, correct: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """``|mean_i conf_i - mean_i correct_i|``, a scalar in [0, 1].

    Args:
        confidence: Largest probability of each prediction ``(N,)``.
        correct: Whether it is right ``(N,)`` bool.
        valid: Which predictions count ``(N,)`` bool; None counts all.

    Example:
        >>> confidence_gap(torch.tensor([0.9, 0.7]), torch.tensor([True, False]))
        tensor(0.3000)
    """
    gap = confidence - correct.to(confidence.dtype)
    if valid is None:
        return gap.mean().abs()
    return (torch.where(valid, gap, 0.0).sum() / valid.sum().clamp(min=1)).abs()


@LOSSES.register(
    "dca",
    paper="Improved Trainable Calibration Method for Neural Networks",
    year=2020,
    url="https://arxiv.org/abs/2009.04057",
    tune={"alpha": "0.1:20:log"},
)
class DCA(Loss):
    """DCA: ``-log p_y + alpha |mean confidence - accuracy|``, the means taken over the batch.

    Args:
        alpha: Weight of the gap (the paper's beta), at least 0.
        **options: Those of every :class:`~fedlas.losses.Loss`. What is ignored touches neither mean. ``weight`` is that
            of the cross-entropy and of the gap's share in a sample's loss, not of the means.

    Raises:
        InputError: If alpha is negative.

    Note:
        The gap is one number a batch and is added to each position's loss, so that mean, sum and none agree. It
        depends on who shares the batch: under DDP it is that of each rank's own part. Accuracy has no gradient. A soft
        target's correct class is the one it favours.

    Example:
        >>> DCA()(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.6004)
    """

    strength = "alpha"

    def __init__(self, *, alpha: float = 1.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("DCA", "alpha", alpha, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.alpha)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        nll, confidence, correct = nll_and_confidence(batch)
        return nll + strength * batch.weighted(confidence_gap(confidence, correct, valid=batch.valid))
