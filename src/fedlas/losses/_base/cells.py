"""Cells of equal mass, and how far confidence is from accuracy in each."""

from __future__ import annotations

import torch
from torch import Tensor


def equal_mass_edges(values: Tensor, num_cells: int) -> Tensor:
    """Upper edges ``(num_cells - 1,)`` of cells with equal numbers of values ``(N,)``, as far as ties allow."""
    below = torch.arange(1, num_cells, device="cpu") * len(values) // num_cells  # how many values lie below each edge
    return values.sort().values[(below - 1).clamp(min=0)]


def calibration_gaps(cell: Tensor, confidence: Tensor, correct: Tensor, num_cells: int) -> tuple[Tensor, Tensor]:
    """Mean confidence minus accuracy of each cell ``(num_cells,)``, float64, and whether the cell holds any sample.

    Args:
        cell: Of each sample ``(N,)``, in ``[0, num_cells)``.
        confidence: ``(N,)``.
        correct: ``(N,)`` bool.
        num_cells: Number of cells.
    """
    count = torch.bincount(cell, minlength=num_cells)
    excess = torch.bincount(cell, weights=confidence.double() - correct.double(), minlength=num_cells)
    return excess / count.clamp(min=1), count > 0
