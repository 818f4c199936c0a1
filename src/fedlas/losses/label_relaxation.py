"""Label relaxation: zero loss where ``p_y >= 1 - alpha``, else the divergence from the nearest relaxed target.

Source: Lienen and Hüllermeier 2021, "From Label Smoothing to Label Relaxation", AAAI,
https://ojs.aaai.org/index.php/AAAI/article/view/17041. Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, LossWithStrength


@LOSSES.register(
    "label-relaxation",
    paper="From Label Smoothing to Label Relaxation",
    year=2021,
    url="https://ojs.aaai.org/index.php/AAAI/article/view/17041",
    tune={"alpha": "0.01:0.3:log"},
)
class LabelRelaxation(LossWithStrength):
    """Label relaxation: ``KL(r || p)`` if ``p_y < 1 - alpha``, else 0; r is the closest target, ``r_y = 1 - alpha``.

    It gives the other classes the mass alpha in the proportions of the prediction.

    Args:
        alpha: Mass that the other classes may have, in [0, 1]; 1 permits everything.
        **options: Those of every :class:`~fedlas.losses.Loss`. A position is weighted by its class.

    Raises:
        InputError: If alpha is out of range.

    Note:
        The gradient flows through p alone, not through the proportions in r. With ``alpha = 0`` it is cross-entropy.
        Soft targets: each class contributes its share.

    Example:
        >>> LabelRelaxation(alpha=0.2)(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 0]))
        tensor(0.0964)
    """

    strength_bound = 1.0

    def __init__(self, *, alpha: float = 0.1, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0, high=1)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)``, with ``strength``, a float or ``(M,)``, in place of alpha."""
        alpha = torch.as_tensor(strength, dtype=batch.logits.dtype, device=batch.logits.device)

        def cost(nll: Tensor) -> Tensor:
            a = alpha[:, None] if nll.ndim > alpha.ndim > 0 else alpha
            outside = (-nll).exp() < 1 - a
            # Within the others r is proportional to p, so KL(r || p) is the divergence of (1 - a, a) from
            # (p_y, 1 - p_y). log(1 - p_y) is taken only where it is used: at p_y = 1 it has no gradient.
            log_rest = (
                (-torch.expm1(-torch.where(outside, nll, 1.0)))
                .clamp(min=torch.finfo(nll.dtype).tiny)
                .log()
            )
            entropy = torch.special.entr(a) + torch.special.entr(1 - a)
            return torch.where(outside, (1 - a) * nll - a * log_rest - entropy, 0.0)

        return batch.target_cost(cost)
