"""Adaptive and conditional label smoothing (ACLS).

Source: Park et al. 2023, "ACLS: Adaptive and Conditional Label Smoothing for Network Calibration", ICCV, equations 9 to
12 (arXiv 2308.11911). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PenalizedLoss, Variant, paper_metadata


def adaptive_penalty(
    logits: Tensor, *, margin: float, lambda1: float, lambda2: float, variant: Variant = "paper"
) -> Tensor:
    """Return the ACLS penalty per row, ``(N,)``, which lowers the top logit and raises logits far below it.

    ``lambda1 relu(z_yhat - min_k z_k - m)^2 + lambda2 mean_{k != yhat} relu(sg(z_yhat) - z_k - m)^2``, where ``yhat``
    is the predicted class and ``sg`` stops the gradient.

    Args:
        logits: ``(N, C)``.
        margin: Logit distance ``m`` that costs nothing.
        lambda1: Weight of the arg-max term.
        lambda2: Weight of the other classes' term.
        variant: ``"paper"``, or ``"reference"`` as in published code: without ``- min_k z_k``, so that adding a
            constant to all logits changes the loss.
    """
    top = logits.amax(dim=1, keepdim=True)
    floor = logits.amin(dim=1, keepdim=True) if variant == "paper" else 0.0
    pull_down = F.relu(top - floor - margin).square().squeeze(1)
    # The arg-max itself adds nothing to the sum over the others: its gap is relu(-m) = 0.
    gaps = F.relu((top.detach() - margin) - logits)
    pull_up = torch.linalg.vecdot(gaps, gaps) / max(logits.shape[1] - 1, 1)
    return lambda1 * pull_down + lambda2 * pull_up


@LOSSES.register(
    "acls",
    **paper_metadata("ACLS", 2023, "2308.11911"),
    tune={"alpha": "0.01:1:log", "margin": "0:20"},
)
class ACLS(PenalizedLoss):
    """Adaptive and conditional label smoothing: cross-entropy plus ``alpha`` times :func:`adaptive_penalty`.

    Args:
        alpha: Weight of the regularizer, at least 0.
        margin: Logit distance that costs nothing, at least 0. The paper uses 10 for Tiny-ImageNet, 6 for CIFAR.
        lambda1: Weight of the term that pulls the arg-max logit down, at least 0.
        lambda2: Weight of the term that pulls distant logits up, at least 0.
        variant: ``"paper"`` or ``"reference"`` (published code's arg-max term, not invariant to a shift of the logits).
        **options: Those of every :class:`~fedlas.losses.Loss`. The regularizer of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If a strength or the margin is negative, or the variant is unknown.

    Example:
        >>> import torch
        >>> ACLS(margin=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.2369)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        margin: float = 10.0,
        lambda1: float = 1.0,
        lambda2: float = 0.1,
        variant: Variant = "paper",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0)
        self.margin = check_number("margin", margin, low=0)
        self.lambda1 = check_number("lambda1", lambda1, low=0)
        self.lambda2 = check_number("lambda2", lambda2, low=0)
        self.variant: Variant = check_choice("variant", variant, get_args(Variant))

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and ACLS penalty per position, both ``(M,)``."""
        penalty = adaptive_penalty(
            batch.logits,
            margin=self.margin,
            lambda1=self.lambda1,
            lambda2=self.lambda2,
            variant=self.variant,
        )
        return batch.cross_entropy(), penalty
