"""Fixed grids of probabilities, for streaming metrics that would otherwise sort all samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedlas.metrics.ranking import CellRuns
from fedlas.metrics.sums import CellSums, Sums, is_in_range

if TYPE_CHECKING:
    from fedlas.metrics.scan import Chunk
    from fedlas.predictions import Predictions

WIDTH_BITS = 14
"""Cells of confidence are ``2**-14`` wide, and narrower near 1, where the confidences of most networks crowd."""
_CROWD = 2.0**-7
# From there on, every octave of 1 - confidence has 2**7 cells: as many as the seven highest bits of its mantissa tell.
_EVEN_CELLS = round((1 - _CROWD) * 2**WIDTH_BITS)
_KEY_BITS = 16
# Keys grow with 1 - confidence. 127 is the exponent bias of float32; the octaves go from 2**-24 to 2**-7.
_LOWEST_KEY = (127 - 24 << 7) - 1
_HIGHEST_KEY = 127 - 7 << 7
NUM_CELLS = _EVEN_CELLS + _HIGHEST_KEY - _LOWEST_KEY + 1
_OCTAVES = 24
"""Octaves of a class's probability that have cells of their own, on either side of 1/2."""


def confidence_cell_index(confidence: Tensor) -> Tensor:
    """Return the grid cell of each confidence, int64 in ``[0, NUM_CELLS)``, ascending with confidence."""
    # Cells are `[a, a + 2**-14)` up to `1 - 2**-7`. Beyond, `1 - confidence` is resolved to seven bits after the
    # leading one, down to `2**-24`, the distance of 1 from the float32 below it. The last cell is what is closer to 1.
    even = (confidence * 2.0**WIDTH_BITS).long()
    # The bits of a positive float32 ascend with it.
    key = (1 - confidence).clamp(min=0).float().view(torch.int32) >> _KEY_BITS
    crowded = _EVEN_CELLS + _HIGHEST_KEY - key.clamp(min=_LOWEST_KEY).long()
    return torch.where(key < _HIGHEST_KEY, crowded, even.clamp(max=_EVEN_CELLS))


def octave_bits(num_classes: int) -> int:
    """Return ``bits`` for ``2**bits`` cells per octave: fewer for more classes; at most 35 MiB up to 511 classes."""
    return min(10, max(5, 14 - num_classes.bit_length()))


def num_cells(bits: int) -> int:
    """Return the number of cells per class: octaves below and above 1/2, and both tails."""
    return 2 * ((_OCTAVES - 1 << bits) + 1) + 1


def probability_cell_index(probs: Tensor, *, bits: int) -> Tensor:
    """Return the grid cell of each probability, int64 in ``[0, num_cells(bits))``, ascending with probability."""
    # Every octave of `p` below 1/2, and of `1 - p` above, has `2**bits` cells, down to `2**-24`; the first cell is what
    # is below that and the last one what is closer to 1.
    probs = probs.float()
    # The bits of a positive float32 ascend with it: the exponent's, then as many of the mantissa's as are asked for.
    key = torch.minimum(probs, 1 - probs).clamp(min=0).view(torch.int32) >> (23 - bits)
    # All that lies below 2**-_OCTAVES shares cell 0.
    near = (key - ((127 - _OCTAVES << bits) - 1)).clamp(min=0).long()
    return torch.where(probs > 0.5, num_cells(bits) - 1 - near, near)


def softmax_float64(logits: Tensor) -> Tensor:
    """Return the softmax in float64 on the CPU; up to ten thousand classes, independent of the batch."""
    # The largest logit is taken off first: beside a large one the sum would be rounded, and equal probabilities of two
    # rows, between which no bin may be cut, would not be equal any more.
    below = logits.cpu().double() - logits.amax(dim=1, keepdim=True).cpu().double()
    return (below - below.logsumexp(dim=1, keepdim=True)).exp_()


class _GridSums(Sums):
    """Count and sum of the probabilities in each cell, separately for wrong and right: ``(groups, 2, cells)``."""

    def __init__(self, num_bins: int, groups: int, cells: int) -> None:
        self.num_bins = num_bins
        self._shape = (groups, 2, cells)
        self._cells = CellSums(2 * groups * cells, "probs")
        # Samples of weight above 0, to which the weights are scaled.
        self._rows = torch.zeros(1, dtype=torch.float64, device="cpu")

    def _add_probs(self, cell: Tensor, probs: Tensor, weights: Tensor) -> None:
        """Add flat arrays of cells and probabilities, with row weights repeated for each group."""
        self._rows += torch.count_nonzero(weights).double() / self._shape[0]
        self._cells.add(cell, weights, weights * probs)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums ``(2, groups 2 cells)``."""
        return {"sums": self._cells.values, "rows": self._rows}

    def is_consistent(self, samples: float, *, weighted: bool) -> bool:
        """Return whether the sums are consistent with this number of samples."""
        rows = is_in_range(self._rows, 0, samples)
        return rows and self._cells.is_consistent(
            samples, weighted=weighted, terms_per_sample=self._shape[0]
        )

    def table(self) -> Any:
        """Yield the non-empty cells of each group by ascending probability, with weights scaled to average 1."""
        groups = self._shape[0]
        sums = self._cells.arrays()
        total = float(sums[0].sum())
        scale = groups * float(self._rows) / total if total else 1.0
        count, probs = (sums * scale).reshape(2, *self._shape)
        for (wrong, right), (wrong_probs, right_probs) in zip(count, probs, strict=True):
            filled = (wrong + right) > 0
            yield CellRuns(
                right[filled],
                wrong[filled],
                right_probs[filled],
                wrong_probs[filled],
                self.num_bins,
            )


class FineGrid(_GridSums):
    """Statistic: count and sum of the confidences of right and wrong predictions in each grid cell."""

    top_label = True

    def __init__(self, _predictions: object, num_bins: int) -> None:
        super().__init__(num_bins, 1, NUM_CELLS)

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        cell = confidence_cell_index(chunk.confidence) + NUM_CELLS * chunk.correct
        self._add_probs(cell, chunk.confidence, chunk.weights)

    def table(self) -> CellRuns:
        """Return the non-empty cells by ascending confidence."""
        return next(super().table())


class ClassGrid(_GridSums):
    """Statistic: for each class and grid cell, count and sum of the probabilities of labels and non-labels."""

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        self.num_classes = predictions.num_classes
        self._bits = octave_bits(predictions.num_classes)
        super().__init__(num_bins, self.num_classes, num_cells(self._bits))

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        probs = softmax_float64(chunk.logits)
        cells = self._shape[2]
        first = 2 * cells * torch.arange(self.num_classes, device="cpu")
        cell = probability_cell_index(probs, bits=self._bits) + first
        cell.scatter_add_(1, chunk.target[:, None], torch.full_like(cell[:, :1], cells))
        weights = chunk.weights.repeat_interleave(self.num_classes)
        # Logits of any layout: what is computed of column-major ones is column-major, too, and has no flat view.
        self._add_probs(cell.reshape(-1), probs.reshape(-1), weights)
