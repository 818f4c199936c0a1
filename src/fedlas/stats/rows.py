"""Rows of one set of predictions, single or in groups of similar confidence, and their sums over classes and bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedlas.metrics.equal_width import equal_width_index
from fedlas.metrics.ranking import tie_starts
from fedlas.metrics.scan import Chunk, ChunkConsumer, scan
from fedlas.metrics.sums import Quantity, normalized_weights
from fedlas.metrics.true_error import expected_accuracy
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import AnyPredictions, require_predictions
from fedlas.stats.cell_sums import OutcomeCells, ReplicateCellSums
from fedlas.stats.degrees import degrees_of_freedom

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.types import FloatArray, IntArray

T = TypeVar("T")
MANY_SAMPLES = 2**13
MANY_PROBS = 2**22
"""Samples, or probabilities, from which on replicates draw groups of rows in place of rows."""
NUM_GROUPS = 2**10
"""Groups of neighbors in confidence, besides those that end at the edge of a bin."""
_MAX_BLOCKS = 2**10
_FEWEST_BLOCKS = 2**8
_BLOCK_SUMS = 2**23
FEW_CLASSES = 10
"""With fewer, the labels of two classes depend on each other too much to be drawn apart."""


@dataclass(frozen=True, eq=False)
class ConfidenceGroups:
    """Samples by ascending confidence, single or in groups of neighbors; arrays ``(G,)`` except the starts."""

    # Mean confidence of each group.
    confidence: FloatArray
    # Number of rows.
    count: FloatArray
    # Number of rows whose predicted class is the label.
    right: FloatArray
    # First sorted row.
    first: IntArray
    # First group of each bin of equal width that is not empty.
    width_starts: IntArray
    # First group of each run of equal confidences.
    tie_starts: IntArray


class _ColumnCollector:
    """Statistic: a quantity of all ``num_samples`` rows, unchanged."""

    def __init__(self, quantity: Quantity, num_samples: int) -> None:
        self._quantity = quantity
        self._num_samples = num_samples
        self._filled = 0

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk`` as a copy, because the chunk's buffers are reused."""
        import torch

        values = self._quantity(chunk)
        if not self._filled:
            self._all = torch.empty((self._num_samples, *values.shape[1:]), dtype=values.dtype)
        self._all[self._filled : self._filled + len(values)] = values
        self._filled += len(values)

    def array(self) -> NDArray[Any]:
        return self._all.numpy()


