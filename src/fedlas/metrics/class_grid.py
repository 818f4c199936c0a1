"""A fixed grid of probabilities for every class, kept in place of all samples when a metric streams."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedlas.metrics.ranking import Ranking
from fedlas.metrics.scan import Chunk
from fedlas.metrics.sums import CellSums
from fedlas.metrics.weighted import has_weights
from fedlas.predictions import Predictions

_OCTAVES = 24
"""Octaves of probabilities that have cells of their own, on either side of 1/2."""


def octave_bits(num_classes: int) -> int:
    """An octave has ``2**bits`` cells: the fewer classes the more, for a grid of at most 35 MiB up to 511 classes."""
    return min(10, max(5, 14 - num_classes.bit_length()))


def num_cells(bits: int) -> int:
    """Cells of a class: all octaves on either side, what is beyond them, and one that begins at 1/2."""
    return 2 * ((_OCTAVES - 1 << bits) + 1) + 1


def cell_of(probs: Tensor, *, bits: int) -> Tensor:
    """The cell of each probability, int64 in ``[0, num_cells(bits))``, ascending with it.

    Every octave of ``p`` below 1/2, and of ``1 - p`` above, has ``2**bits`` cells, down to ``2**-24``; the first cell
    is what is below that and the last one what is closer to 1.
    """
    probs = probs.float()
    # The bits of a positive float32 ascend with it: the exponent's, then as many of the mantissa's as are asked for.
    key = torch.minimum(probs, 1 - probs).clamp(min=0).view(torch.int32) >> (23 - bits)
    # 127 is the exponent bias of float32; all that lies below 2**-_OCTAVES shares cell 0.
    near = (key - ((127 - _OCTAVES << bits) - 1)).clamp(min=0).long()
    return torch.where(probs > 0.5, num_cells(bits) - 1 - near, near)


def class_probs(logits: Tensor) -> Tensor:
    """Softmax in float64 on the CPU; a row of up to some ten thousand classes is the same however many there are.

    The largest logit is taken off first: beside a large one the sum would be rounded, and equal probabilities of two
    rows, between which no bin may be cut, would not be equal any more.
    """
    below = logits.cpu().double() - logits.amax(dim=1, keepdim=True).cpu().double()
    return (below - below.logsumexp(dim=1, keepdim=True)).exp_()


class ClassGrid:
    """Statistic: for each class and cell of the grid, number and sum of its probabilities, and those of its label.

    Args:
        predictions: Any with as many classes as those to come.
        num_bins: ``B``.
    """

    takes_weights = True

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        self.num_classes, self.num_bins = predictions.num_classes, num_bins
        self._bits = octave_bits(self.num_classes)
        self._cells = num_cells(self._bits)
        size = 2 * self.num_classes * self._cells  # for each cell of a class, where it is not the label and where it is
        weighted = has_weights(predictions)
        self._count, self._probs = CellSums(size, weighted, bits=0), CellSums(size, weighted)
        self._rows = torch.zeros(1, dtype=torch.int64, device="cpu") if weighted else None

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        probs = class_probs(chunk.logits)
        cell = cell_of(probs, bits=self._bits) + 2 * self._cells * torch.arange(self.num_classes, device="cpu")
        cell.scatter_add_(1, chunk.target[:, None], torch.full_like(cell[:, :1], self._cells))
        # Logits of any layout: what is computed of column-major ones is column-major, too, and has no flat view.
        cell, weights = cell.reshape(-1), None
        if chunk.weights is not None and self._rows is not None:
            weights = chunk.weights[:, None].expand_as(probs).reshape(-1)
            self._rows += torch.count_nonzero(chunk.weights)
        self._count.add(cell, weights=weights)
        self._probs.add(cell, probs.reshape(-1), weights)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        sums = {"count": self._count.values, "probs": self._probs.values}
        return sums if self._rows is None else {**sums, "rows": self._rows}

    def rankings(self) -> Iterator[Ranking]:
        """For one class after the other, its cells that are not empty, by ascending probability."""
        total = self._count.floats()
        # Every sample is in one cell of every class.
        scale = 1.0 if self._rows is None else self.num_classes * float(self._rows / total.sum())
        count = scale * total.view(self.num_classes, 2, self._cells).numpy()
        probs = scale * self._probs.floats().view(self.num_classes, 2, self._cells).numpy()
        for (others, label), (other_probs, label_probs) in zip(count, probs, strict=True):
            filled = (others + label) > 0
            yield Ranking(label[filled], others[filled], label_probs[filled], other_probs[filled])
