"""Bootstrap and null replicates of a set of predictions, many at a time.

A bootstrap replicate draws ``N`` rows with replacement; all that matters of it is how often it drew each. A replicate
of the noise floor keeps the rows and draws their labels from the model's probabilities. In both, a metric of all ``R``
replicates of a block is a few array operations on ``(R, N)``; where there are many rows, on ``(R, G)`` of groups of
neighbors in confidence, and on sums of blocks of rows. Both vary as the rows do: what differs is that rows of a group
share one confidence, that a mean over rows is drawn from its normal limit, and that labels of ten or more classes are
drawn class by class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np

from fedlas._core.check import InputError
from fedlas.metrics.classwise import ClassTable
from fedlas.predictions import TopLabel
from fedlas.stats.rows import ClassCellSums

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.metrics.sums import Quantity
    from fedlas.predictions.any_predictions import AnyPredictions
    from fedlas.stats.cell_sums import OutcomeCells
    from fedlas.stats.rows import ConfidenceGroups, Rows

T = TypeVar("T")
BLOCK_ELEMENTS = 2**18
"""Elements of the largest arrays of one block: 2 MiB of float64, so that several stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class CellTable:
    """Sums over cells, ``(R or 1, K)``: count, probability minus outcome, outcome, and squared weights."""

    count: FloatArray
    gaps: FloatArray
    outcome: FloatArray
    squares: FloatArray


class Replicates(ABC):
    """A block of ``R`` replicates of the same rows; arrays equal in all replicates may have one row."""

    def __init__(self, rows: Rows, groups: ConfidenceGroups, size: int) -> None:
        self.rows = rows
        self.groups = groups
        self.size = size
        self._tables: dict[Any, Any] = {}

    @property
    @abstractmethod
    def counts(self) -> FloatArray:
        """Total weight of each group's rows ``(R or 1, G)``; adds up to ``N``."""

    @property
    @abstractmethod
    def right(self) -> FloatArray:
        """Total weight of each group's correct rows ``(R, G)``."""

    @property
    @abstractmethod
    def squares(self) -> FloatArray:
        """Sum of the squared weights of each group's rows ``(R or 1, G)``."""

    @cached_property
    def gaps(self) -> FloatArray:
        """``counts * confidence - right`` ``(R, G)``."""
        return np.asarray(self.counts * self.groups.confidence - self.right)

    @property
    def expected_right(self) -> FloatArray:
        """Sum of the predicted class's label probabilities ``(R or 1, G)``; the confidence if labels are redrawn."""
        return self.counts * self.groups.confidence

    def mean(self, _quantity: Quantity) -> FloatArray | None:
        """Return the mean of a quantity over the rows ``(R,)``, or None if the quantity depends on redrawn labels."""
        return None

    @property
    def bins(self) -> CellTable:
        """Sums over the non-empty equal-width bins of the confidence."""
        return CellTable(
            *(
                np.add.reduceat(each, self.groups.width_starts, axis=1)
                for each in (self.counts, self.gaps, self.right, self.squares)
            )
        )

    @property
    def neighbor_gaps(self) -> FloatArray:
        """Sum of confidence minus correctness in each group of neighbors in confidence ``(R, G)``."""
        return self.gaps

    def weighted_gap_sum(self, group_weights: FloatArray) -> FloatArray:
        """Return the weighted sum of the gaps ``(R,)``, with weights ``terms (G,)`` of the groups."""
        return self.gaps @ group_weights

    def parts(self) -> Iterator[Replicates]:
        """Yield sub-blocks whose arrays of all rows fit into memory."""
        yield self

    @property
    @abstractmethod
    def class_table(self) -> ClassTable:
        """Sums over every class and bin of its probability."""

    def predictions(self) -> Iterator[AnyPredictions]:
        """Yield each replicate as predictions, for metrics that are arbitrary functions."""
        raise NotImplementedError

    def table(self, make: Callable[[Self], T]) -> T:
        """Return ``make(self)``, cached: an intermediate result that several metrics share."""
        if make not in self._tables:
            self._tables[make] = make(self)
        return cast(T, self._tables[make])

    def release(self) -> None:
        """Clear the cache, whose entries refer back to the block and would keep it in memory."""
        self._tables.clear()

    def _class_table(
        self, probs: FloatArray, labels: FloatArray, counts: Callable[[], FloatArray]
    ) -> ClassTable:
        return ClassTable(probs, labels, counts, self.rows.num_samples, self.rows.num_classes)


