"""MaxSup: label smoothing that presses on the largest logit, whether it is the target's or not.

Source: Zhou et al. 2025, "MaxSup: Overcoming Representation Collapse in Label Smoothing"
(arXiv 2502.15798). Written from the paper.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions
from fedlas.losses.label_smoothing import smoothed_nll


class _TopExcess(torch.autograd.Function):
    """``max_k z_k - mean_k z_k`` of each row, with one buffer in backward for both parts."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        top = logits.amax(dim=1, keepdim=True)
        ctx.save_for_backward(logits, top)
        return top.squeeze(1) - logits.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        logits, top = ctx.saved_tensors
        place = torch.eq(logits.detach(), top.detach(), out=torch.empty_like(logits))  # 1.0 at the top, else 0.0
        each = grad[:, None] / place.sum(dim=1, keepdim=True)
        everywhere = grad[:, None] / logits.shape[1]
        if torch.is_grad_enabled():  # create_graph=True: nothing in place
            return place * each - everywhere
        return place.mul_(each).sub_(everywhere)


def top_excess(logits: Tensor) -> Tensor:
    """``max_k z_k - mean_k z_k`` of each row, ``(N,)``, at least 0.

    Args:
        logits: ``(N, C)``.

    Note:
        Equal maxima share the gradient evenly.
    """
    value: Tensor = _TopExcess.apply(logits)
    return value


@LOSSES.register(
    "maxsup",
    paper="Overcoming Representation Collapse",
    year=2025,
    url="https://arxiv.org/abs/2502.15798",
    tune={"alpha": "0.005:0.5:log"},
)
class MaxSup(Loss):
    """MaxSup: ``-log p_y + alpha (max_k z_k - mean_k z_k)``.

    Label smoothing is the same with ``z_y`` in place of the maximum: where a prediction is wrong, it presses on a logit
    that is too small already.

    Args:
        alpha: Weight of the penalty, at least 0. The authors' ImageNet recipe raises it from 0.1 to 0.2 over training.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If alpha is negative.

    Note:
        ``alpha`` is a plain attribute: a schedule sets it between epochs.

    Example:
        >>> import torch
        >>> MaxSup(alpha=0.1)(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))
        tensor(2.2269)
    """

    strength = "alpha"

    def __init__(self, *, alpha: float = 0.1, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("MaxSup", "alpha", alpha, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.alpha)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        penalty = batch.weighted(top_excess(batch.logits))
        return smoothed_nll(batch.logits, batch.target, 0.0, batch.weight) + strength * penalty
