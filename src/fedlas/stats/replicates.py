"""Replicates of a set of predictions, many at a time: the same rows drawn anew, or with labels drawn anew.

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
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch

from fedlas._core.check import InputError
from fedlas.metrics.classwise import ClassTable
from fedlas.metrics.sums import Quantity
from fedlas.predictions import TopLabel
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.stats.cell_sums import OutcomeCells
from fedlas.stats.class_cells import ClassCells
from fedlas.stats.rows import Floats, Groups, Integers, Rows

T = TypeVar("T")
BLOCK = 2**18
"""Elements of the largest arrays of one block: 2 MiB of float64, so that several stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class CellTable:
    """Sums over cells, ``(R or 1, K)``: samples, probabilities less outcomes, outcomes, and squared weights."""

    count: Floats
    gaps: Floats
    outcome: Floats
    squares: Floats


class Replicates(ABC):
    """A block of ``R`` replicates of the same rows; arrays in which all of them agree may have one row."""

    def __init__(self, rows: Rows, groups: Groups, size: int) -> None:
        self.rows = rows
        self.groups = groups
        self.size = size
        self._tables: dict[Any, Any] = {}

    @property
    @abstractmethod
    def counts(self) -> Floats:
        """How often the rows of each group occur, times their scaled weights ``(R or 1, G)``; adds up to ``N``."""

    @property
    @abstractmethod
    def right(self) -> Floats:
        """The same for rows whose predicted class is the label ``(R, G)``."""

    @property
    @abstractmethod
    def squares(self) -> Floats:
        """Sum of the squared weights of every occurrence of a row ``(R or 1, G)``."""

    @cached_property
    def gaps(self) -> Floats:
        """``counts * confidence - right`` ``(R, G)``."""
        return np.asarray(self.counts * self.groups.confidence - self.right)

    @property
    def expected_right(self) -> Floats:
        """Sum of the label probabilities of the predicted class ``(R or 1, G)``; the confidence if labels are drawn."""
        return self.counts * self.groups.confidence

    def mean(self, _quantity: Quantity) -> Floats | None:
        """Mean over the rows of a quantity of each ``(R,)``; None where labels that were drawn change it."""
        return None

    @property
    def bins(self) -> CellTable:
        """Sums over bins of equal width of the confidence, without those that are empty."""
        return CellTable(
            *(
                np.add.reduceat(each, self.groups.width_starts, axis=1)
                for each in (self.counts, self.gaps, self.right, self.squares)
            )
        )

    @property
    def neighbor_gaps(self) -> Floats:
        """Gaps of neighbors in confidence ``(R, G)``."""
        return self.gaps

    def gap_total(self, terms: Floats) -> Floats:
        """Return the sum of the gaps ``(R,)``, each times the term of its group ``(G,)``."""
        return self.gaps @ terms

    def parts(self) -> Iterator[Replicates]:
        """Yield some replicates at a time: as many as arrays of all rows allow."""
        yield self

    @property
    @abstractmethod
    def class_table(self) -> ClassTable:
        """Sums over every class and bin of its probability."""

    def predictions(self) -> Iterator[AnyPredictions]:
        """Yield the replicates one by one, for metrics of which nothing more is known."""
        raise NotImplementedError

    def table(self, make: Callable[[Self], T]) -> T:
        """Return ``make(self)``, remembered: what several metrics are computed from."""
        if make not in self._tables:
            self._tables[make] = make(self)
        return cast(T, self._tables[make])

    def release(self) -> None:
        """Forget the tables: they refer to the block, which would stay in memory until cycles are collected."""
        self._tables.clear()

    def _class_table(
        self, probs: Floats, labels: Floats, counts: Callable[[], Floats]
    ) -> ClassTable:
        return ClassTable(probs, labels, counts, self.rows.num_samples, self.rows.num_classes)


