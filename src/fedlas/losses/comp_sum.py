"""Generalized cross-entropy (comp-sum losses), which ranges from the sum-exponential loss to the MAE.

Source: Mao, Mohri, Zhong 2023, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications", ICML
(arXiv 2304.07288); for tau in (1, 2) Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss" (arXiv 1805.07836).
Written from the papers.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, paper_metadata


def generalized_cross_entropy(nll: Tensor, tau: float) -> Tensor:
    """Return the generalized cross-entropy ``(1 - p^(tau - 1)) / (tau - 1)`` from ``nll = -log p``.

    Args:
        nll: Any shape.
        tau: In [0, 2].

    Example:
        >>> generalized_cross_entropy(torch.tensor([0.6931]), 2.0)  # 1 - p
        tensor([0.5000])
    """
    power = tau - 1
    # Beyond exp(80) a class of share 0 would give 0 times infinity.
    return nll if power == 0 else -torch.expm1((-power * nll).clamp(max=80)) / power


@LOSSES.register(
    "gce",
    **paper_metadata(
        "Cross-Entropy Loss Functions: Theoretical Analysis and Applications", 2023, "2304.07288"
    ),
    tune={"tau": "1:2"},
)
class GCE(Loss):
    """Generalized cross-entropy, as a comp-sum loss: ``(1 - p_y^(tau - 1)) / (tau - 1)``.

    Args:
        tau: 0 is the sum-exponential loss ``1 / p_y - 1``, 1 is cross-entropy, 2 is ``1 - p_y``. The default is
            Zhang and Sabuncu's q = 0.7.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If tau is outside [0, 2].

    Note:
        Above 1 it is bounded, so wrong labels weigh less. Soft targets: each class contributes its share.

    Example:
        >>> GCE(tau=2.0)(torch.zeros(1, 4), torch.tensor([0]))
        tensor(0.7500)
    """

    masked_classes = True

    def __init__(self, *, tau: float = 1.7, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.tau = check_number("tau", tau, low=0, high=2)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return batch.target_cost(lambda nll: generalized_cross_entropy(nll, self.tau))
