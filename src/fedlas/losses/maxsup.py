"""MaxSup: label smoothing that penalizes the largest logit instead of the target logit.

Source: Zhou et al. 2025, "MaxSup: Overcoming Representation Collapse in Label Smoothing"
(arXiv 2502.15798). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PenalizedLoss, paper_metadata


def top_logit_excess(logits: Tensor) -> Tensor:
    """Return the top logit minus the mean logit per row, ``max_k z_k - mean_k z_k``, ``(N,)``, at least 0."""
    # amax, since equal maxima share its gradient evenly; max gives it to one of them.
    return logits.amax(dim=1) - logits.mean(dim=1)


@LOSSES.register(
    "maxsup",
    **paper_metadata("Overcoming Representation Collapse", 2025, "2502.15798"),
    tune={"alpha": "0.005:0.5:log"},
)
class MaxSup(PenalizedLoss):
    """MaxSup: ``-log p_y + alpha (max_k z_k - mean_k z_k)``.

    Label smoothing has ``z_y`` instead of the maximum. For a wrong prediction it then lowers a logit that is too small
    already; MaxSup lowers the wrong one.

    Args:
        alpha: Weight of the penalty, at least 0. The authors' ImageNet recipe raises it from 0.1 to 0.2 over training.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If alpha is negative.

    Note:
        ``alpha`` is a plain attribute: a schedule sets it between epochs.

    Example:
        >>> import torch
        >>> MaxSup(alpha=0.1)(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))
        tensor(2.2269)
    """

    _nonfinite_if_masked = True

    def __init__(self, *, alpha: float = 0.1, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and top logit minus mean logit per position, both ``(M,)``."""
        return batch.cross_entropy(), top_logit_excess(batch.logits)
