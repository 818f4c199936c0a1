"""Margin-based label smoothing (MbLS), which penalizes logit distances beyond a margin.

Source: Liu et al. 2022, "The Devil is in the Margin: Margin-based Label Smoothing for Network Calibration", CVPR,
equation 8 (arXiv 2111.15430).
"""

from __future__ import annotations

from typing import Literal, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PenalizedLoss, paper_metadata

Form = Literal["sum", "convex"]


def margin_penalty(logits: Tensor, margin: float) -> Tensor:
    """Return the margin penalty per row, ``mean_k relu(max_j z_j - z_k - margin)``, ``(N,)``.

    Args:
        logits: ``(N, C)``.
        margin: Logit distance that costs nothing, at least 0.

    Note:
        The mean is over all C classes and includes the zero term of the arg-max, as in the published code. The gradient
        flows through the maximum too.
    """
    # a relu of gap - margin
    return F.softshrink(logits.amax(dim=1, keepdim=True) - logits, margin).mean(dim=1)


@LOSSES.register(
    "mbls",
    **paper_metadata("The Devil is in the Margin", 2022, "2111.15430"),
    tune={"alpha": "0.01:1:log", "margin": "0:20"},
)
class MbLS(PenalizedLoss):
    """Margin-based label smoothing: ``-log p_y + alpha mean_k relu(max_j z_j - z_k - margin)``.

    Args:
        alpha: Weight of the penalty, at least 0.
        margin: Logit distance that costs nothing, at least 0. The paper uses 10, and 6 on CIFAR.
        form: ``"sum"`` as in the paper; ``"convex"`` is ``(1 - alpha) (-log p_y) + alpha penalty``, alpha at most 1,
            the form that FedLAS+ builds on.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If alpha or margin is out of range, or the form unknown.

    Example:
        >>> import torch
        >>> MbLS(margin=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.1769)
    """

    _nonfinite_if_masked = True

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        margin: float = 10.0,
        form: Form = "sum",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.form: Form = check_choice("form", form, get_args(Form))
        if self.form == "convex":
            self.strength_bound = 1.0
        self.alpha = check_number("alpha", alpha, low=0, high=self.strength_bound)
        self.margin = check_number("margin", margin, low=0)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and margin penalty per position, both ``(M,)``."""
        return batch.cross_entropy(), margin_penalty(batch.logits, self.margin)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)``, with ``strength``, a float or ``(M,)``, in place of alpha."""
        if self.form == "sum":
            return super().with_strength(batch, strength)
        cross_entropy, penalty = self.parts(batch)
        return torch.lerp(cross_entropy, batch.apply_class_weights(penalty), strength)
