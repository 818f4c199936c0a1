"""Confidence penalty: cross-entropy minus the entropy of the prediction.

Source: Pereyra et al. 2017, "Regularizing Neural Networks by Penalizing Confident Output Distributions"
(arXiv 1701.06548), equation 2. Written from the paper.
"""

from __future__ import annotations

from typing import Any, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import LEAST, LOSSES, Batch, LossOptions, Penalized, Variant, paper

__all__ = ["EntropyPenalty", "entropy"]


class _Entropy(torch.autograd.Function):
    """Entropy of each row's softmax; its gradient is ``-p_k (log p_k + H)``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        log_probs = _log_probs(logits)
        probs = log_probs.exp()
        value = -torch.linalg.vecdot(probs, log_probs)
        ctx.save_for_backward(logits, log_probs, probs, value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        logits, log_probs, probs, value = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: what was saved has no graph of its own
            log_probs, probs = _log_probs(logits), F.softmax(logits, dim=1)
            value = -(probs * log_probs).sum(dim=1)
            return -probs * (log_probs + value[:, None]) * grad[:, None]
        return (log_probs + value[:, None]).mul_(probs).mul_(-grad[:, None])


def _log_probs(logits: Tensor) -> Tensor:
    """``log p``, finite for a masked class too: its share of the entropy, 0 times this, is then 0."""
    log_probs = F.log_softmax(logits, dim=1)
    return log_probs.clamp(min=LEAST) if torch.is_grad_enabled() else log_probs.clamp_(min=LEAST)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax of each row in nats, ``(N,)``, in ``[0, log C]``; differentiable twice."""
    value: Tensor = _Entropy.apply(logits)
    return value


@LOSSES.register(
    "entropy-penalty",
    **paper("Penalizing Confident Output Distributions", 2017, "1701.06548"),
    tune={"alpha": "0.01:1:log"},
)
class EntropyPenalty(Penalized):
    """Confidence penalty: ``-log p_y - alpha H(p)``.

    Args:
        alpha: Weight of the entropy, at least 0.
        variant: ``"paper"`` sums the entropy over classes; ``"reference"`` averages it, as popular code does.
        **options: Those of every :class:`~fedlas.losses.Loss`. The entropy of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If alpha is negative or the variant unknown.

    Example:
        >>> import torch
        >>> EntropyPenalty()(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.0904)
    """

    masked_classes = True

    def __init__(self, *, alpha: float = 0.1, variant: Variant = "paper", **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("EntropyPenalty", "alpha", alpha, low=0)
        self.variant: Variant = check_choice("EntropyPenalty", "variant", variant, get_args(Variant))

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy and negative entropy of each position, both ``(M,)``."""
        terms = batch.logits.shape[1] if self.variant == "reference" else 1
        return batch.cross_entropy(), -entropy(batch.logits) / terms
