"""The Brier score as a training loss.

Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78
(https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas.losses._base import LOSSES, Batch, Loss

__all__ = ["BrierLoss", "squared_error"]


class _Brier(torch.autograd.Function):
    """``||p - t||^2`` of each row; its gradient is ``2 p (p - t - p . (p - t))``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        return _squared_norm(_minus_target(F.softmax(logits, dim=1), target)).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        logits, target = ctx.saved_tensors
        probs, grad = F.softmax(logits, dim=1), 2 * grad[:, None]
        on_target = probs.gather(1, target[:, None]) if target.ndim == 1 else (probs * target).sum(dim=1, keepdim=True)
        centered = _minus_target(probs - (_squared_norm(probs) - on_target), target)
        grad_target = -grad * (probs - target) if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():  # create_graph=True: nothing in place
            return probs * grad * centered, grad_target
        return probs.mul_(grad).mul_(centered), grad_target


def _minus_target(rows: Tensor, target: Tensor) -> Tensor:
    """``rows - t``, in place."""
    if target.ndim == 2:
        return rows.sub_(target)
    return rows.scatter_add_(1, target[:, None], rows.new_full((1, 1), -1.0).expand(len(target), 1))


def _squared_norm(rows: Tensor) -> Tensor:
    """``||row||^2``, ``(M, 1)``; without a graph by the norm, which needs no second ``(M, C)``."""
    if torch.is_grad_enabled():
        return rows.square().sum(dim=1, keepdim=True)
    return torch.linalg.vector_norm(rows, 2, dim=1, keepdim=True).square()


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """``sum_k (p_k - t_k)^2`` of each row, ``(N,)``, in [0, 2]; differentiable twice.

    Args:
        logits: ``(N, C)``.
        target: Class indices ``(N,)`` in ``[0, C)``, or soft targets ``(N, C)``.
    """
    value: Tensor = _Brier.apply(logits, target)
    return value


@LOSSES.register(
    "brier",
    paper="Verification of Forecasts Expressed in Terms of Probability",
    year=1950,
    url="https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
)
class BrierLoss(Loss):
    """Brier score: ``sum_k (p_k - 1[y = k])^2``, summed over classes, in [0, 2].

    Args:
        reduction: See :class:`~fedlas.losses.Loss`.
        ignore_index: See there.
        weight: See there. A sample's score is weighted by its class.

    Note:
        A proper score, as cross-entropy is, but bounded: a confident mistake has almost no gradient. The loss of a soft
        target is the distance to it, so a prediction equal to its target costs 0.

    Example:
        >>> BrierLoss()(torch.zeros(1, 4), torch.tensor([2]))
        tensor(0.7500)
    """

    masked_classes = True

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return batch.weighted(squared_error(batch.logits, batch.target))