class RowReplicates(Replicates):
    """Replicates of individual rows; by default every row occurs once."""

    def __init__(self, rows: Rows, size: int) -> None:
        super().__init__(rows, rows.singles, size)

    @property
    def weights(self) -> FloatArray:
        """Weight of each row ``(R or 1, N)``, in the order of the rows."""
        return self.rows.weights[None]

    @property
    def labels(self) -> IntArray:
        """Label of each row ``(R or 1, N)``, in the order of the rows."""
        return self.rows.target[None]

    @cached_property
    def counts(self) -> FloatArray:
        """Weight of each row ``(R or 1, N)``, by ascending confidence."""
        return self.weights.take(self.rows.order, axis=1)

    @cached_property
    def squares(self) -> FloatArray:
        """Squared weight of each row ``(1, N)``, by ascending confidence."""
        return self.counts**2

    @property
    def class_table(self) -> ClassTable:
        """Sums over classes and bins, with the labels of the replicates and the original probabilities."""
        cells = self.rows.table(ClassCellSums)
        probs = self.rows.table(_original_probs)
        labels = self._class_labels(cells, probs)
        return self._class_table(probs, labels, lambda: self.rows.table(_original_counts))

    def _class_labels(self, cells: ClassCellSums, probs: FloatArray) -> FloatArray:
        """Return the label counts of every class and bin ``(R, cells)``."""
        raise NotImplementedError

    @abstractmethod
    def over(self, cells: OutcomeCells) -> CellTable:
        """Return the replicates' sums over ``cells``."""

    @property
    def bins(self) -> CellTable:
        """Sums over the non-empty equal-width bins of the confidence."""
        return self.over(self.rows.table(_equal_width_cells))

    @property
    def neighbor_gaps(self) -> FloatArray:
        """Sum of confidence minus correctness in each group of neighbors in confidence ``(R, G)``."""
        return self.over(self.rows.table(_neighbor_group_cells)).gaps


def _equal_width_cells(rows: Rows) -> OutcomeCells:
    return rows.run_cells(rows.singles.width_starts)


def _neighbor_group_cells(rows: Rows) -> OutcomeCells:
    return rows.run_cells(rows.groups.first)


