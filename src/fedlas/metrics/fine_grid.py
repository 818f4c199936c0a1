"""A fine fixed grid of confidences, kept in place of all samples when a metric streams."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedlas.metrics.ranking import Ranking
from fedlas.metrics.scan import Chunk
from fedlas.metrics.weighted import counts_for, has_weights, once, sums_for, times
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
        self._count, self._confidence = counts_for(2 * NUM_CELLS, weighted), sums_for(2 * NUM_CELLS, weighted)
        self._rows = counts_for(1, False) if weighted else None

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.add(chunk.confidence, chunk.correct, None if self._rows is None else chunk.weights)

    def add(self, confidence: Tensor, correct: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples with ``confidence (n,)`` and ``correct (n,)`` bool, and their weights, if any."""
        place = cell_of(confidence) + NUM_CELLS * correct
        self._count.index_add_(0, place, once(place, weights))
        self._confidence.add(times(confidence, weights), place)
        if weights is not None and self._rows is not None:
            self._rows += torch.count_nonzero(weights)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        sums = {"count": self._count, "confidence": self._confidence.digits}
        return sums if self._rows is None else {**sums, "rows": self._rows}

    def ranking(self) -> Ranking:
        """The cells that are not empty, by ascending confidence; weights are scaled to average 1."""
        scale = 1.0 if self._rows is None else float(self._rows / self._count.sum())
        wrong, right = scale * self._count.double().view(2, NUM_CELLS).numpy()
        wrong_confidence, right_confidence = scale * self._confidence.floats().view(2, NUM_CELLS).numpy()
        filled = (right + wrong) > 0
        return Ranking(right[filled], wrong[filled], right_confidence[filled], wrong_confidence[filled])

    def masses(self) -> Masses:
        """Right and wrong predictions of each cell as a group each: within one, gaps and positions go together."""
        filled = self._count > 0
        count, confidence = self._count[filled].double(), self._confidence.floats()[filled]
        right = filled.nonzero().squeeze(1) >= NUM_CELLS
        return Masses(confidence / count, confidence - count * right, self._count.sum().item())
