"""Adaptive and conditional label smoothing.

Source: Park et al. 2023, "ACLS: Adaptive and Conditional Label Smoothing for Network Calibration", ICCV, equations 9 to
12 (arXiv 2308.11911). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions
from fedlas.losses.extremes import row_max, row_min
from fedlas.losses.label_smoothing import smoothed_nll


def adaptive_penalty(
    logits: Tensor, *, margin: float, lambda1: float, lambda2: float, variant: str = "paper"
) -> Tensor:
    """The regulariser of each row, ``(N,)``: the arg-max logit is pulled down, distant other logits are pulled up.

    ``lambda1 relu(z_yhat - min_k z_k - m)^2 + lambda2 mean_{k != yhat} relu(sg(z_yhat) - z_k - m)^2``, where ``yhat``
    is the predicted class and ``sg`` stops the gradient.

    Args:
        logits: ``(N, C)``.
        margin: Logit distance ``m`` that costs nothing.
        lambda1: Weight of the arg-max term.
        lambda2: Weight of the other classes' term.
        variant: ``"paper"``, or ``"reference"`` as published code has it: without ``- min_k z_k``, so that adding a
            constant to all logits changes the loss.
    """
    top = row_max(logits)
    floor = row_min(logits) if variant == "paper" else 0.0
    pull_down = F.relu(top - floor - margin).square().squeeze(1)
    # The arg-max itself adds nothing to the sum over the others: its gap is relu(-m) = 0.
    gaps = F.relu((top.detach() - margin) - logits)
    pull_up = torch.linalg.vecdot(gaps, gaps) / max(logits.shape[1] - 1, 1)
    return lambda1 * pull_down + lambda2 * pull_up


@LOSSES.register(
    "acls",
    paper="ACLS",
    year=2023,
    url="https://arxiv.org/abs/2308.11911",
    tune={"alpha": "0.01:1:log", "margin": "0:20"},
)
class ACLS(Loss):
    """Adaptive and conditional label smoothing: cross-entropy plus ``alpha`` times :func:`adaptive_penalty`.

    Args:
        alpha: Weight of the regulariser, at least 0.
        margin: Logit distance that costs nothing, at least 0. The paper uses 10 for Tiny-ImageNet, 6 for CIFAR.
        lambda1: Weight of the term that pulls the arg-max logit down, at least 0.
        lambda2: Weight of the term that pulls distant logits up, at least 0.
        variant: ``"paper"`` or ``"reference"`` (published code's arg-max term, not invariant to a shift of the logits).
        **options: Those of every :class:`~fedlas.losses.Loss`. The regulariser of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If a strength or the margin is negative, or the variant is unknown.

    Example:
        >>> import torch
        >>> ACLS(margin=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.2369)
    """

    strength = "alpha"
    strength_bound = float("inf")

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        margin: float = 10.0,
        lambda1: float = 1.0,
        lambda2: float = 0.1,
        variant: str = "paper",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("ACLS", "alpha", alpha, low=0)
        self.margin = check_number("ACLS", "margin", margin, low=0)
        self.lambda1 = check_number("ACLS", "lambda1", lambda1, low=0)
        self.lambda2 = check_number("ACLS", "lambda2", lambda2, low=0)
        self.variant = check_choice("ACLS", "variant", variant, ("paper", "reference"))

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.alpha)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        penalty = adaptive_penalty(
            batch.logits, margin=self.margin, lambda1=self.lambda1, lambda2=self.lambda2, variant=self.variant
        )
        return smoothed_nll(batch.logits, batch.target, 0.0, batch.weight) + strength * batch.weighted(penalty)
