"""Margin-based label smoothing: logit distances are penalised only beyond a margin.

Source: Liu et al. 2022, "The Devil is in the Margin: Margin-based Label Smoothing for Network Calibration", CVPR,
equation 8 (arXiv 2111.15430).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses.base import LOSSES, Batch, Loss
from fedlas.losses.label_smoothing import smoothed_nll


def margin_penalty(logits: Tensor, margin: float) -> Tensor:
    """``mean_k relu(max_j z_j - z_k - margin)`` of each row, ``(N,)``.

    Args:
        logits: ``(N, C)``.
        margin: Logit distance that costs nothing, at least 0.

    Note:
        The mean runs over all C classes, the arg-max with its zero term included, as in the published code. The
        gradient flows through the maximum too.
    """
    return F.relu(logits.amax(dim=1, keepdim=True) - logits - margin).mean(dim=1)


@LOSSES.register("mbls", paper="The Devil is in the Margin", year=2022, url="https://arxiv.org/abs/2111.15430")
class MbLS(Loss):
    """Margin-based label smoothing: ``-log p_y + alpha mean_k relu(max_j z_j - z_k - margin)``.

    Args:
        alpha: Weight of the penalty, at least 0.
        margin: Logit distance that costs nothing, at least 0. The paper uses 10, and 6 on CIFAR.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: Target value that is left out.
        weight: Class weights ``(C,)``; the penalty of a sample is weighted like its cross-entropy.

    Raises:
        InputError: If alpha or margin is negative.

    Example:
        >>> import torch
        >>> MbLS(margin=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.1769)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        margin: float = 10.0,
        reduction: str = "mean",
        ignore_index: int = -100,
        weight: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__(reduction=reduction, ignore_index=ignore_index, weight=weight)
        self.alpha = check_number("MbLS", "alpha", alpha, low=0)
        self.margin = check_number("MbLS", "margin", margin, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        penalty = batch.weighted(margin_penalty(batch.logits, self.margin))
        return smoothed_nll(batch.logits, batch.target, 0.0, batch.weight) + self.alpha * penalty

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return ", ".join(filter(None, (f"alpha={self.alpha}, margin={self.margin}", super().extra_repr())))
