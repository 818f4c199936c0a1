"""Bayesian self-distillation: a Dirichlet target per sample, initialized by the label and updated by predictions.

Source: Adelöw, Maki, Gamba 2025, "Bayesian Self-Distillation for Image Classification" (arXiv 2512.24162). Written from
the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PredictionMemoryLoss, paper_metadata


@LOSSES.register(
    "bsd",
    **paper_metadata("Bayesian Self-Distillation for Image Classification", 2025, "2512.24162"),
    dense=False,
    tune={"prior": "1:100:log", "discount": "0.5:1"},
)
class BayesianSelfDistillation(PredictionMemoryLoss):
    """BSD: ``CE(a / sum(a), p)``; Dirichlet counts start at ``a = prior * t``, each visit sets ``a <- discount a + p``.

    The target is the mean of a Dirichlet distribution that starts at the label and takes predictions as observations.

    Args:
        num_classes: Number of classes C.
        num_samples: Size of the training set that ``index`` points into.
        prior: Count that the label is worth at the start, above 0.
        discount: Weight of the old counts, in (0, 1]; 1 forgets nothing.
        alpha: Weight of this target against the label, in [0, 1]; 1 in the paper.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        memory: Mean of each sample's distribution. Its total count follows from the number of visits.

    State:
        In training mode with gradients enabled a batch uses the memory, then moves its rows; never in ``eval()``.

    Raises:
        InputError: If an argument is out of range; for dense logits; on CPU for an index outside the training set.

    Note:
        After the first visits the label does not enter again: a wrong one can be outvoted.

    Example:
        >>> criterion = BayesianSelfDistillation(num_samples=1, num_classes=2, prior=1.0, discount=1.0)
        >>> _ = criterion(torch.zeros(1, 2), torch.tensor([0]), index=torch.tensor([0]))
        >>> criterion.memory.rows  # counts 1 + 0.5 and 0.5
        tensor([[0.7500, 0.2500]], dtype=torch.float16)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_samples: int,
        prior: float = 10.0,
        discount: float = 0.9,
        alpha: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes=num_classes, num_samples=num_samples, alpha=alpha, **options)
        self.prior = check_number("prior", prior, low=0, low_open=True)
        self.discount = check_number("discount", discount, low=0, high=1, low_open=True)

    def new_memory_rows(self, rows: Tensor, visits: Tensor, probs: Tensor, batch: Batch) -> Tensor:
        """Return the mean of the updated Dirichlet distribution per sample, ``(M, C)``."""
        mean = torch.where((visits > 0)[:, None], rows, batch.target_probs())
        # The total after v visits: prior d^v + (1 + d + ... + d^(v - 1)).
        decay = torch.full_like(probs[:, 0], self.discount).pow(visits)
        added = visits.to(probs.dtype) if self.discount == 1 else (1 - decay) / (1 - self.discount)
        total = (self.discount * (self.prior * decay + added))[:, None]
        return (total * mean + probs) / (total + 1)
