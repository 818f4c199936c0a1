"""What metrics are computed from, for a block of replicates: the same tables as a statistic gives, with a leading axis.

A metric's formula (:attr:`fedlas.metrics.OnePass.value`) takes either. A metric whose statistic has no table here is
called on the :class:`~fedlas.Predictions` of one replicate after another: right, but as slow as the metric is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas.metrics.ace import EveryClass
from fedlas.metrics.base import AnyOnePass, MetricEntry, mean_of_rows
from fedlas.metrics.binning import BinTable, EqualMass, EqualWidth
from fedlas.metrics.classwise import ClassTable, ClasswiseSums
from fedlas.metrics.evaluate import values_of
from fedlas.metrics.fine_grid import FineGrid, cell_of
from fedlas.metrics.ranking import equal_mass_gaps_of_rows, starts_of_ties
from fedlas.metrics.scan import Statistic
from fedlas.metrics.signed import ConfidenceByOutcome, Outcomes
from fedlas.metrics.smooth import Nodes, on_nodes, smooth_calibration_error
from fedlas.metrics.true_error import TrueOutcome
from fedlas.predictions import Predictions
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Integers, Quantity, Rows, starts_of_runs

T = TypeVar("T")


def replicate_values(entry: MetricEntry, block: Replicates) -> Floats:
    """The metric of every replicate ``(R,)``.

    Args:
        entry: The metric's entry in ``METRICS``.
        block: The replicates; their rows hold the number of bins.
    """
    one_pass: AnyOnePass | None = entry.metadata.get("one_pass")
    if (quantity := mean_quantity(entry, block.rows)) is not None:
        return block.mean(quantity)
    if one_pass is not None and one_pass.statistic in TABLES:
        found = np.asarray(one_pass.value(block.table(TABLES[one_pass.statistic])))
        if found.ndim == 1:  # one number says that the formula of somebody's metric knows of no replicates
            return np.broadcast_to(found, (block.size,))
    return np.array([values_of(one, [entry], block.rows.num_bins)[entry.name] for one in block.predictions()])


def mean_quantity(entry: MetricEntry, rows: Rows) -> Quantity | None:
    """The quantity of each row that the metric is the mean of; None if it is no such mean."""
    one_pass: AnyOnePass | None = entry.metadata.get("one_pass")
    if one_pass is None or one_pass.value is not mean_of_rows:
        return None
    quantity: Quantity = one_pass.statistic(rows.predictions, rows.num_bins).quantity
    return quantity


def share_of(entry: MetricEntry, rows: Rows) -> NDArray[np.bool_] | None:
    """Whether each row counts ``(N,)``, of a metric that is the share of rows that do; None if it is no such share."""
    quantity = mean_quantity(entry, rows)
    values = None if quantity is None else rows.column(quantity)
    return values if values is not None and values.dtype == np.bool_ else None


@dataclass(frozen=True, eq=False)
class Filled(Generic[T]):
    """A statistic of which nothing but its table is known."""

    sums: T

    def table(self) -> T:
        """The table."""
        return self.sums


def _width_bins(block: Replicates) -> Filled[BinTable]:
    """Sums over bins of equal width, without those that the rows leave empty."""
    return _bins(block, block.ordered_gaps, block.ordered_right)


def _known_bins(block: Replicates) -> Filled[BinTable]:
    """The same with the known probability of being right as the outcome."""
    gaps = block.ordered_weights * (block.rows.ordered_confidence - block.ordered_known)
    return _bins(block, gaps, block.ordered_weights * block.ordered_known)


def _bins(block: Replicates, gaps: Floats, right: Floats) -> Filled[BinTable]:
    count, gap, right = (
        np.add.reduceat(each, block.rows.width_starts, axis=1) for each in (block.ordered_weights, gaps, right)
    )
    squares = block.ordered_squares
    if squares is not None:
        squares = np.add.reduceat(squares, block.rows.width_starts, axis=1)
    return Filled(BinTable(count, gap, right, block.rows.num_samples, squares))


class TieRuns:
    """:class:`~fedlas.metrics.ranking.Runs` of rows with equal confidence."""

    def __init__(self, block: Replicates) -> None:
        self._block = block
        self.num_samples = block.rows.num_samples

    @cached_property
    def count(self) -> Floats:
        """``(R or 1, G)``."""
        return self._by_run(self._block.ordered_weights)

    @cached_property
    def wrong(self) -> Floats:
        """``(R, G)``."""
        return self._by_run(self._block.ordered_weights * (1.0 - self._block.ordered_correct))

    @cached_property
    def gaps(self) -> Floats:
        """``(R, G)``."""
        return self._by_run(self._block.ordered_gaps)

    def _by_run(self, ordered: Floats) -> Floats:
        starts = self._block.rows.tie_starts
        # With no ties every row is its own run.
        return ordered if len(starts) == ordered.shape[1] else np.add.reduceat(ordered, starts, axis=1)


class Ranked:
    """What :class:`~fedlas.metrics.binning.EqualMass` gives."""

    def __init__(self, block: Replicates) -> None:
        self._block = block

    def table(self) -> BinTable:
        """Gaps of bins of equal mass; nothing asks for more."""
        block, rows, nothing = self._block, self._block.rows, np.empty(0)
        gaps = equal_mass_gaps_of_rows(
            block.ordered_weights, block.ordered_gaps, rows.tie_starts, rows.num_samples, rows.num_bins
        )
        return BinTable(nothing, gaps, nothing, rows.num_samples)

    def ranking(self) -> TieRuns:
        """Rows of equal confidence together."""
        return TieRuns(self._block)


def _by_outcome(block: Replicates) -> Filled[Outcomes]:
    """Sums over wrong and right predictions ``(R,)``."""
    confidence, right = block.rows.ordered_confidence, block.ordered_right
    wrong = block.ordered_weights - right
    wrong_confidence = np.einsum("rn,n->r", wrong, confidence)
    right_doubt = np.einsum("rn,n->r", right, 1.0 - confidence)
    samples = block.rows.num_samples
    return Filled(Outcomes(wrong.sum(axis=1), right.sum(axis=1), wrong_confidence, right_doubt, samples))


def class_table(block: Replicates) -> Filled[ClassTable]:
    """Sums over every class and bin of its probability."""
    samples, classes = block.rows.num_samples, block.rows.num_classes
    return Filled(ClassTable(block.class_probs, block.class_labels, lambda: block.class_counts, samples, classes))


@dataclass(frozen=True, eq=False)
class ClassRuns:
    """:class:`~fedlas.metrics.ranking.Runs` of one class's probability."""

    count: Floats
    wrong: Floats
    gaps: Floats
    num_samples: int


