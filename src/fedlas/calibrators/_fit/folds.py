"""Cross-validation folds that depend on the samples and not on their order."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor


def canonical_order(logits: Tensor, target: Tensor) -> Tensor:
    """An order of the samples that does not depend on the stored one: by class, and practically random within it.

    Sorted by label, then by a checksum of the row of logits. Rows with the same checksum are nearly always equal, and
    the order of equal samples does not matter.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.

    Returns:
        ``(N,)`` int64: indices of the samples in that order.
    """
    rows = np.ascontiguousarray(logits.cpu().double().numpy() + 0.0)  # + 0.0 turns -0.0 into 0.0
    checksums = np.fromiter((zlib.crc32(row.tobytes()) for row in rows), dtype=np.int64, count=len(rows))
    return torch.from_numpy(np.lexsort((checksums, target.cpu().numpy())))


def stratified_folds(logits: Tensor, target: Tensor, count: int) -> Tensor:
    """The fold of each sample ``(N,)``, in ``[0, count)``; sizes differ by at most one, overall and within each class.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        count: Number of folds, at least 1.
    """
    folds = torch.empty(len(target), dtype=torch.int64, device="cpu")
    folds[canonical_order(logits, target)] = torch.arange(len(target), device="cpu") % count
    return folds