class BootstrapReplicates(RowReplicates):
    """Bootstrap replicates of rows or whole clusters; ``times (R, U)`` holds how often each was drawn."""

    def __init__(self, rows: Rows, times: FloatArray) -> None:
        super().__init__(rows, len(times))
        self._unit_counts = times

    def parts(self) -> Iterator[Replicates]:
        """Yield sub-blocks whose arrays of all rows fit into memory."""
        for some in iter_unit_blocks(self.rows, self._unit_counts):
            yield BootstrapReplicates(self.rows, some)

    @cached_property
    def _row_counts(self) -> FloatArray:
        """How often each row was drawn ``(R, N)``."""
        return expand_to_rows(self.rows, self._unit_counts)

    @cached_property
    def weights(self) -> FloatArray:
        """Draw count times weight of each row ``(R, N)``, in the order of the rows."""
        return self._row_counts if self.rows.is_iid else self._row_counts * self._scaled_row_weights

    @cached_property
    def _scale(self) -> FloatArray:
        """Factors ``(R, 1)`` that give the drawn rows of each replicate an average weight of 1."""
        return self.rows.table(_equal_width_cells).scale(self._unit_counts)

    @cached_property
    def _scaled_row_weights(self) -> FloatArray:
        """Weights of the rows ``(R, N)``, scaled to average 1 over the drawn rows."""
        return self._scale * self.rows.weights

    def over(self, cells: OutcomeCells) -> CellTable:
        """Return the drawn rows' sums over ``cells``."""
        times, scale = self._unit_counts, self._scale
        count = scale * cells.sum_counts(times)
        squares = scale**2 * cells.sum_squared_weights(times) if cells.is_weighted else count
        gaps = scale * cells.sum_gaps(times)
        return CellTable(count, gaps, scale * cells.sum_outcomes(times), squares)

    @cached_property
    def right(self) -> FloatArray:
        """Total weight of each group's correct rows ``(R, G)``, by their original labels."""
        return self.counts * self.groups.right

    @cached_property
    def squares(self) -> FloatArray:
        """Sum of squared weights over all draws ``(R, G)``."""
        if not self.rows.is_weighted:
            return self.counts
        return (self.weights * self._scaled_row_weights).take(self.rows.order, axis=1)

    @property
    def expected_right(self) -> FloatArray:
        """Sum of the rows' label probabilities of the predicted class ``(R, G)``."""
        return self.counts * self.rows.expected_right(self.groups)

    def mean(self, quantity: Quantity) -> FloatArray:
        """Return the weighted mean of a quantity ``(R,)``; the quantity is computed once per row."""
        # einsum rather than a matrix product, whose order of summation depends on the number of threads.
        sums = self.rows.weights * self.rows.column(quantity).astype(np.float64)
        if (clusters := self.rows.clusters) is not None:
            sums = np.bincount(clusters, sums).astype(np.float64)
        total = np.einsum("ru,u->r", self._unit_counts, sums)
        return np.asarray(self._scale[:, 0] * total / self.rows.num_samples)

    @property
    def class_table(self) -> ClassTable:
        """Sums of the drawn rows over every class and bin of its probability."""
        cells = self.rows.table(ClassCellSums)
        times, scale = self._unit_counts, self._scale
        return self._class_table(
            scale * cells.probs(times),
            scale * cells.labels(times),
            lambda: scale * cells.counts(times),
        )

    def predictions(self) -> Iterator[AnyPredictions]:
        """Yield each replicate as predictions, with rows repeated as often as drawn."""
        import torch

        for times in self._row_counts:
            index = np.repeat(np.arange(len(times)), times.astype(np.int64))
            yield self.rows.predictions.rows(torch.from_numpy(index))


class SignFlippedReplicates(RowReplicates):
    """Wild bootstrap under calibration: gaps between probability and label with one random sign per cluster."""

    # Their mean is then 0, as that of a calibrated model, while rows of one cluster depend on each other as they do.

    def __init__(self, rows: Rows, signs: FloatArray) -> None:
        super().__init__(rows, len(signs))
        self._unit_signs = signs

    def parts(self) -> Iterator[Replicates]:
        """Yield sub-blocks whose arrays of all rows fit into memory."""
        for some in iter_unit_blocks(self.rows, self._unit_signs):
            yield SignFlippedReplicates(self.rows, some)

    @cached_property
    def signs(self) -> FloatArray:
        """Sign of each row ``(R, N)``, in the order of the rows."""
        return expand_to_rows(self.rows, self._unit_signs)

    def over(self, cells: OutcomeCells) -> CellTable:
        """Return sums over ``cells`` with the gaps multiplied by the signs."""
        gaps = cells.sum_gaps(self._unit_signs)
        return CellTable(cells.count[None], gaps, cells.expected - gaps, cells.squares[None])

    def weighted_gap_sum(self, group_weights: FloatArray) -> FloatArray:
        """Return the weighted sum of the gaps ``(R,)``, with weights ``terms (N,)`` by ascending confidence."""
        rows = self.rows
        gaps = rows.singles.confidence - rows.singles.right
        sums = np.bincount(
            self._clusters[rows.order], rows.weights[rows.order] * gaps * group_weights
        )
        return self._unit_signs @ sums

    @property
    def _clusters(self) -> IntArray:
        clusters = self.rows.clusters
        return np.arange(self.rows.num_samples) if clusters is None else clusters

    @cached_property
    def right(self) -> FloatArray:
        """Confidence minus sign-flipped gap of each row ``(R, N)``; not an integer."""
        confidence = self.counts * self.groups.confidence
        gaps = confidence - self.counts * self.groups.right
        return confidence - gaps * self.signs.take(self.rows.order, axis=1)

    def _class_labels(self, cells: ClassCellSums, probs: FloatArray) -> FloatArray:
        return probs - (cells.probs(self._unit_signs) - cells.labels(self._unit_signs))

    def predictions(self) -> Iterator[AnyPredictions]:
        """Raise InputError, as sign-flipped gaps have no labels that a metric could be called on."""
        raise InputError(
            "with clusters, a noise floor requires a metric that is computed from sums",
            "a metric that is a function of predictions",
            "Leave the metric out: a noise floor that ignores clusters would be too low.",
        )


