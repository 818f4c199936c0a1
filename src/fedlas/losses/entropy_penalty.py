"""Confidence penalty: cross-entropy minus the entropy of the prediction.

Source: Pereyra et al. 2017, "Regularizing Neural Networks by Penalizing Confident Output Distributions"
(arXiv 1701.06548), equation 2. Written from the paper.
"""

from __future__ import annotations

from typing import Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import (
    LOSSES,
    MIN_LOG_PROB,
    Batch,
    LossOptions,
    PenalizedLoss,
    Variant,
    paper_metadata,
)


def negative_entropy(log_probs: Tensor) -> Tensor:
    """Return the negative entropy per row, ``sum_k p_k log p_k``, ``(N,)`` in ``[-log C, 0]``; twice differentiable."""
    # Finite for a masked class too: its share of the entropy, 0 times this, is then 0.
    log_probs = log_probs.clamp(min=MIN_LOG_PROB)
    return torch.linalg.vecdot(log_probs.exp(), log_probs)


@LOSSES.register(
    "entropy-penalty",
    **paper_metadata("Penalizing Confident Output Distributions", 2017, "1701.06548"),
    tune={"alpha": "0.01:1:log"},
)
class EntropyPenalty(PenalizedLoss):
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
    _nonfinite_if_masked = True

    def __init__(
        self, *, alpha: float = 0.1, variant: Variant = "paper", **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0)
        self.variant: Variant = check_choice("variant", variant, get_args(Variant))

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and negative entropy per position, both ``(M,)``."""
        log_probs = F.log_softmax(batch.logits, dim=1)
        penalty = negative_entropy(log_probs)
        return batch.cross_entropy(
            log_probs
        ), penalty if self.variant == "paper" else penalty / log_probs.shape[1]
