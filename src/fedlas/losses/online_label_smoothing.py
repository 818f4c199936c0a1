"""Online label smoothing: the label mixed with the mean correct prediction of the class in the last epoch.

Source: Zhang et al. 2021, "Delving Deep into Label Smoothing", IEEE TIP (arXiv 2011.12562). Written from the paper.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_count
from fedlas._core.ranks import sum_across_ranks
from fedlas.losses._base import (
    LOSSES,
    Batch,
    LearnsFromValidation,
    LossOptions,
    PreciseBuffers,
    SecondTargetLoss,
    paper_metadata,
)
from fedlas.predictions import Predictions


@LOSSES.register(
    "ols",
    **paper_metadata("Delving Deep into Label Smoothing", 2021, "2011.12562"),
    tune={"alpha": "0.05:1:log"},
)
class OnlineLabelSmoothing(PreciseBuffers, SecondTargetLoss, LearnsFromValidation):
    """OLS: ``CE((1 - alpha) t + alpha q_y, p)``, ``q_y`` the mean correct prediction of class y in the last epoch.

    Args:
        num_classes: Number of classes C.
        alpha: Weight of the class's mean, in [0, 1]; the paper uses 0.5.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        soft_labels: Buffer ``(C, C)`` float32: row y is q_y; uniform at first.
        sums: Buffer ``(C, C)`` float32, right predictions of this epoch, summed by class.

    State:
        In training mode with gradients enabled a batch adds its right predictions to the sums, over all ranks.
        :meth:`update_from_validation`, which ends an epoch, turns them into soft labels.

    Raises:
        InputError: If alpha is outside [0, 1], or logits have another number of classes.

    Note:
        A class without a right prediction keeps its soft label. The class of a soft target is its arg-max.

    Example:
        >>> criterion = OnlineLabelSmoothing(num_classes=2)
        >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
        >>> _ = criterion(logits, target)
        >>> criterion.update_from_validation(Predictions(logits, target))
        >>> criterion.soft_labels
        tensor([[0.8808, 0.1192],
                [0.5000, 0.5000]])
    """

    precise: ClassVar[tuple[str, ...]] = ("soft_labels", "sums")
    num_classes: int
    soft_labels: Tensor
    sums: Tensor

    def __init__(
        self, *, num_classes: int, alpha: float = 0.5, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(alpha=alpha, **options)
        self.num_classes = check_count("num_classes", num_classes)
        uniform = torch.full(
            (self.num_classes, self.num_classes), 1 / self.num_classes, dtype=torch.float32
        )
        self.register_buffer("soft_labels", uniform)
        self.register_buffer("sums", torch.zeros_like(uniform))

    def second_target(self, batch: Batch) -> tuple[Tensor, None]:
        """Return the soft label of the target class per position, ``(M, C)``; in training also accumulate the batch."""
        label = batch.favored_class()
        if self.training and torch.is_grad_enabled():
            self._accumulate(batch, label)
        return self.soft_labels[label].to(batch.logits.dtype), None

    @torch.no_grad()
    def _accumulate(self, batch: Batch, label: Tensor) -> None:
        logits = batch.logits.detach()
        right = logits.argmax(dim=1) == label
        counted = right if batch.valid is None else right & batch.valid
        probs = F.softmax(logits, dim=1).to(self.sums.dtype)
        # Masked by where: an ignored row may hold anything, even NaN.
        added = torch.zeros_like(self.sums).index_add_(
            0, label, torch.where(counted[:, None], probs, 0.0)
        )
        self.sums.add_(sum_across_ranks(added))

    def learn_from(self, predictions: Predictions) -> None:  # noqa: ARG002 (the signature)
        """Replace the soft labels by the means of this epoch; the predictions only mark the end of the epoch."""
        total = self.sums.sum(dim=1, keepdim=True)
        self.soft_labels.copy_(
            torch.where(total > 0, self.sums / total.clamp(min=1e-6), self.soft_labels)
        )
        self.sums.zero_()