class RowReplicates(Replicates):
    """Replicates of single rows: every row once, unless they are drawn."""

    def __init__(self, rows: Rows, size: int) -> None:
        super().__init__(rows, rows.singles, size)

    @property
    def weights(self) -> Floats:
        """How much each row counts ``(R or 1, N)``, in the order of the rows."""
        return self.rows.weights[None]

    @property
    def labels(self) -> Integers:
        """The labels ``(R or 1, N)``, in the order of the rows."""
        return self.rows.target[None]

    @cached_property
    def counts(self) -> Floats:
        """As the weights, by ascending confidence."""
        return self.weights.take(self.rows.order, axis=1)

    @cached_property
    def squares(self) -> Floats:
        """Squared weights of every row once ``(1, N)``."""
        return self.counts**2

    @property
    def class_table(self) -> ClassTable:
        """Sums with the labels of the replicates; probabilities and rows are those of every row once."""
        cells = self.rows.table(ClassCells)
        probs = self.rows.table(_probs_once)
        labels = self._class_labels(cells, probs)
        return self._class_table(probs, labels, lambda: self.rows.table(_counts_once))

    def _class_labels(self, cells: ClassCells, probs: Floats) -> Floats:
        """Return the labels of every class and bin ``(R, cells)``."""
        raise NotImplementedError

    @abstractmethod
    def over(self, cells: OutcomeCells) -> CellTable:
        """Return the sums of the replicates over cells of rows."""

    @property
    def bins(self) -> CellTable:
        """Sums over bins of equal width of the confidence, without those that are empty."""
        return self.over(self.rows.table(_bin_cells))

    @property
    def neighbor_gaps(self) -> Floats:
        """Gaps of neighbors in confidence ``(R, G)``."""
        return self.over(self.rows.table(_neighbor_cells)).gaps


def _bin_cells(rows: Rows) -> OutcomeCells:
    return rows.runs(rows.singles.width_starts)


def _neighbor_cells(rows: Rows) -> OutcomeCells:
    return rows.runs(rows.groups.first)


class Resampled(RowReplicates):
    """Rows, or whole clusters, drawn with replacement: ``times (R, U)`` is how often each."""

    def __init__(self, rows: Rows, times: Floats) -> None:
        super().__init__(rows, len(times))
        self._of_units = times

    def parts(self) -> Iterator[Replicates]:
        """Yield some replicates at a time."""
        for some in parts_of(self.rows, self._of_units):
            yield Resampled(self.rows, some)

    @cached_property
    def _times(self) -> Floats:
        """How often each row was drawn ``(R, N)``."""
        return of_rows(self.rows, self._of_units)

    @cached_property
    def weights(self) -> Floats:
        """How often each row was drawn ``(R, N)``, in the order of the rows, times its weight."""
        return self._times if self.rows.is_plain else self._times * self._of_rows

    @cached_property
    def _scale(self) -> Floats:
        """What makes the rows that are drawn average a weight of 1 ``(R, 1)``: each replicate is its own sample."""
        return self.rows.table(_bin_cells).scale(self._of_units)

    @cached_property
    def _of_rows(self) -> Floats:
        """Weights of the rows ``(R, N)``, so scaled."""
        return self._scale * self.rows.weights

    def over(self, cells: OutcomeCells) -> CellTable:
        """Return sums of the drawn rows."""
        times, scale = self._of_units, self._scale
        count = scale * cells.counts_drawn(times)
        squares = scale**2 * cells.squares_drawn(times) if cells.is_weighted else count
        gaps = scale * cells.gaps_drawn(times)
        return CellTable(count, gaps, scale * cells.happened_drawn(times), squares)

    @cached_property
    def right(self) -> Floats:
        """With the rows' own labels."""
        return self.counts * self.groups.right

    @cached_property
    def squares(self) -> Floats:
        """Squared weights of every draw."""
        if not self.rows.are_weighted:
            return self.counts
        return (self.weights * self._of_rows).take(self.rows.order, axis=1)

    @property
    def expected_right(self) -> Floats:
        """Sum of the rows' own label probabilities."""
        return self.counts * self.rows.expected_right(self.groups)

    def mean(self, quantity: Quantity) -> Floats:
        """Return the weighted mean ``(R,)``; the quantity is computed once."""
        # einsum rather than a matrix product, whose order of summation depends on the number of threads.
        sums = self.rows.weights * self.rows.column(quantity).astype(np.float64)
        if (clusters := self.rows.clusters) is not None:
            sums = np.bincount(clusters, sums).astype(np.float64)
        total = np.einsum("ru,u->r", self._of_units, sums)
        return np.asarray(self._scale[:, 0] * total / self.rows.num_samples)

    @property
    def class_table(self) -> ClassTable:
        """Sums over the drawn rows."""
        cells = self.rows.table(ClassCells)
        times, scale = self._of_units, self._scale
        return self._class_table(
            scale * cells.probs(times),
            scale * cells.labels(times),
            lambda: scale * cells.counts(times),
        )

    def predictions(self) -> Iterator[AnyPredictions]:
        """Yield every replicate with its rows copied as often as they were drawn."""
        for times in self._times:
            index = np.repeat(np.arange(len(times)), times.astype(np.int64))
            yield self.rows.predictions.rows(torch.from_numpy(index))


