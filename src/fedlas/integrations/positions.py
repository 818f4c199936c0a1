"""Conversion of dense outputs, of sequences or images, to one row per valid position."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_logits, describe

__all__ = ["valid_positions"]


def valid_positions(logits: Any, target: Any, *, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Return the logits ``(M, C)`` and labels ``(M,)`` of all positions whose label is not ``ignore_index``.

    Args:
        logits: ``(N, C)`` or dense ``(N, C, d1, ...)``.
        target: Class indices ``(N,)`` or ``(N, d1, ...)``.
        ignore_index: Target value that is left out.

    Returns:
        Logits ``(M, C)`` and target ``(M,)``; ``M`` is 0 without valid positions.

    Raises:
        InputError: For other shapes, or soft targets.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(2, 5, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
        >>> target[0, 0, 0] = -100
        >>> [tuple(part.shape) for part in valid_positions(logits, target)]
        [(31, 5), (31,)]
    """
    logits = check_logits(logits)
    shape = (logits.shape[0], *logits.shape[2:])
    if not isinstance(target, Tensor) or target.is_floating_point() or target.shape != shape:
        raise InputError(
            f"target must be class indices of shape {shape} for logits {tuple(logits.shape)}",
            describe(target),
            "Move classes to the second axis with logits.movedim(-1, 1), and pass hard labels.",
        )
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    target = target.reshape(-1)
    counts = target != check_count("ignore_index", ignore_index, low=None)
    return (rows, target) if bool(counts.all()) else (rows[counts], target[counts])


def valid_rows(predictions: Any, labels: Any, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return logits and labels at valid positions, from logits ``(N, C)`` or ``(N, L, C)`` of a transformers model."""
    logits = predictions[0] if isinstance(predictions, tuple | list) else predictions
    logits, labels = (
        part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
        for part in (logits, labels)
    )
    if logits.ndim == 3:
        logits = logits.movedim(-1, 1)
    return valid_positions(logits, labels, ignore_index=ignore_index)
