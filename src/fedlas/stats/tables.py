"""What metrics are computed from, for a block of replicates: the same tables as a statistic gives, with a leading axis.

A metric's formula (:attr:`fedlas.metrics.OnePass.value`) takes either. A metric whose statistic has no table here is
called on the :class:`~fedlas.Predictions` of one replicate after another: right, but as slow as the metric is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedlas.metrics.ace import EveryClass
from fedlas.metrics.calibration_error import EqualMass
from fedlas.metrics.classwise import ClassTable, ClasswiseSums
from fedlas.metrics.ece import BinTable, EqualWidth
from fedlas.metrics.evaluate import values_of
from fedlas.metrics.grids import FineGrid, class_probs
from fedlas.metrics.ranking import equal_mass_gaps_of_rows, starts_of_ties
from fedlas.metrics.row_mean import mean_of_rows
from fedlas.metrics.scan import AnyOnePass, Metric, Statistic
from fedlas.metrics.smooth import Spectra, smooth_calibration_error
from fedlas.metrics.true_error import TrueOutcome
from fedlas.predictions import Predictions
from fedlas.stats.replicates import Redrawn, Replicates, Resampled, Turned
from fedlas.stats.rows import Floats, Integers, Quantity, Rows

T = TypeVar("T")
_FREQUENCIES = 2**11
"""Of the replicates of the smooth error: enough for scales from 0.001 on."""


def replicate_values(entry: Metric, block: Replicates) -> Floats:
    """Return the metric of every replicate ``(R,)``.

    Args:
        entry: The metric's entry in ``METRICS``.
        block: The replicates; their rows hold the number of bins.
    """
    quantity = mean_quantity(entry, block.rows)
    if quantity is not None and (means := block.mean(quantity)) is not None:
        return means
    one_pass: AnyOnePass | None = entry.one_pass
    if one_pass is not None and one_pass.statistic in TABLES:
        values = np.asarray(one_pass.value(block.table(TABLES[one_pass.statistic])))
        # one number says that the formula of somebody's metric knows of no replicates
        if values.ndim == 1:
            return np.broadcast_to(values, (block.size,))
    return np.array(
        [values_of(one, [entry], block.rows.num_bins)[entry.name] for one in block.predictions()]
    )


def knows_groups(entry: Metric, *, means: bool) -> bool:
    """Return whether groups of rows are enough for the metric; with ``means`` they are for a mean over rows, too."""
    one_pass: AnyOnePass | None = entry.one_pass
    if one_pass is None:
        return False
    if one_pass.value is mean_of_rows:
        return means
    # Formulas of others may know of no replicates, and need predictions one by one.
    ours = entry.value.__module__.startswith("fedlas.metrics")
    return ours and one_pass.statistic in TABLES and one_pass.statistic is not EveryClass


def mean_quantity(entry: Metric, rows: Rows) -> Quantity | None:
    """Return the quantity of each row that the metric is the mean of; None if it is no such mean."""
    one_pass: AnyOnePass | None = entry.one_pass
    if one_pass is None or one_pass.value is not mean_of_rows:
        return None
    quantity: Quantity = one_pass.statistic(rows.predictions, rows.num_bins).quantity
    return quantity


def share_of(entry: Metric, rows: Rows) -> NDArray[np.bool_] | None:
    """Return whether each row counts ``(N,)``, of a metric that is the share of rows that do; None for others."""
    quantity = mean_quantity(entry, rows)
    values = None if quantity is None else rows.column(quantity)
    return values if values is not None and values.dtype == np.bool_ else None


@dataclass(frozen=True, eq=False)
class Filled(Generic[T]):
    """A statistic of which nothing but its table is known."""

    sums: T

    def table(self) -> T:
        """Return the table."""
        return self.sums


def _width_bins(block: Replicates) -> Filled[BinTable]:
    """Return sums over bins of equal width, without those that the rows leave empty."""
    return _bins(block, block.gaps, block.right)


def _expected_bins(block: Replicates) -> Filled[BinTable]:
    """Return the same with the known probability of being right as the outcome."""
    expected = block.expected_right
    return _bins(block, block.counts * block.groups.confidence - expected, expected)


def _bins(block: Replicates, *sums: Floats) -> Filled[BinTable]:
    arrays = (block.counts, *sums, *([] if block.squares is None else [block.squares]))
    count, gaps, right, *squares = (
        np.add.reduceat(each, block.groups.width_starts, axis=1) for each in arrays
    )
    return Filled(BinTable(count, gaps, right, block.rows.num_samples, *squares))


@dataclass(frozen=True, eq=False)
class RunSums:
    """:class:`~fedlas.metrics.ranking.Runs` of replicates, ``(R or 1, G)``."""

    count: Floats
    wrong: Floats
    gaps: Floats
    num_samples: int


class Ranked:
    """What :class:`~fedlas.metrics.calibration_error.EqualMass` gives."""

    def __init__(self, block: Replicates) -> None:
        self._block = block

    def table(self) -> BinTable:
        """Return gaps of bins of equal mass; nothing asks for more."""
        block = self._block
        rows = self._block.rows
        nothing = np.empty(0)
        starts = block.groups.tie_starts
        gaps = equal_mass_gaps_of_rows(
            block.counts, block.gaps, starts, rows.num_samples, rows.num_bins
        )
        return BinTable(nothing, gaps, nothing, rows.num_samples)

    def ranking(self) -> RunSums:
        """Return rows of equal confidence together."""
        block = self._block
        starts = self._block.groups.tie_starts
        sums = (block.counts, block.counts - block.right, block.gaps)
        # With no ties every row is its own run.
        count, wrong, gaps = (
            s if len(starts) == s.shape[1] else np.add.reduceat(s, starts, axis=1) for s in sums
        )
        return RunSums(count, wrong, gaps, block.rows.num_samples)


def _class_table(block: Replicates) -> Filled[ClassTable]:
    """Return sums over every class and bin of its probability."""
    return Filled(block.class_table)


class SortedClasses:
    """What :class:`~fedlas.metrics.ace.EveryClass` gives: one class after another, all replicates at a time."""

    def __init__(self, block: Resampled | Redrawn | Turned) -> None:
        self._block = block
        self.num_bins = block.rows.num_bins

    def rankings(self) -> Iterator[RunSums]:
        """Yield rows of equal probability of the class together."""
        block = self._block
        signs = block.signs if isinstance(block, Turned) else None
        for label, (order, probs) in enumerate(
            zip(*block.rows.table(_sorted_columns), strict=True)
        ):
            weights = block.weights.take(order, axis=1)
            starts = starts_of_ties(probs)
            right = block.labels.take(order, axis=1) == label
            gaps = weights * (probs - right)
            if signs is not None:
                gaps = gaps * signs.take(order, axis=1)
            sums = (weights, weights * ~right, gaps)
            count, wrong, gaps = (np.add.reduceat(each, starts, axis=1) for each in sums)
            yield RunSums(count, wrong, gaps, block.rows.num_samples)


def _sorted_columns(rows: Rows) -> tuple[Integers, Floats]:
    """Return each class's rows by ascending probability and these probabilities, both ``(C, N)``.

    In double precision and step by step as the metric has them: what is equal decides where bins may be cut.
    """
    probs = class_probs(rows.all_classes.logits).T.contiguous().numpy()
    order = np.argsort(probs, axis=1, kind="stable")
    return order, np.take_along_axis(probs, order, axis=1)


def _spectra(block: Replicates) -> Spectra:
    """Return cosine transforms of gaps of groups of rows; the scale's search begins at the value of the rows.

    A group is at its mean confidence. Fewer frequencies than the metric has, and less precision, are enough.
    """
    rows = block.rows
    gaps = block.gaps
    if gaps.shape[1] > len(rows.groups.count):
        gaps = np.add.reduceat(gaps, rows.groups.first, axis=1)
    values = 2.0 / rows.num_samples * gaps @ rows.table(_waves)
    return Spectra(values, guess=rows.table(_smooth_error), precision=1e-7, fewest=2**11)


def _waves(rows: Rows) -> Floats:
    return np.cos(np.pi * rows.groups.confidence[:, None] * np.arange(_FREQUENCIES))


def _smooth_error(rows: Rows) -> float:
    return smooth_calibration_error(rows.predictions)


TABLES: Mapping[Callable[[Predictions, int], Statistic], Callable[[Any], Any]] = {
    EqualWidth: _width_bins,
    TrueOutcome: _expected_bins,
    EqualMass: Ranked,
    ClasswiseSums: _class_table,
    EveryClass: SortedClasses,
    FineGrid: _spectra,
}
"""Replaces each statistic of a metric for many replicates; of all but ``EveryClass``, groups of rows are enough."""
