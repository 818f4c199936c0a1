"""DCA: the difference between mean confidence and accuracy of a batch as an auxiliary loss.

Source: Liang et al. 2020, "Improved Trainable Calibration Method for Neural Networks on Medical Imaging
Classification", BMVC (arXiv 2009.04057). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PenalizedLoss, paper_metadata


@LOSSES.register(
    "dca",
    **paper_metadata(
        "Improved Trainable Calibration Method for Neural Networks", 2020, "2009.04057"
    ),
    tune={"alpha": "0.1:20:log"},
)
class DCA(PenalizedLoss):
    """DCA: ``-log p_y + alpha |mean confidence - accuracy|``, with means over the batch.

    Args:
        alpha: Weight of the gap (the paper's beta), at least 0.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions count in neither mean. ``weight`` is
            applied to the cross-entropy and to the gap's share in a sample's loss, not to the means.

    Raises:
        InputError: If alpha is negative.

    Note:
        The gap is one number a batch. It is added to the loss of each position, so that mean, sum and none agree. It
        depends on the other samples of the batch: under DDP each rank uses its own part. Accuracy has no gradient. The
        correct class of a soft target is its arg-max.

    Example:
        >>> import torch
        >>> DCA()(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.6004)
    """

    masked_classes = True
    _nonfinite_if_masked = True

    def __init__(self, *, alpha: float = 1.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return cross-entropy per position, ``(M,)``, and ``|mean confidence - accuracy|`` of the batch, a scalar."""
        nll, confidence, correct = batch.nll_and_confidence()
        return nll, batch.mean_per_sample(confidence - correct.to(confidence.dtype), 1).abs()
