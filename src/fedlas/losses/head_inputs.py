"""Features and head weight as losses on the geometry of the last layer see them."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas.losses.base import Batch


def linear_inputs(owner: str, batch: Batch) -> tuple[Tensor, Tensor]:
    """Features ``(M, D)``, one row a position, and the head's weight ``(C, D)``, both in the dtype of the logits.

    Args:
        owner: Who complains.
        batch: One that has both. Features of ignored positions come back as 0, so that nothing they hold, NaN
            included, reaches the gradient of the weight.

    Raises:
        TypeError: If one of both is missing.
    """
    features, weight = batch.features, batch.head_weight
    if features is None or weight is None:
        missing = "features (N, D)" if features is None else "head_weight (C, D)"
        raise TypeError(f"{owner}: {missing} must be passed; got None. Wrap model and loss in fedlas.Objective.")
    features = features.to(batch.logits.dtype)
    if batch.per_image:
        features = features.repeat_interleave(batch.logits.shape[0] // features.shape[0], dim=0)
    return (features if batch.valid is None else torch.where(batch.valid[:, None], features, 0.0)), weight


def counted_rows(batch: Batch) -> Tensor | None:
    """Which rows of ``batch.features`` have a valid position ``(rows,)`` bool; None if all have."""
    if batch.valid is None or batch.features is None or not batch.per_image:
        return batch.valid
    return batch.valid.reshape(batch.features.shape[0], -1).any(dim=1)
