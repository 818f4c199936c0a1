"""MDCA: auxiliary loss on the difference between mean probability and frequency of each class in a batch.

Source: Hebbalaguppe et al. 2022, "A Stitch in Time Saves Nine: A Train-Time Regularizing Loss for Improved Neural
Network Calibration", CVPR (arXiv 2203.13834). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import (
    LOSSES,
    Base,
    BaseOptions,
    Batch,
    LossWrapper,
    PenalizedLoss,
    paper_metadata,
)


def class_calibration_gap(batch: Batch) -> Tensor:
    """Return ``mean_k |mean_i p_ik - mean_i t_ik|`` over the valid positions of a batch, a scalar in [0, 1]."""
    # The mean of the differences is the difference of the means, in one pass and with one mask.
    return (
        batch.mean_per_sample(F.softmax(batch.logits, dim=1) - batch.target_probs(), 1).abs().mean()
    )


@LOSSES.register(
    "mdca",
    **paper_metadata("A Stitch in Time Saves Nine", 2022, "2203.13834"),
    tune={"alpha": "0.1:20:log"},
)
class MDCA(PenalizedLoss, LossWrapper):
    """MDCA: a base loss plus ``alpha mean_k |mean_i p_ik - mean_i 1[y_i = k]|``, with means over the batch.

    Args:
        num_classes: Number of classes C; None accepts any, if the base does.
        base: The loss to which the gap is added: a loss, its registry name, or ``{"name": ..., option: ...}``. The
            paper reports its best results with focal loss: ``"focal"``.
        alpha: Weight of the gap (the paper's beta), at least 0.
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them. Ignored positions count in neither mean. ``weight`` is
            applied to the base and to the gap's share in a sample's loss, not to the means.

    Attributes:
        base: The loss to which the gap is added.

    Raises:
        InputError: If alpha is negative, or base is not a loss that can be built on.

    Note:
        The gap is one number a batch. It is added to the loss of each position, so that mean, sum and none agree. It
        depends on the other samples of the batch: under DDP each rank uses its own part. With many more classes than
        samples most frequencies are 0.

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0])
        >>> MDCA()(logits, target)
        tensor(0.7196)
        >>> MDCA(base={"name": "focal", "gamma": 1.0})(logits, target)
        tensor(0.4905)
    """

    masked_classes = True

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        base: Base = "ce",
        alpha: float = 1.0,
        **options: Unpack[BaseOptions],
    ) -> None:
        super().__init__(base, num_classes=num_classes, **options)
        self.alpha = check_number("alpha", alpha, low=0)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of the base per position, ``(M,)``, and the class calibration gap of the batch, a scalar."""
        return self.base.per_sample(batch), class_calibration_gap(batch)
