"""DCA: the difference between mean confidence and accuracy of a batch as an auxiliary loss.

Source: Liang et al. 2020, "Improved Trainable Calibration Method for Neural Networks on Medical Imaging
Classification", BMVC (arXiv 2009.04057). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, Penalized, paper

__all__ = ["DCA"]


def _absolute_gap(confidence: Tensor, correct: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """``|mean_i conf_i - mean_i correct_i|``, a scalar in [0, 1].

    Args:
        confidence: Largest probability of each prediction ``(N,)``.
        correct: Whether it is right ``(N,)`` bool.
        valid: Which predictions count ``(N,)`` bool; None counts all.
    """
    gap = confidence - correct.to(confidence.dtype)
    if valid is None:
        return gap.mean().abs()
    return (torch.where(valid, gap, 0.0).sum() / valid.sum().clamp(min=1)).abs()


@LOSSES.register(
    "dca",
    **paper("Improved Trainable Calibration Method for Neural Networks", 2020, "2009.04057"),
    tune={"alpha": "0.1:20:log"},
)
class DCA(Penalized):
    """DCA: ``-log p_y + alpha |mean confidence - accuracy|``, with means over the batch.

    Args:
        alpha: Weight of the gap (the paper's beta), at least 0.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions count in neither mean. ``weight`` is
            applied to the cross-entropy and to the gap's share in a sample's loss, not to the means.

    Raises:
        InputError: If alpha is negative.

    Note:
        The gap is one number a batch. It is added to the loss of each position, so that mean, sum and none agree. It
        depends on the other samples of the batch: under DDP each rank uses its own part. Accuracy has no gradient. The
        correct class of a soft target is the one that it favors.

    Example:
        >>> DCA()(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.6004)
    """

    masked_classes = True

    def __init__(self, *, alpha: float = 1.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("DCA", "alpha", alpha, low=0)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each position ``(M,)``, and the gap of the batch, a scalar."""
        nll, confidence, correct = batch.nll_and_confidence()
        return nll, _absolute_gap(confidence, correct, valid=batch.valid)
