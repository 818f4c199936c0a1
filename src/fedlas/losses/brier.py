"""The Brier score as a training loss.

Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78, equation 2
(https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas.losses.base import LOSSES, Batch, Loss


class _Brier(torch.autograd.Function):
    """``||p - t||^2`` of each row; with ``d = p - t`` its gradient is ``2 p (d - p . d)``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, target)
        difference = _minus_target(F.softmax(logits, dim=1), target)
        return torch.linalg.vecdot(difference, difference)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        logits, target = ctx.saved_tensors
        probs = F.softmax(logits, dim=1)
        difference = _minus_target(probs.clone(), target)
        grad_logits = grad_target = None
        if ctx.needs_input_grad[1]:
            grad_target = difference * (-2 * grad)[:, None]
        if ctx.needs_input_grad[0]:
            along = torch.linalg.vecdot(probs, difference)[:, None]
            if torch.is_grad_enabled():  # create_graph=True: nothing in place
                grad_logits = probs * (difference - along) * (2 * grad)[:, None]
            else:
                grad_logits = probs.mul_((2 * grad)[:, None]).mul_(difference.sub_(along))
        return grad_logits, grad_target


def _minus_target(probs: Tensor, target: Tensor) -> Tensor:
    """``p - t``, in place on ``probs``."""
    if target.ndim == 2:
        return probs.sub_(target)
    return probs.scatter_add_(1, target[:, None], probs.new_full((1, 1), -1.0).expand(len(target), 1))


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
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: Target value that is left out.
        weight: Class weights ``(C,)``; a sample's score is weighted by its target.

    Note:
        A proper score, as cross-entropy is, but bounded: a confident mistake has almost no gradient. Soft targets are
        compared with as they are, so a prediction equal to its target costs 0.

    Example:
        >>> BrierLoss()(torch.zeros(1, 4), torch.tensor([2]))
        tensor(0.7500)
    """

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return batch.weighted(squared_error(batch.logits, batch.target))
