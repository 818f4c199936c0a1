"""Margin-based label smoothing: logit distances are penalised only beyond a margin.

Source: Liu et al. 2022, "The Devil is in the Margin: Margin-based Label Smoothing for Network Calibration", CVPR,
equation 8 (arXiv 2111.15430).
"""

from __future__ import annotations

from typing import Unpack

import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions
from fedlas.losses.extremes import row_max
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
    return F.relu((row_max(logits) - margin) - logits).mean(dim=1)


@LOSSES.register(
    "mbls",
    paper="The Devil is in the Margin",
    year=2022,
    url="https://arxiv.org/abs/2111.15430",
    tune={"alpha": "0.01:1:log", "margin": "0:20"},
)
class MbLS(Loss):
    """Margin-based label smoothing: ``-log p_y + alpha mean_k relu(max_j z_j - z_k - margin)``.

    Args:
        alpha: Weight of the penalty, at least 0.
        margin: Logit distance that costs nothing, at least 0. The paper uses 10, and 6 on CIFAR.
        form: ``"sum"`` as in the paper; ``"convex"`` is ``(1 - alpha) (-log p_y) + alpha penalty``, alpha at most 1,
            which FedLAS+ builds on.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If alpha or margin is out of range, or the form unknown.

    Example:
        >>> import torch
        >>> MbLS(margin=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.1769)
    """

    strength = "alpha"
    strength_bound = float("inf")

    def __init__(
        self, *, alpha: float = 0.1, margin: float = 10.0, form: str = "sum", **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        self.form = check_choice("MbLS", "form", form, ("sum", "convex"))
        if self.form == "convex":
            self.strength_bound = 1.0
        self.alpha = check_number("MbLS", "alpha", alpha, low=0, high=self.strength_bound)
        self.margin = check_number("MbLS", "margin", margin, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.alpha)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        cross_entropy = smoothed_nll(batch.logits, batch.target, 0.0, batch.weight)
        penalty = batch.weighted(margin_penalty(batch.logits, self.margin))
        return (1 - strength if self.form == "convex" else 1.0) * cross_entropy + strength * penalty
