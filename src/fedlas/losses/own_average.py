"""Cross-entropy on the label mixed with a running average of past predictions for the sample.

The average comes from temporal ensembling (Laine and Aila 2017, arXiv 1610.02242), which uses it for unlabeled samples.
Its use as a target next to the label is this library's. :class:`~fedlas.losses.Controlled` can set its weight.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PredictionMemoryLoss, paper_metadata


@LOSSES.register(
    "own-average",
    **paper_metadata("Temporal Ensembling for Semi-Supervised Learning", 2017, "1610.02242"),
    dense=False,
    note="the average is the paper's, its use as a target next to the label this library's",
    tune={"alpha": "0.1:1", "keep": "0:0.99", "gamma": "0:1"},
)
class OwnAverage(PredictionMemoryLoss):
    """Cross-entropy on ``(1 - alpha) t + alpha q``; each visit of a sample updates ``q <- keep q + (1 - keep) p``.

    Args:
        num_classes: Number of classes C.
        num_samples: Size of the training set that ``index`` points into.
        alpha: Weight of q, in [0, 1].
        keep: Weight of the old average, in [0, 1); the first visit sets q to the prediction.
        gamma: Above 0, the loss is multiplied by ``||(1 - alpha) t + alpha q - p||^gamma``, through which no gradient
            flows: BSCE-GRA's weight with this target. It does harm where labels are wrong.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        memory: The averages, and the number of visits.

    State:
        In training mode with gradients enabled a batch uses the memory, then moves its rows; never in ``eval()``.

    Raises:
        InputError: If an argument is out of range; for dense logits; on CPU for an index outside the training set.

    Note:
        The average is over augmentations too, since every visit sees another one.

    Example:
        >>> criterion = OwnAverage(num_samples=1, num_classes=2, alpha=0.5)
        >>> logits, target, index = torch.tensor([[0.0, 0.0]]), torch.tensor([0]), torch.tensor([0])
        >>> first, second = (criterion(logits, target, index=index) for _ in range(2))
        >>> criterion.memory.rows
        tensor([[0.5000, 0.5000]], dtype=torch.float16)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_samples: int,
        alpha: float = 0.3,
        keep: float = 0.9,
        gamma: float = 0.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(
            num_classes=num_classes, num_samples=num_samples, alpha=alpha, gamma=gamma, **options
        )
        self.keep = check_number("keep", keep, low=0, high=1, high_open=True)

    def new_memory_rows(self, rows: Tensor, visits: Tensor, probs: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the updated running average of predictions per sample, ``(M, C)``."""
        # The row of a sample that is seen for the first time is 0, which is no average to start from.
        return torch.where((visits > 0)[:, None], self.keep * rows + (1 - self.keep) * probs, probs)
