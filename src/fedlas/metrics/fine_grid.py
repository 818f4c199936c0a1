"""A fine fixed grid of confidences, kept in place of all samples when a metric streams."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedlas.metrics.ranking import Ranking
from fedlas.metrics.scan import Chunk
from fedlas.metrics.sums import CellSums
from fedlas.metrics.weighted import has_weights
from fedlas.predictions.predictions import AnyPredictions

WIDTH_BITS = 14
"""Cells are ``2**-14`` wide, and narrower near 1, where the confidences of most networks crowd."""
_CROWD = 2.0**-7
# From there on, every octave of 1 - confidence has 2**7 cells: as many as the seven highest bits of its mantissa tell.
_EVEN_CELLS = round((1 - _CROWD) * 2**WIDTH_BITS)
_KEY_BITS = 16
# Keys grow with 1 - confidence. 127 is the exponent bias of float32; the octaves go from 2**-24 to 2**-7.
_LOWEST_KEY = (127 - 24 << 7) - 1
_HIGHEST_KEY = 127 - 7 << 7
NUM_CELLS = _EVEN_CELLS + _HIGHEST_KEY - _LOWEST_KEY + 1


def cell_of(confidence: Tensor) -> Tensor:
    """The cell of each confidence, int64 in ``[0, NUM_CELLS)``, ascending with it.

    Cells are ``[a, a + 2**-14)`` up to ``1 - 2**-7``. Beyond, ``1 - confidence`` is resolved to seven bits after the
    leading one, down to ``2**-24``, the distance of 1 from the float32 below it. The last cell is what is closer to 1.
    """
    even = (confidence * 2.0**WIDTH_BITS).long()
    # The bits of a positive float32 ascend with it.
    key = (1 - confidence).clamp(min=0).float().view(torch.int32) >> _KEY_BITS
    crowded = _EVEN_CELLS + _HIGHEST_KEY - key.clamp(min=_LOWEST_KEY).long()
    return torch.where(key < _HIGHEST_KEY, crowded, even.clamp(max=_EVEN_CELLS))


@dataclass(frozen=True, eq=False)
class Masses:
    """Groups of samples that lie close together: how many, where, and with what gap; ``(G,)`` float64 on the CPU.

    Attributes:
        position: Mean confidence of the group.
        gap: Sum of ``confidence - correct``.
        num_samples: ``N``, of all groups together.
    """

    position: Tensor
    gap: Tensor
    num_samples: float


class FineGrid:
    """Statistic: number and sum of confidences of right and of wrong predictions, in each cell of a fixed grid."""

    top_label = True
    takes_weights = True

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self.num_bins = num_bins
        weighted = has_weights(predictions)
        self._count, self._confidence = CellSums(2 * NUM_CELLS, weighted, bits=0), CellSums(2 * NUM_CELLS, weighted)
        self._rows = torch.zeros(1, dtype=torch.int64, device="cpu") if weighted else None

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.add(chunk.confidence, chunk.correct, None if self._rows is None else chunk.weights)

    def add(self, confidence: Tensor, correct: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples with ``confidence (n,)`` and ``correct (n,)`` bool, and their weights, if any."""
        cell = cell_of(confidence) + NUM_CELLS * correct
        self._count.add(cell, weights=weights)
        self._confidence.add(cell, confidence, weights)
        if weights is not None and self._rows is not None:
            self._rows += torch.count_nonzero(weights)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        sums = {"count": self._count.values, "confidence": self._confidence.values}
        return sums if self._rows is None else {**sums, "rows": self._rows}

    def ranking(self) -> Ranking:
        """The cells that are not empty, by ascending confidence; weights are scaled to average 1."""
        total = self._count.floats()
        scale = 1.0 if self._rows is None else float(self._rows / total.sum())
        wrong, right = scale * total.view(2, NUM_CELLS).numpy()
        wrong_confidence, right_confidence = scale * self._confidence.floats().view(2, NUM_CELLS).numpy()
        filled = (right + wrong) > 0
        return Ranking(right[filled], wrong[filled], right_confidence[filled], wrong_confidence[filled])

    def masses(self) -> Masses:
        """Right and wrong predictions of each cell as a group each: within one, gaps and positions go together."""
        total = self._count.floats()
        filled = total > 0
        count, confidence = total[filled], self._confidence.floats()[filled]
        right = filled.nonzero().squeeze(1) >= NUM_CELLS
        return Masses(confidence / count, confidence - count * right, total.sum().item())
