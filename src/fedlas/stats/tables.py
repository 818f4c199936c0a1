"""Inputs of metric formulas for a block of replicates: tables as of a statistic, with a leading axis.

A metric's formula takes either. A metric whose statistic has no table here is
called on the :class:`~fedlas.Predictions` of one replicate after another: right, but as slow as the metric is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas.metrics.calibration_error import EqualMass
from fedlas.metrics.classwise import ClassTable, ClasswiseSums
from fedlas.metrics.classwise_adaptive import SortedClassProbs
from fedlas.metrics.equal_width import BinTable, EqualWidth
from fedlas.metrics.evaluation import compute_metrics
from fedlas.metrics.grids import FineGrid, softmax_float64
from fedlas.metrics.ranking import tie_starts
from fedlas.metrics.smooth import Spectra
from fedlas.metrics.true_error import TrueAccuracyBins
from fedlas.stats.replicates import Replicates, RowReplicates, SignFlippedReplicates

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.metrics.metric import Metric
    from fedlas.metrics.sums import Statistic
    from fedlas.stats.rows import Rows

_FREQUENCIES = 2**11
"""Used at most for the replicates of the smooth error: enough for scales from 0.001 on."""


def evaluate_replicates(metric: Metric, block: Replicates) -> FloatArray:
    """Return the metric of every replicate in ``block`` ``(R,)``."""
    if metric.quantity is not None and (means := block.mean(metric.quantity)) is not None:
        return means
    if metric.replicated is not None and isinstance(block, RowReplicates):
        return metric.replicated(block)
    if metric.statistic in TABLE_BUILDERS and metric.formula is not None:
        values = np.asarray(metric.formula(block.table(TABLE_BUILDERS[metric.statistic])))
        # one number says that the formula of somebody's metric knows of no replicates
        if values.ndim == 1:
            return np.broadcast_to(values, (block.size,))
    num_bins = block.rows.num_bins
    each = [compute_metrics(one, [metric], num_bins)[metric.name] for one in block.predictions()]
    return np.array(each)


def evaluate_block(entries: Sequence[Metric], block: Replicates) -> dict[str, FloatArray]:
    """Return several metrics of every replicate ``(R,)``, by name."""
    # Sums need no rows; what is asked of each row or rank is asked of a part of the replicates at a time.
    row_entries = [entry for entry in entries if not is_computed_from_sums(entry)]
    values = {
        entry.name: evaluate_replicates(entry, block)
        for entry in entries
        if entry not in row_entries
    }
    pieces: dict[str, list[FloatArray]] = {entry.name: [] for entry in row_entries}
    for part in block.parts() if row_entries else ():
        for entry in row_entries:
            pieces[entry.name].append(evaluate_replicates(entry, part))
        part.release()
    return values | {name: np.concatenate(each) for name, each in pieces.items()}


def is_computed_from_sums(metric: Metric) -> bool:
    """Return whether the metric can be computed from sums over cells."""
    return (
        metric.quantity is not None
        or metric.replicated is not None
        or metric.statistic in _SUM_STATISTICS
    )


def supports_groups(metric: Metric, *, means: bool) -> bool:
    """Return whether the metric can be computed from groups of rows; ``means``: also means over rows."""
    if metric.quantity is not None:
        return means
    return metric.takes_replicates and metric.statistic in TABLE_BUILDERS


def row_hits(metric: Metric, rows: Rows) -> NDArray[np.bool_] | None:
    """Return whether each row counts as a hit ``(N,)`` if the metric is a proportion of rows, else None."""
    values = None if metric.quantity is None else rows.column(metric.quantity)
    return values if values is not None and values.dtype == np.bool_ else None


def _equal_width_bins(block: Replicates) -> BinTable:
    """Return sums over non-empty equal-width bins."""
    sums = block.bins
    return BinTable(sums.count, sums.gaps, sums.outcome, block.rows.num_samples, sums.squares)


def _label_prob_bins(block: Replicates) -> BinTable:
    """Return sums over equal-width bins, with the label probability of the predicted class as the outcome."""
    expected = block.expected_right
    gaps = block.counts * block.groups.confidence - expected
    count, gaps, outcome, squares = (
        np.add.reduceat(each, block.groups.width_starts, axis=1)
        for each in (block.counts, gaps, expected, block.squares)
    )
    return BinTable(count, gaps, outcome, block.rows.num_samples, squares)


@dataclass(frozen=True, eq=False)
class RunSums:
    """Sums over :class:`~fedlas.metrics.ranking.Runs` in replicates, ``(R or 1, G)``."""

    count: FloatArray
    wrong: FloatArray
    gaps: FloatArray
    num_samples: int
    num_bins: int


class ReplicateRuns:
    """Runs of rows of equal confidence in replicates, computed on first use."""

    def __init__(self, block: Replicates) -> None:
        self._block = block
        self.num_samples = block.rows.num_samples
        self.num_bins = block.rows.num_bins

    @cached_property
    def count(self) -> FloatArray:
        """Total weight of each run ``(R or 1, G)``."""
        return self._sum_runs(self._block.counts)

    @cached_property
    def wrong(self) -> FloatArray:
        """Total weight of the wrong samples of each run ``(R, G)``."""
        return self._sum_runs(self._block.counts - self._block.right)

    @cached_property
    def gaps(self) -> FloatArray:
        """Sum of ``confidence - correct`` of each run ``(R, G)``."""
        return self._sum_runs(self._block.gaps)

    def _sum_runs(self, values: FloatArray) -> FloatArray:
        starts = self._block.groups.tie_starts
        # Without ties every row is its own run.
        whole = len(starts) == values.shape[1]
        return values if whole else np.add.reduceat(values, starts, axis=1)


def _class_table(block: Replicates) -> ClassTable:
    """Return the sums over every class and bin of its probability."""
    return block.class_table


class ReplicateClassRuns:
    """Iterator over classes: runs of rows of equal probability, for all replicates at a time."""

    def __init__(self, block: Any) -> None:
        self._block = block

    def __iter__(self) -> Iterator[RunSums]:
        block = self._block
        rows = block.rows
        signs = block.signs if isinstance(block, SignFlippedReplicates) else None
        orders, values = rows.table(_sort_class_probs)
        for label, (order, probs) in enumerate(zip(orders, values, strict=True)):
            weights = block.weights.take(order, axis=1)
            starts = tie_starts(probs)
            right = block.labels.take(order, axis=1) == label
            gaps = weights * (probs - right)
            if signs is not None:
                gaps = gaps * signs.take(order, axis=1)
            count, wrong, gaps = (
                np.add.reduceat(each, starts, axis=1) for each in (weights, weights * ~right, gaps)
            )
            yield RunSums(count, wrong, gaps, rows.num_samples, rows.num_bins)


def _sort_class_probs(rows: Rows) -> tuple[IntArray, FloatArray]:
    """Return row indices and probabilities of each class by ascending probability, both ``(C, N)``."""
    # In double precision and step by step as the metric has them: what is equal decides where bins may be cut.
    probs = softmax_float64(rows.multiclass_predictions.tensors().logits).T.contiguous().numpy()
    order = np.argsort(probs, axis=1, kind="stable")
    return order, np.take_along_axis(probs, order, axis=1)


def _cosine_basis(rows: Rows) -> FloatArray:
    """Return cosines of ascending frequencies at the mean confidence of each group ``(G, K)``."""
    return np.cos(np.pi * rows.groups.confidence[:, None] * np.arange(_FREQUENCIES))


class GroupSpectra(Spectra):
    """Cosine transforms of group gaps at the group's mean confidence, computed up to the needed frequency."""

    # Fewer nodes than the metric has, and less precision, are enough.
    precision = 1e-7
    min_nodes = 2**11

    def __init__(self, block: Replicates) -> None:
        rows = block.rows
        gaps = block.neighbor_gaps
        super().__init__(np.empty((len(gaps), 0)))
        self._gaps = 2.0 / rows.num_samples * gaps
        self._waves = rows.table(_cosine_basis)
        # About the smooth error of a calibrated model; of another the mean gap is a better guess.
        self.guess = 0.3 / math.cbrt(rows.num_samples)

    def lowest_frequencies(self, count: int) -> FloatArray:
        """Return the transforms of the ``count`` lowest frequencies ``(R, up to count)``."""
        more = self._waves[:, self.values.shape[1] : count]
        if more.size:
            self.values = np.concatenate([self.values, self._gaps @ more], axis=1)
        return self.values[:, :count]


TABLE_BUILDERS: Mapping[type[Statistic] | None, Callable[[Any], Any]] = {
    EqualWidth: _equal_width_bins,
    TrueAccuracyBins: _label_prob_bins,
    EqualMass: ReplicateRuns,
    ClasswiseSums: _class_table,
    SortedClassProbs: ReplicateClassRuns,
    FineGrid: GroupSpectra,
}
"""Replaces each statistic of a metric for many replicates."""
_SUM_STATISTICS = (EqualWidth, ClasswiseSums, FineGrid)