class SortedClasses:
    """What :class:`~fedlas.metrics.ace.EveryClass` gives: one class after another, all replicates at a time."""

    def __init__(self, block: Replicates) -> None:
        self._block = block
        self.num_bins = block.rows.num_bins

    def rankings(self) -> Iterator[ClassRuns]:
        """Rows of equal probability of the class together."""
        block = self._block
        for label, (order, probs) in enumerate(zip(*block.rows.table(_sorted_columns), strict=True)):
            weights, starts = block.weights.take(order, axis=1), starts_of_ties(probs)
            own = block.labels.take(order, axis=1) == label
            count, wrong, gaps = (
                np.add.reduceat(each, starts, axis=1) for each in (weights, weights * ~own, weights * (probs - own))
            )
            yield ClassRuns(count, wrong, gaps, block.rows.num_samples)


def _sorted_columns(rows: Rows) -> tuple[Integers, Floats]:
    """For each class the rows by ascending probability, and the probabilities in that order; ``(C, N)`` both.

    In double precision and step by step as the metric has them: what is equal decides where bins may be cut.
    """
    logits = rows.of_all_classes.logits.cpu().double()
    logits = logits - logits.amax(dim=1, keepdim=True)
    probs = (logits - logits.logsumexp(dim=1, keepdim=True)).exp_().T.contiguous().numpy()
    order = np.argsort(probs, axis=1, kind="stable")
    return order, np.take_along_axis(probs, order, axis=1)


def _nodes(block: Replicates) -> Nodes:
    """Gaps on the nodes of the smooth error, whose search begins at the value of the rows themselves.

    Fewer nodes than the metric itself has, and less precision: values agree with the metric's to about 1e-7.
    """
    rows = block.rows
    weights, starts = block.ordered_weights, rows.table(_cell_starts)
    right = block.ordered_right
    gaps = _on_nodes(right, 1.0, rows, starts) + _on_nodes(weights - right, 0.0, rows, starts)
    return Nodes(gaps / rows.num_samples, guess=rows.table(_smooth_error), precision=1e-9, fewest=2**12)


def _smooth_error(rows: Rows) -> float:
    return smooth_calibration_error(rows.predictions)


def _cell_starts(rows: Rows) -> Integers:
    """First ordered row of each cell of the metric's grid that is not empty."""
    return starts_of_runs(cell_of(torch.from_numpy(rows.confidence[rows.order])).numpy())


def _on_nodes(weights: Floats, outcome: float, rows: Rows, starts: Integers) -> Floats:
    """Gaps ``confidence - outcome`` of rows with these ``weights (R, N)``, those of a cell at their mean confidence."""
    count = np.add.reduceat(weights, starts, axis=1)
    confidence = np.add.reduceat(weights * rows.ordered_confidence, starts, axis=1)
    filled = np.nonzero(count)
    count, confidence = count[filled], confidence[filled]
    return on_nodes(confidence / count, confidence - count * outcome, filled[0], len(weights))


TABLES: Mapping[Callable[[Predictions, int], Statistic], Callable[[Replicates], Any]] = {
    EqualWidth: _width_bins,
    TrueOutcome: _known_bins,
    EqualMass: Ranked,
    ConfidenceByOutcome: _by_outcome,
    ClasswiseSums: class_table,
    EveryClass: SortedClasses,
    FineGrid: _nodes,
}
"""Replaces each statistic of a metric for many replicates."""