class ConsistencyReplicates(RowReplicates):
    """Consistency resampling: labels drawn from the model's probabilities, so that the model is calibrated."""

    def __init__(self, rows: Rows, uniforms: FloatArray) -> None:
        super().__init__(rows, len(uniforms))
        self._uniforms = uniforms

    @cached_property
    def labels(self) -> IntArray:
        """The drawn labels ``(R, N)``, in the order of the rows."""
        return self.rows.draw_labels(self._uniforms)

    @cached_property
    def right(self) -> FloatArray:
        """Weight of each correct row ``(R, N)``, drawn without drawing the label itself, which is slower."""
        # Rows.draw compares the same numbers, so both agree on which predictions are right.
        return self.counts * (self._uniforms < self.rows.confidence).take(self.rows.order, axis=1)

    def over(self, cells: OutcomeCells) -> CellTable:
        """Return sums over ``cells`` with the drawn labels."""
        is_right = (
            self._uniforms < self.rows.confidence
            if cells.label is None
            else self.labels == cells.label
        )
        outcome = cells.sum_new_outcomes(is_right.astype(np.float64))
        return CellTable(cells.count[None], cells.expected - outcome, outcome, cells.squares[None])

    def _class_labels(self, cells: ClassCellSums, _probs: FloatArray) -> FloatArray:
        return cells.count_drawn_labels(*self.rows.draw_changed_labels(self._uniforms), self.size)

    def predictions(self) -> Iterator[AnyPredictions]:
        """Yield each replicate as predictions with drawn labels; the probabilities become ``label_probs``."""
        import torch

        predictions = self.rows.predictions
        if isinstance(predictions, TopLabel):
            for labels in self.labels:
                yield TopLabel(predictions.tensors().confidence, labels == 0, predictions.weights)
            return
        label_probs = None if predictions.label_probs is None else predictions.tensors().probs
        for labels in self.labels:
            yield replace(predictions, target=torch.from_numpy(labels), label_probs=label_probs)


def _original_probs(rows: Rows) -> FloatArray:
    return rows.table(ClassCellSums).probs(np.ones((1, rows.num_units)))


def _original_counts(rows: Rows) -> FloatArray:
    return rows.table(ClassCellSums).counts(np.ones((1, rows.num_units)))


def expand_to_rows(rows: Rows, unit_values: FloatArray) -> FloatArray:
    """Expand values of units ``(R, U)`` to rows ``(R, N)``."""
    return unit_values if rows.clusters is None else unit_values.take(rows.clusters, axis=1)


def iter_unit_blocks(rows: Rows, unit_values: FloatArray) -> Iterator[FloatArray]:
    """Yield blocks of unit values ``(r, U)``, sized so that expanded rows have :data:`BLOCK_ELEMENTS` elements."""
    step = max(1, BLOCK_ELEMENTS // rows.num_samples)
    yield from (unit_values[start : start + step] for start in range(0, len(unit_values), step))