class Rows:
    """Rows of ``predictions`` for resampling and for redrawing labels; quantities are computed on first use."""

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self.predictions = predictions
        self.num_bins = num_bins
        self.num_samples = predictions.num_samples
        self.num_classes = 2 if isinstance(predictions, TopLabel) else predictions.num_classes
        self._columns: dict[Quantity, NDArray[Any]] = {}
        self._means: dict[Quantity, tuple[float, float]] = {}
        self._tables: dict[Callable[[Rows], Any], Any] = {}

    @property
    def multiclass_predictions(self) -> Predictions:
        """The predictions; raises InputError for a top label."""
        return require_predictions(self.predictions)

    @property
    def has_many_rows(self) -> bool:
        """Whether replicates draw counts per group: many rows, without weights and clusters."""
        many = self.num_samples >= MANY_SAMPLES or self.num_samples * self.num_classes > MANY_PROBS
        return many and self.is_iid

    @property
    def is_weighted(self) -> bool:
        """Whether samples have weights."""
        return self.predictions.weights is not None

    @property
    def is_iid(self) -> bool:
        """Whether samples are independent and unweighted."""
        return not self.is_weighted and self.clusters is None

    def column(self, quantity: Quantity) -> NDArray[Any]:
        """Return ``quantity`` of each row ``(N, ...)`` in its own dtype; cached after one pass over the logits."""
        self.gather([quantity])
        return self._columns[quantity]

    def gather(
        self, quantities: Iterable[Quantity], *statistics: Callable[[Rows], ChunkConsumer]
    ) -> None:
        """Compute the columns of ``quantities`` and fill new ``statistics``, in one pass over the logits."""
        columns = {
            each: _ColumnCollector(each, self.num_samples)
            for each in quantities
            if each not in self._columns
        }
        tables = {make: make(self) for make in statistics if make not in self._tables}
        if columns or tables:
            scan(self.predictions, [*columns.values(), *tables.values()])
            self._columns |= {each: column.array() for each, column in columns.items()}
            self._tables |= tables

    def mean_and_error(self, quantity: Quantity) -> tuple[float, float]:
        """Return the mean of ``quantity`` over the rows, and its standard error."""
        if quantity not in self._means:
            values = self.column(quantity)
            error = float(values.std(dtype=np.float64)) / math.sqrt(len(values))
            self._means[quantity] = float(values.mean(dtype=np.float64)), error
        return self._means[quantity]

    @cached_property
    def weights(self) -> FloatArray:
        """Weights ``(N,)``, scaled to average 1."""
        weights = normalized_weights(self.predictions)
        return np.ones(self.num_samples) if weights is None else weights

    @cached_property
    def clusters(self) -> IntArray | None:
        """Cluster index of each row ``(N,)``, or None if all rows are independent."""
        names = self.predictions.clusters
        return None if names is None else np.unique(names, return_inverse=True)[1]

    @property
    def num_units(self) -> int:
        """Number of independent units that are drawn: clusters, or rows."""
        return self.num_samples if self.clusters is None else int(self.clusters.max()) + 1

    @property
    def degrees(self) -> float:
        """Degrees of freedom of a variance over clusters; infinity without clusters."""
        return degrees_of_freedom(self.weights, self.clusters)

    @cached_property
    def confidence(self) -> NDArray[Any]:
        """Probability of the predicted class ``(N,)``, in the precision of the logits."""
        return self.column(confidence_quantity)

    @cached_property
    def target(self) -> IntArray:
        """Labels ``(N,)``."""
        if isinstance(self.predictions, TopLabel):
            return 1 - self.predictions.correct.astype(np.int64)
        return self.predictions.target

    @cached_property
    def predicted(self) -> IntArray:
        """Predicted classes ``(N,)``."""
        if isinstance(self.predictions, TopLabel):
            return np.zeros(self.num_samples, dtype=np.int64)
        return self.predictions.predicted

    @cached_property
    def probs(self) -> NDArray[Any]:
        """Softmax of the logits ``(N, C)``, in their precision."""
        return self.column(probs_quantity)

    @cached_property
    def order(self) -> IntArray:
        """Row indices by ascending confidence ``(N,)``; ties keep their order."""
        return np.argsort(self.confidence, kind="stable")

    @cached_property
    def singles(self) -> ConfidenceGroups:
        """Groups of one row each, by ascending confidence."""
        confidence = self.confidence[self.order]
        right = self.predictions.correct[self.order].astype(np.float64)
        return ConfidenceGroups(
            confidence.astype(np.float64),
            np.ones(self.num_samples),
            right,
            np.arange(self.num_samples),
            run_starts(self.bin_indices(confidence)),
            tie_starts(confidence),
        )

    @cached_property
    def groups(self) -> ConfidenceGroups:
        """Neighbors in confidence, in about :data:`NUM_GROUPS` groups that split neither bins nor ties."""
        rows = self.singles
        ranks = np.linspace(0, self.num_samples, NUM_GROUPS, endpoint=False).astype(np.int64)
        runs = rows.tie_starts[np.searchsorted(rows.tie_starts, ranks, side="right") - 1]
        first = np.union1d(runs, rows.width_starts)
        count = np.diff(first, append=self.num_samples).astype(np.float64)
        confidence, right = (np.add.reduceat(each, first) for each in (rows.confidence, rows.right))
        bins = np.searchsorted(first, rows.width_starts)
        return ConfidenceGroups(
            confidence / count, count, right, first, bins, np.arange(len(first))
        )

    def cells(
        self,
        cell: IntArray,
        probability: FloatArray | None = None,
        outcome: FloatArray | None = None,
        label: int | None = None,
    ) -> OutcomeCells:
        """Return cells with sums from each row's cell index ``(N,)``; outcomes default to correctness."""
        return OutcomeCells(
            cell,
            int(cell.max()) + 1,
            self.confidence.astype(np.float64) if probability is None else probability,
            self.predictions.correct.astype(np.float64) if outcome is None else outcome,
            self.weights if self.is_weighted else None,
            self.clusters,
            label,
        )

    def run_cells(self, starts: IntArray) -> OutcomeCells:
        """Return cells of consecutive rows by ascending confidence, given the first row of each cell."""
        cell = np.empty(self.num_samples, dtype=np.int64)
        sizes = np.diff(starts, append=self.num_samples)
        cell[self.order] = np.repeat(np.arange(len(starts)), sizes)
        return self.cells(cell)

    def bin_indices(self, values: NDArray[Any]) -> IntArray:
        """Return the equal-width bin index of each value, see :func:`fedlas.metrics.equal_width.equal_width_index`."""
        import torch

        return equal_width_index(torch.from_numpy(values), self.num_bins).numpy()

    def expected_right(self, groups: ConfidenceGroups) -> FloatArray:
        """Return the mean label probability of the predicted class per group ``(G,)``; needs ``label_probs``."""
        outcome = self.column(expected_accuracy)[self.order].astype(np.float64)
        return np.add.reduceat(outcome, groups.first) / groups.count

    def expected_spread(self, groups: ConfidenceGroups) -> FloatArray:
        """Return the standard deviation of the predicted class's label probability in each group ``(G,)``."""
        outcome = self.column(expected_accuracy)[self.order].astype(np.float64)
        gaps = outcome - np.repeat(self.expected_right(groups), groups.count.astype(np.int64))
        return np.sqrt(np.add.reduceat(gaps**2, groups.first) / np.maximum(groups.count - 1, 1))

    def table(self, make: Callable[[Rows], T]) -> T:
        """Return ``make(self)``, cached."""
        if make not in self._tables:
            self._tables[make] = make(self)
        return self._tables[make]

    @cached_property
    def _cumulative(self) -> FloatArray:
        """Cumulative class probabilities ``(N, C)``, with the predicted class swapped to the front."""
        # The first column is the confidence itself; the others share what it leaves, so that rounding gives nothing to
        # a class that has nothing.
        rest = self.probs.astype(np.float64)
        rest[np.arange(len(rest)), self.predicted] = rest[:, 0]
        rest[:, 0] = 0.0
        np.cumsum(rest, axis=1, out=rest)
        confidence = self.confidence.astype(np.float64)
        total = rest[:, -1]
        rest *= np.divide(1.0 - confidence, total, out=np.zeros_like(total), where=total > 0)[
            :, None
        ]
        rest += confidence[:, None]
        return rest

    def draw_labels(self, uniforms: FloatArray) -> IntArray:
        """Return labels ``(R, N)`` drawn from the probabilities: the prediction where ``uniforms < confidence``."""
        if isinstance(self.predictions, TopLabel):
            return (uniforms >= self.confidence).astype(np.int64)
        labels = np.broadcast_to(self.predicted, uniforms.shape).copy()
        place, _, others = self.draw_changed_labels(uniforms)
        labels.ravel()[place] = others
        return labels

    def draw_changed_labels(self, uniforms: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return the drawn labels that differ from the prediction: flat indices ``(E,)``, rows and labels."""
        # By row, so that all replicates read a row's probabilities while they are in the cache.
        row, replicate = np.nonzero((uniforms >= self.confidence).T)
        label = _first_column_above(uniforms[replicate, row], self._cumulative, row)
        # Class 0 stands where the predicted class was.
        return (
            replicate * self.num_samples + row,
            row,
            np.where(label == self.predicted[row], 0, label),
        )


def _first_column_above(value: FloatArray, cumulative: FloatArray, row: IntArray) -> IntArray:
    """Return the first column after column 0 with ``cumulative[row] > value (E,)``, or the last column."""
    classes = cumulative.shape[1]
    flat = cumulative.ravel()
    first = row * classes
    low = first + 1
    high = first + (classes - 1)
    for _ in range(max(0, classes - 2).bit_length()):  # bisection, all values at a time
        middle = (low + high) >> 1
        beyond = value >= flat[middle]
        np.copyto(low, np.minimum(middle + 1, high), where=beyond)
        np.copyto(high, middle, where=~beyond)
    return low - first


def run_starts(values: NDArray[Any]) -> IntArray:
    """Return the start indices of runs of equal values, for :func:`numpy.add.reduceat`."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def confidence_quantity(chunk: Chunk) -> Tensor:
    """Quantity: the probability of the predicted class ``(n,)``."""
    return chunk.confidence


def probs_quantity(chunk: Chunk) -> Tensor:
    """Quantity: the probability of each class ``(n, C)``."""
    return chunk.probs


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