class Turned(RowReplicates):
    """Gaps between probability and label that keep or change their sign, all of a cluster together (wild bootstrap)."""

    # Their mean is then 0, as that of a calibrated model, while rows of one cluster depend on each other as they do.

    def __init__(self, rows: Rows, signs: Floats) -> None:
        super().__init__(rows, len(signs))
        self._of_units = signs

    def parts(self) -> Iterator[Replicates]:
        """Yield some replicates at a time."""
        for some in parts_of(self.rows, self._of_units):
            yield Turned(self.rows, some)

    @cached_property
    def signs(self) -> Floats:
        """Sign of each row ``(R, N)``, in the order of the rows."""
        return of_rows(self.rows, self._of_units)

    def over(self, cells: OutcomeCells) -> CellTable:
        """Return sums with the gaps turned."""
        gaps = cells.gaps_drawn(self._of_units)
        return CellTable(cells.count[None], gaps, cells.expected - gaps, cells.squares[None])

    def gap_total(self, terms: Floats) -> Floats:
        """Return the sum of the gaps ``(R,)``, each times the term of its row ``(N,)`` by ascending confidence."""
        rows = self.rows
        gaps = rows.singles.confidence - rows.singles.right
        sums = np.bincount(self._clusters[rows.order], rows.weights[rows.order] * gaps * terms)
        return self._of_units @ sums

    @property
    def _clusters(self) -> Integers:
        clusters = self.rows.clusters
        return np.arange(self.rows.num_samples) if clusters is None else clusters

    @cached_property
    def right(self) -> Floats:
        """What the turned gaps leave of the confidence, which is no whole number."""
        confidence = self.counts * self.groups.confidence
        gaps = confidence - self.counts * self.groups.right
        return confidence - gaps * self.signs.take(self.rows.order, axis=1)

    def _class_labels(self, cells: ClassCells, probs: Floats) -> Floats:
        return probs - (cells.probs(self._of_units) - cells.labels(self._of_units))

    def predictions(self) -> Iterator[AnyPredictions]:
        """Refuse: a metric that is called on predictions needs labels."""
        raise InputError(
            "a metric with a noise floor under clusters must be computed from sums",
            "a function of predictions",
            "Leave it out: without the clusters its floor would be too low.",
        )


class Redrawn(RowReplicates):
    """Labels drawn from the model's own probabilities, so that in these replicates it is perfectly calibrated."""

    def __init__(self, rows: Rows, uniforms: Floats) -> None:
        super().__init__(rows, len(uniforms))
        self._uniforms = uniforms

    @cached_property
    def labels(self) -> Integers:
        """The drawn labels ``(R, N)``, in the order of the rows."""
        return self.rows.draw(self._uniforms)

    @cached_property
    def right(self) -> Floats:
        """Without drawing the label itself, which costs much more."""
        # Rows.draw compares the same numbers, so both agree on which predictions are right.
        return self.counts * (self._uniforms < self.rows.confidence).take(self.rows.order, axis=1)

    def over(self, cells: OutcomeCells) -> CellTable:
        """Return sums with the drawn labels."""
        is_right = (
            self._uniforms < self.rows.confidence
            if cells.label is None
            else self.labels == cells.label
        )
        outcome = cells.relabeled(is_right.astype(np.float64))
        return CellTable(cells.count[None], cells.expected - outcome, outcome, cells.squares[None])

    def _class_labels(self, cells: ClassCells, _probs: Floats) -> Floats:
        return cells.drawn_labels(*self.rows.draw_others(self._uniforms), self.size)

    def predictions(self) -> Iterator[AnyPredictions]:
        """Yield every replicate: the same logits with its labels, and the probabilities as the known ones."""
        predictions = self.rows.predictions
        if isinstance(predictions, TopLabel):
            for labels in self.labels:
                yield TopLabel(predictions.confidence, labels == 0, predictions.weights)
            return
        label_probs = None if predictions.label_probs is None else predictions.probs
        for labels in self.labels:
            yield replace(predictions, target=torch.from_numpy(labels), label_probs=label_probs)


def _probs_once(rows: Rows) -> Floats:
    return rows.table(ClassCells).probs(np.ones((1, rows.num_units)))


def _counts_once(rows: Rows) -> Floats:
    return rows.table(ClassCells).counts(np.ones((1, rows.num_units)))


def of_rows(rows: Rows, units: Floats) -> Floats:
    """Return numbers of rows ``(R, N)`` from those of units ``(R, U)``."""
    return units if rows.clusters is None else units.take(rows.clusters, axis=1)


def parts_of(rows: Rows, units: Floats) -> Iterator[Floats]:
    """Yield numbers of units ``(R, U)`` for as many replicates at a time as :data:`BLOCK` has room for all rows."""
    step = max(1, BLOCK // rows.num_samples)
    yield from (units[start : start + step] for start in range(0, len(units), step))
