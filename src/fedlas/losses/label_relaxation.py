"""Label relaxation: no loss while the label's probability is high enough, the nearest permitted target otherwise.

Source: Lienen and Hüllermeier 2021, "From Label Smoothing to Label Relaxation", AAAI,
https://ojs.aaai.org/index.php/AAAI/article/view/17041. Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, LossWithStrength

__all__ = ["LabelRelaxation"]


@LOSSES.register(
    "label-relaxation",
    paper="From Label Smoothing to Label Relaxation",
    year=2021,
    url="https://ojs.aaai.org/index.php/AAAI/article/view/17041",
    tune={"alpha": "0.01:0.3:log"},
)
class LabelRelaxation(LossWithStrength):
    """Label relaxation: ``KL(r || p)`` where ``p_y < 1 - alpha``, else 0; r is the nearest with ``r_y = 1 - alpha``.

    It gives the other classes the mass alpha in the proportions of the prediction.

    Args:
        alpha: Mass that the other classes may have, in [0, 1).
        **options: Those of every :class:`~fedlas.losses.Loss`. A position is weighted by its class.

    Raises:
        InputError: If alpha is out of range.

    Note:
        The gradient flows through p alone, not through the proportions in r. With ``alpha = 0`` it is cross-entropy.
        The class of a soft target is the one that it favors.

    Example:
        >>> LabelRelaxation(alpha=0.2)(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 0]))
        tensor(0.0964)
    """

    strength_bound = 1.0

    def __init__(self, *, alpha: float = 0.1, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("LabelRelaxation", "alpha", alpha, low=0, high=1)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        label = batch.favored()
        nll = F.cross_entropy(batch.logits, label, reduction="none")
        alpha = torch.as_tensor(strength, dtype=nll.dtype, device=nll.device)
        # Within the others r is proportional to p, so KL(r || p) is the divergence of two numbers: (1 - a, a) from
        # (p_y, 1 - p_y). log(1 - p_y) from the other logits alone: 1 - p_y cancels where p_y is near 1.
        others = batch.logits.scatter(1, label[:, None], float("-inf"))
        log_rest = torch.logsumexp(others, dim=1) - torch.logsumexp(batch.logits, dim=1)
        entropy = torch.special.entr(alpha) + torch.special.entr(1 - alpha)
        divergence = (1 - alpha) * nll - torch.where(alpha > 0, alpha * log_rest, 0.0) - entropy
        outside = (-nll).exp() < 1 - alpha
        return batch.weighted(torch.where(outside, divergence, 0.0))
