"""Rows of one set of predictions, single or in groups of similar confidence, with cached quantities."""

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
from fedlas.stats.cell_sums import OutcomeCells
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
        return np.ones(self.num_samples) if weights is None else weights.numpy()

    @cached_property
    def clusters(self) -> IntArray | None:
        """Cluster index of each row ``(N,)``, or None if all rows are independent."""
        names = self.predictions.clusters
        return None if names is None else np.unique(names.numpy(), return_inverse=True)[1]

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
            return 1 - self.predictions.correct.long().numpy()
        return self.predictions.target.cpu().numpy()

    @cached_property
    def predicted(self) -> IntArray:
        """Predicted classes ``(N,)``."""
        if isinstance(self.predictions, TopLabel):
            return np.zeros(self.num_samples, dtype=np.int64)
        return self.predictions.predicted.cpu().numpy()

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
        right = self.predictions.correct.cpu().numpy()[self.order].astype(np.float64)
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
            self.predictions.correct.cpu().numpy().astype(np.float64)
            if outcome is None
            else outcome,
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
