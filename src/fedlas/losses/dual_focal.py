"""Dual focal loss: the focal factor also depends on the largest probability below that of the target.

Source: Tao et al. 2023, "Dual Focal Loss for Calibration" (arXiv 2305.13665). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, paper_metadata
from fedlas.losses.focal import focal_loss


def next_lower_probs(probs: Tensor) -> Tensor:
    """Return, for each class, the largest probability strictly below that of the class, or 0, ``(M, C)``.

    Args:
        probs: ``(M, C)``.

    Note:
        The gradient flows into that probability.
    """
    ordered, _ = probs.sort(dim=1)
    # how many are strictly smaller
    place = torch.searchsorted(ordered.detach(), probs.detach().contiguous())
    below = ordered.gather(1, (place - 1).clamp(min=0))
    return torch.where(place > 0, below, 0.0)


def target_rival_prob(logits: Tensor, target: Tensor, nll: Tensor) -> Tensor:
    """Return the largest probability strictly below that of the target, or 0, ``(M,)``, without sorting.

    Args:
        logits: ``(M, C)``.
        target: ``(M,)``.
        nll: ``-log p_y (M,)``; it holds the partition function, which ``p_j`` needs too.
    """
    target_logit = logits.gather(1, target[:, None])
    with torch.no_grad():
        below = torch.where(logits < target_logit, logits, float("-inf"))
        place = below.argmax(dim=1, keepdim=True)
        exists = torch.isfinite(below.gather(1, place))
    # log p_j = z_j - z_y + log p_y. Without a lower class the exponent is masked before exp, and the value after it.
    log_prob = logits.gather(1, place) - target_logit - nll[:, None]
    return torch.where(exists, log_prob, 0.0).exp().mul(exists).squeeze(1)


@LOSSES.register(
    "dual-focal",
    **paper_metadata("Dual Focal Loss for Calibration", 2023, "2305.13665"),
    tune={"gamma": "0.5:10"},
)
class DualFocalLoss(Loss):
    """Dual focal loss: ``-(1 - p_y + p_j)^gamma log p_y`` with ``p_j = max{p_k : p_k < p_y}``, or 0.

    Args:
        gamma: Exponent, at least 0; 0 is cross-entropy.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If gamma is negative.

    Note:
        The gradient flows through ``p_j`` too. Soft targets: each class contributes its share, with its own ``p_j``.

    Example:
        >>> DualFocalLoss()(torch.tensor([[0.0, 2.0]]), torch.tensor([0]))
        tensor(1.1275)
    """

    masked_classes = True

    def __init__(self, *, gamma: float = 5.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""

        def cost(nll: Tensor) -> Tensor:
            logits = batch.logits
            rival = (
                next_lower_probs(logits.softmax(dim=1))
                if batch.is_soft
                else target_rival_prob(logits, batch.target, nll)
            )
            return focal_loss(nll, self.gamma, rival=rival)

        return batch.target_cost(cost)
