"""The Brier score as a training loss.

Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78
(https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fedlas.losses._base import LOSSES, Batch, Loss


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Return the Brier score per row, ``sum_k (p_k - t_k)^2``, ``(N,)`` in [0, 2]; twice differentiable."""
    probs = F.softmax(logits, dim=1)
    if target.ndim == 2:
        return (probs - target).square().sum(dim=1)
    # -1 is added at the target in place of subtracting one-hot rows, which would be a second tensor (N, C).
    minus_one = probs.new_full((1, 1), -1.0).expand(len(target), 1)
    return probs.scatter_add(1, target[:, None], minus_one).square().sum(dim=1)


@LOSSES.register(
    "brier",
    paper="Verification of Forecasts Expressed in Terms of Probability",
    year=1950,
    url="https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
)
class BrierLoss(Loss):
    """Brier score: ``sum_k (p_k - 1[y = k])^2``, summed over classes, in [0, 2].

    Args:
        reduction: See :class:`~fedlas.losses.Loss`.
        ignore_index: See there.
        weight: See there. A sample's score is weighted by its class.

    Note:
        A proper score, as cross-entropy is, but bounded: a confident mistake has almost no gradient. The loss of a soft
        target is the distance to it, so a prediction equal to its target costs 0.

    Example:
        >>> import torch
        >>> BrierLoss()(torch.zeros(1, 4), torch.tensor([2]))
        tensor(0.7500)
    """

    masked_classes = True

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return batch.apply_class_weights(squared_error(batch.logits, batch.target))
