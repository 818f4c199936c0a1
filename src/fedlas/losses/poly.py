"""PolyLoss: cross-entropy plus a multiple of the first term of its expansion in ``1 - p_y``.

Source: Leng et al. 2022, "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR,
its Poly-1 form (arXiv 2204.12511). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, paper_metadata


@LOSSES.register(
    "poly", **paper_metadata("PolyLoss", 2022, "2204.12511"), signed=("eps",), tune={"eps": "-1:6"}
)
class PolyLoss(Loss):
    """Poly-1 loss: ``-log p_y + eps (1 - p_y)``.

    Args:
        eps: Addition to the coefficient of ``1 - p_y``, which is 1 in cross-entropy; at least -1. The paper uses 2 for
            classification on ImageNet and -1 for detection and segmentation on COCO.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If eps is below -1.

    Note:
        Soft targets: each class contributes its share, ``sum_k t_k (-log p_k + eps (1 - p_k))``.

    Example:
        >>> PolyLoss(eps=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.2461)
    """

    masked_classes = True

    def __init__(self, *, eps: float = 2.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.eps = check_number("eps", eps, low=-1)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        # expm1 finds 1 - p without cancellation where p is near 1.
        return batch.target_cost(lambda nll: nll - self.eps * torch.expm1(-nll))
