"""MDCA: the difference between mean probability and frequency of every class of a batch as an auxiliary loss.

Source: Hebbalaguppe et al. 2022, "A Stitch in Time Saves Nine: A Train-Time Regularizing Loss for Improved Neural
Network Calibration", CVPR (arXiv 2203.13834). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses.base import LOSSES, Batch, LossOptions
from fedlas.losses.composite import Base, OnBase


def class_gap(logits: Tensor, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """``mean_k |mean_i p_ik - mean_i t_ik|``, a scalar in [0, 1].

    Args:
        logits: ``(N, C)``.
        target: Class indices ``(N,)`` in ``[0, C)``, or soft targets ``(N, C)``, whose mean is the class frequency.
        valid: Which samples count ``(N,)`` bool; None counts all.

    Example:
        >>> class_gap(torch.zeros(2, 2), torch.tensor([0, 0]))
        tensor(0.5000)
    """
    probs = F.softmax(logits, dim=1)
    if target.ndim == 2:
        frequency = _mean(target, valid)
    else:
        counted = torch.ones_like(target, dtype=logits.dtype) if valid is None else valid.to(logits.dtype)
        frequency = logits.new_zeros(logits.shape[1]).scatter_add(0, target, counted) / counted.sum().clamp(min=1)
    return (_mean(probs, valid) - frequency).abs().mean()


def _mean(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of the valid rows, ``(C,)``; what the others hold does not matter."""
    if valid is None:
        return rows.mean(dim=0)
    return torch.where(valid[:, None], rows, 0.0).sum(dim=0) / valid.sum().clamp(min=1)


@LOSSES.register(
    "mdca",
    paper="A Stitch in Time Saves Nine",
    year=2022,
    url="https://arxiv.org/abs/2203.13834",
    tune={"alpha": "0.1:20:log"},
)
class MDCA(OnBase):
    """MDCA: a base loss plus ``alpha mean_k |mean_i p_ik - mean_i 1[y_i = k]|``, the means taken over the batch.

    Args:
        num_classes: Number of classes C; None takes any, if the base does.
        base: The loss it is added to: one, its registry name, or ``{"name": ..., option: ...}``. The paper reports its
            best results with focal loss: ``"focal"``.
        alpha: Weight of the gap (the paper's beta), at least 0.
        num_samples: Size of the training set, for a base that needs it.
        **options: Those of every :class:`~fedlas.losses.Loss`. What is ignored touches neither mean. ``weight`` is that
            of the base and of the gap's share in a sample's loss, not of the means.

    Attributes:
        base: The loss it is added to.

    Raises:
        InputError: If alpha is negative, or base is not a loss that can be built on.

    Note:
        The gap is one number a batch and is added to each position's loss, so that mean, sum and none agree. It
        depends on who shares the batch: under DDP it is that of each rank's own part. With many more classes than
        samples most frequencies are 0.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0])
        >>> MDCA()(logits, target)
        tensor(0.7196)
        >>> MDCA(base={"name": "focal", "gamma": 1.0})(logits, target)
        tensor(0.4905)
    """

    strength = "alpha"

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        base: Base = "ce",
        alpha: float = 1.0,
        num_samples: int | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(base, num_classes=num_classes, num_samples=num_samples, **options)
        self.alpha = check_number("MDCA", "alpha", alpha, low=0)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.alpha)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        batch.check_classes("MDCA", self.num_classes)
        gap = class_gap(batch.logits, batch.target, valid=batch.valid)
        return self.base.per_sample(batch) + strength * batch.weighted(gap)
