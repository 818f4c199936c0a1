"""Sums over classes and bins of the class's probability, for many replicates at a time."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.equal_width import equal_width_index
from fedlas.stats.cell_sums import ReplicateCellSums

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.metrics.scan import Chunk
    from fedlas.stats.rows import Rows

_MAX_BLOCKS = 2**10
_FEWEST_BLOCKS = 2**8
_BLOCK_SUMS = 2**23
FEW_CLASSES = 10
"""With fewer, the labels of two classes depend on each other too much to be drawn apart."""


class ClassCellSums:
    """Weighted sums over cells, for many replicates; the cell index is ``class * num_bins + bin``."""

    # A row of probabilities adds up to 1, so fewer than `num_bins` of its entries are beyond the first bin. Only those
    # are put into cells one by one; the first bin is what they leave of the class.

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._num_cells = rows.num_classes * rows.num_bins
        unit = np.arange(rows.num_samples) if rows.clusters is None else rows.clusters
        self._probs = rows.probs.astype(np.float64) * rows.weights[:, None]
        probs = rows.probs.ravel()
        # all that are beyond the first bin, and few others
        place = np.flatnonzero(probs >= 0.99 / rows.num_bins)
        place = place[rows.bin_indices(probs[place]) > 0]
        index, label = np.divmod(place, rows.num_classes)
        self._beyond = ReplicateCellSums(
            unit[index], self._cell_index(index, label), self._num_cells
        )
        self._beyond_counts = self._beyond.sum_by_unit(rows.weights[index])
        self._beyond_probs = self._beyond.sum_by_unit(self._probs.ravel()[place])
        in_first = rows.num_samples - np.bincount(label, minlength=rows.num_classes)
        self._first_filled = in_first > 0
        every = np.arange(rows.num_samples)
        self._labels = ReplicateCellSums(
            unit, self._cell_index(every, rows.target), self._num_cells
        )
        self._label_counts = self._labels.sum_by_unit(rows.weights)
        self._unit_weights = rows.weights
        if rows.clusters is not None:
            self._unit_weights = np.bincount(unit, rows.weights).astype(np.float64)
            self._probs = np.stack([np.bincount(unit, each) for each in self._probs.T], axis=1)

    def probs(self, weights: FloatArray) -> FloatArray:
        """Return the sum of the class's probability in each cell ``(R, cells)``, from unit weights ``(R, U)``."""
        return self._fill_first_bin(
            self._beyond.sums(weights, self._beyond_probs), weights @ self._probs
        )

    def counts(self, weights: FloatArray) -> FloatArray:
        """Return the weighted number of rows in each cell ``(R, cells)``; each class's cells add up to ``N``."""
        sums = self._beyond.sums(weights, self._beyond_counts)
        return self._fill_first_bin(sums, (weights @ self._unit_weights)[:, None])

    def labels(self, weights: FloatArray) -> FloatArray:
        """Return the weighted number of rows labeled with the cell's class ``(R, cells)``."""
        return self._labels.sums(weights, self._label_counts)

    def count_drawn_labels(
        self, flat_index: IntArray, row: IntArray, label: IntArray, replicates: int
    ) -> FloatArray:
        """Return the label counts of each cell ``(R, cells)`` after redrawing labels."""
        # All rows start with the predicted class as label; then each exception moves one label to another cell.
        predicted = self._rows.predicted
        weights = self._rows.weights
        cells = self._cell_index(np.arange(len(predicted)), predicted)
        start = flat_index // len(predicted) * self._num_cells
        size = replicates * self._num_cells
        counts = np.bincount(start + self._cell_index(row, label), weights[row], minlength=size)
        counts -= np.bincount(start + cells[row], weights[row], minlength=size)
        every = np.bincount(cells, weights, minlength=self._num_cells)
        return np.asarray(counts.reshape(replicates, -1) + every)

    def _fill_first_bin(self, sums: FloatArray, totals: FloatArray) -> FloatArray:
        """Set the first bin of every class to ``totals (R, C or 1)`` minus the sum of the other bins."""
        by_class = sums.reshape(len(sums), self._rows.num_classes, self._rows.num_bins)
        # Sums of weights are rounded: what they leave of a bin without rows would be a little above or below 0.
        by_class[:, :, 0] = np.where(self._first_filled, totals - by_class.sum(axis=2), 0.0)
        return sums

    def _cell_index(self, row: IntArray, label: IntArray) -> IntArray:
        """Return the cell index of each row's probability of ``label``."""
        return label * self._rows.num_bins + self._rows.bin_indices(self._rows.probs[row, label])


class ClassBlockSums:
    """Statistic: sums over classes and bins, for random blocks of rows."""

    # Where there are many rows, a replicate draws blocks in place of rows: sums of blocks vary as sums of rows do.

    def __init__(self, rows: Rows) -> None:
        import torch

        self._classes = rows.num_classes
        self._num_bins = rows.num_bins
        cells = self._classes * self._num_bins
        blocks = min(_MAX_BLOCKS, rows.num_samples, max(_FEWEST_BLOCKS, _BLOCK_SUMS // cells))
        random = np.random.RandomState(
            0
        )  # for all seeds: blocks are a part of the data, as groups of neighbors are
        # Rows may come in the order of their classes, so neighbors must not be a block.
        self._block = torch.from_numpy(random.permutation(rows.num_samples) % blocks)
        self._uniforms = torch.from_numpy(random.random_sample(rows.num_samples))
        self._sums = torch.zeros(4, blocks * cells, dtype=torch.float64)
        self._totals = torch.zeros(blocks, self._classes, dtype=torch.float64)
        shape = (blocks, self._classes, self._num_bins)
        first = self._sums.view(4, *shape)[..., 0]
        first[0] = torch.bincount(self._block, minlength=blocks)[:, None]
        self._first_probs = first[1]
        self.counts, self._probs, self.labels, self.drawn = self._sums.view(4, blocks, -1).numpy()

    @cached_property
    def probs(self) -> FloatArray:
        """Sums of the class's probability in each cell; valid once all rows were added."""
        self._first_probs += self._totals
        return self._probs

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        import torch

        rows = len(chunk.target)
        classes = self._classes
        num_bins = self._num_bins
        block, self._block = self._block[:rows], self._block[rows:]
        uniforms, self._uniforms = self._uniforms[:rows], self._uniforms[rows:]
        probs = chunk.probs.cpu()
        exact = probs.double()
        # All probabilities go to the first bin, in a table of their own; then those beyond it move to theirs.
        self._totals.index_add_(0, block, exact)
        place = torch.from_numpy(np.flatnonzero(probs.numpy() > 0.99 / num_bins))
        row = place // classes
        start = (block[row] * classes + place - row * classes) * num_bins
        beyond = probs.reshape(-1)[place]
        terms = torch.stack([torch.ones(len(place), dtype=torch.float64), beyond.double()])
        self._sums[:2].index_add_(1, start + equal_width_index(beyond, num_bins), terms)
        self._sums[:2].index_add_(1, start, -terms)
        labels = [chunk.target.unsqueeze(1)]
        if classes < FEW_CLASSES:
            total = exact.cumsum(dim=1)
            above = torch.searchsorted(total, (uniforms * total[:, -1]).unsqueeze(1), right=True)
            labels.append(above.clamp_(max=classes - 1))
        for sums, label in zip(self._sums[2:], labels, strict=False):
            cell = (block.unsqueeze(1) * classes + label) * num_bins
            cell += equal_width_index(probs.gather(1, label), num_bins)
            sums.index_add_(0, cell.squeeze(1), torch.ones(rows, dtype=torch.float64))
