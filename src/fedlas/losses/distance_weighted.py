"""Cross-entropy and dual focal loss, weighted by the distance between target and prediction.

Source: Lin et al. 2025, "Uncertainty Weighted Gradients for Model Calibration", CVPR (arXiv 2503.22725): BSCE-GRA.
Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, paper_metadata, target_distance
from fedlas.losses.dual_focal import target_rival_prob

_PAPER = {
    **paper_metadata("Uncertainty Weighted Gradients for Model Calibration", 2025, "2503.22725"),
    "detached": True,
}


@LOSSES.register("bsce-gra", **_PAPER, tune={"gamma": "0.25:4:log"})
class BSCEGRA(Loss):
    """BSCE-GRA: cross-entropy weighted by the detached distance ``||t - p||_norm^gamma`` of target and prediction.

    Args:
        gamma: Exponent, at least 0; 0 is cross-entropy.
        norm: Order of the distance, at least 1.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If an argument is out of range.

    Note:
        The paper tunes gamma and norm; the defaults are its simplest case. With wrong labels in the training set the
        weight trains on them harder.

    Example:
        >>> BSCEGRA()(torch.zeros(1, 2), torch.tensor([0]))  # log 2 times the square root of 1/2
        tensor(0.4901)
    """

    masked_classes = True

    def __init__(
        self, *, gamma: float = 1.0, norm: float = 2.0, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, low=0)
        self.norm = check_number("norm", norm, low=1)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return (
            target_distance(batch.logits, batch.target, norm=self.norm) ** self.gamma
            * batch.cross_entropy()
        )


@LOSSES.register("dual-focal-gra", **_PAPER, tune={"gamma": "0.5:10"})
class DualFocalGRA(Loss):
    """Dual focal loss with a detached weight: ``(1 - p_y + p_j)^gamma (-log p_y)``, no gradient through the power.

    Args:
        gamma: Exponent, at least 0; 0 is cross-entropy.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If gamma is negative.

    Note:
        ``p_j`` is the largest probability below ``p_y``, as in :class:`DualFocalLoss`. The class of a soft target is
        its arg-max.

    Example:
        >>> DualFocalGRA(gamma=1.0)(torch.zeros(1, 2), torch.tensor([0]))  # no class is below: log 2 times 1/2
        tensor(0.3466)
    """

    masked_classes = True

    def __init__(self, *, gamma: float = 5.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        with torch.no_grad():
            label = batch.favored_class()
            nll = F.cross_entropy(batch.logits, label, reduction="none")
            bracket = -torch.expm1(-nll) + target_rival_prob(batch.logits, label, nll)
        return bracket**self.gamma * batch.cross_entropy()
