"""Replicates as sums over cells: how often each row, or whole cluster of rows, was drawn, added up cell by cell.

The engine of every bootstrap and noise floor here, of metrics (:mod:`fedlas.stats.draws`) and of what needs cells alone
(:class:`CellResampler`: ICI, average precision, bands of diagrams):

- **Units.** What is drawn is a unit: a row, or with clusters a whole cluster of rows, since rows of one depend on each
  other. A replicate is a number for each unit: how often it was drawn (bootstrap), or a sign (below).
- **Cells.** A metric needs sums of rows: over bins, classes and bins, or neighbors in probability. Rows of one unit in
  one cell are added up once, so that a replicate costs no more than there are units and cells; with clusters that is
  far less than rows. Ranks, which each replicate has of its own, are taken of rows.
- **Weights** multiply what a row adds to a cell. A replicate is scaled so that it has as much weight as the sample.
- **A calibrated model.** Outcomes are drawn from the probabilities. Those of a cluster may depend on each other in any
  way, so with clusters the gaps between probability and outcome keep or change their sign, all of a cluster together
  (wild bootstrap): their mean is then 0, as that of a calibrated model.
- **Few clusters and few events.** Replicates of few units vary too little. Their intervals are as much wider as
  Student's distribution is than the normal one (:func:`fedlas.stats.degrees.cluster_widening_factor`, of the effective
  number of clusters); with a single cluster there are none. Shares have exact intervals instead of replicates, and Wald
  errors of weighted events a lower bound (:class:`fedlas.binary.grouped_samples.GroupedSamples`).
- **Random numbers.** Metrics have a stream for each purpose (:func:`fedlas._core.streams.seeded_generator`), whose
  output NumPy froze. :class:`CellResampler` uses one stream of NumPy's newer generator: another would change every
  published ICI.
- **Time.** Rows that are independent and count once are drawn cell by cell, as binomial numbers, and many of them in
  groups of neighbors (:mod:`fedlas.stats.replicates`): replicates then cost the same for any number of rows. Samples of
  several labels, which have a value in cells of each, are drawn in blocks (:mod:`fedlas.stats.label_bins`).
- **What draws without it.** Where a model is fitted again on the rows drawn (:func:`fedlas.stats.optimism`), rows are
  needed rather than sums of them, a draw without one of the classes is drawn again, and time is that of the fits.
  OOD detection draws two samples, neither weighted nor clustered, and counts the scores drawn at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas.stats.degrees import degrees_of_freedom

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray

_ELEMENTS = 2**20
"""Elements of a block of replicates of units, or rows."""


def count_draws(index: IntArray) -> FloatArray:
    """Return how often each unit was drawn ``(R, U)``, from the indices of the drawn units ``(R, U)``.

    Changes ``index``. A unit is a row, or a whole cluster of rows.

    Example:
        >>> count_draws(np.array([[0, 2, 2], [1, 1, 1]])).tolist()
        [[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]
    """
    # Each replicate counts in a range of its own, so that one bincount serves the whole block.
    index += np.arange(len(index))[:, None] * index.shape[1]
    times = np.bincount(index.ravel(), minlength=index.size)
    return times.reshape(index.shape).astype(np.float64)


class ReplicateCellSums:
    """Cell sums of many replicates, computed from entries that each belong to a unit and a cell.

    Args:
        unit: Unit of each entry ``(N,)``, from 0 on.
        cell: Cell of each entry ``(N,)``.
        num_cells: Number of cells ``K``.
    """

    def __init__(self, unit: IntArray, cell: IntArray, num_cells: int) -> None:
        import torch

        # Entries of one cell follow each other, and those of one unit in it are added up once, for all replicates.
        pair = cell * (int(unit.max(initial=0)) + 1) + unit
        self._order = np.argsort(pair, kind="stable")
        pair = pair[self._order]
        self._starts = np.flatnonzero(np.append(pair[:1] >= 0, pair[1:] != pair[:-1]))
        first = self._order[self._starts]
        self._unit = torch.from_numpy(unit[first])
        self._begin = torch.from_numpy(np.searchsorted(cell[first], np.arange(num_cells)))

    def sum_by_unit(self, values: FloatArray) -> FloatArray:
        """Return the sums of ``values (N,)`` per unit and cell: the input of :meth:`sums`."""
        if not len(self._starts):
            return np.zeros(0)
        return np.add.reduceat(values[self._order], self._starts, dtype=np.float64)

    def sums(self, weights: FloatArray, values: FloatArray) -> FloatArray:
        """Return the cell sums ``(R, K)`` of all replicates, each entry times the weight of its unit.

        Args:
            weights: Weights of the units in each replicate ``(R, U)``.
            values: What :meth:`sum_by_unit` returned.
        """
        import torch

        if not len(values):
            return np.zeros((len(weights), len(self._begin)))
        # A product with a sparse matrix: all replicates of a unit lie side by side and are added in one go.
        units = torch.from_numpy(np.ascontiguousarray(weights.T))
        factors = torch.from_numpy(values)
        sums = torch.nn.functional.embedding_bag(
            self._unit, units, self._begin, mode="sum", per_sample_weights=factors
        )
        return np.ascontiguousarray(sums.numpy().T)


class DenseCellSums:
    """As :class:`ReplicateCellSums`, for units that have entries in most cells; digits depend on the processor."""

    def __init__(self, unit: IntArray, cell: IntArray, num_cells: int) -> None:
        self._shape = (int(unit.max(initial=0)) + 1, num_cells)
        self._place = unit * num_cells + cell

    def sum_by_unit(self, values: FloatArray) -> FloatArray:
        """Return the sums of ``values (N,)`` per unit and cell ``(U, K)``."""
        sums = np.bincount(self._place, values, self._shape[0] * self._shape[1])
        return sums.astype(np.float64).reshape(self._shape)

    def sums(self, weights: FloatArray, values: FloatArray) -> FloatArray:
        """Return the cell sums ``(R, K)`` of all replicates, from weights ``(R, U)``."""
        return weights @ values


class OutcomeCells:
    """Sums of weights, probabilities and outcomes over cells of samples, for the data and for replicates.

    Args:
        cell: Cell of each sample ``(N,)``.
        num_cells: Number of cells ``K``.
        probability: Of the outcome ``(N,)``.
        outcome: 1 where it occurred, else 0 ``(N,)``.
        weights: ``(N,)`` that average 1; None if every sample counts once.
        clusters: Number of each sample's cluster ``(N,)``, from 0 on; None if all are independent.
        label: The class whose outcome it is; None: whether the predicted class is the label.
        effective_samples: Effective number of samples, which are drawn cell by cell; None if rows are drawn.
        fill_all: Whether most units have entries in most cells, so that a dense matrix of their sums is faster.

    Attributes:
        cell: Cell of each sample ``(N,)``.
        num_units: How many samples, or clusters, are drawn.
        weights: ``(N,)``, ones if there are none.
    """

    def __init__(
        self,
        cell: IntArray,
        num_cells: int,
        probability: FloatArray,
        outcome: FloatArray,
        weights: FloatArray | None = None,
        clusters: IntArray | None = None,
        label: int | None = None,
        effective_samples: int | None = None,
        *,
        fill_all: bool = False,
    ) -> None:
        self.num_samples = len(cell)
        self.num_draws = len(cell) if effective_samples is None else effective_samples
        self._has_effective_samples = effective_samples is not None
        self.num_cells = num_cells
        self.clusters = clusters
        self.label = label
        self.is_weighted = weights is not None
        self.probability = probability
        self.cell = cell
        self._fill_all = fill_all
        self.outcome = outcome
        self.weights = np.ones(len(cell)) if weights is None else weights
        self.num_units = len(cell) if clusters is None else int(clusters.max()) + 1

    @property
    def is_iid(self) -> bool:
        """Whether cell counts can be drawn directly: independent samples, unweighted or of a known effective number."""
        return self.clusters is None and (not self.is_weighted or self._has_effective_samples)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of a variance over clusters; infinity without clusters."""
        return degrees_of_freedom(self.weights, self.clusters)

    def total(self, values: FloatArray | float) -> FloatArray:
        """Return the weighted sum of ``values (N,)`` in each cell ``(K,)``."""
        return np.bincount(self.cell, self.weights * values, self.num_cells).astype(np.float64)

    @cached_property
    def count(self) -> FloatArray:
        """Sum of the weights in each cell ``(K,)``."""
        return self.total(1.0)

    @cached_property
    def expected(self) -> FloatArray:
        """Weighted sum of the probabilities in each cell ``(K,)``."""
        return self.total(self.probability)

    @cached_property
    def positives(self) -> FloatArray:
        """Weighted sum of the outcomes in each cell ``(K,)``."""
        return self.total(self.outcome)

    @cached_property
    def squares(self) -> FloatArray:
        """Sum of the squared weights in each cell ``(K,)``."""
        return self.total(self.weights)

    def scale(self, draw_counts: FloatArray) -> FloatArray:
        """Return factors ``(R, 1)`` that give replicates the total weight of the data, from draw counts ``(R, U)``."""
        weight = np.einsum("ru,u->r", draw_counts, self._unit_weights)
        return np.asarray(self.num_samples / weight)[:, None]

    def sum_counts(self, draw_counts: FloatArray) -> FloatArray:
        """Return the sum of the weights in each cell ``(R, K)``, from draw counts of the units ``(R, U)``."""
        return self._sums.sums(draw_counts, self._counts)

    def sum_outcomes(self, draw_counts: FloatArray) -> FloatArray:
        """Return the sum of the outcomes in each cell ``(R, K)``, from draw counts of the units ``(R, U)``."""
        return self._sums.sums(draw_counts, self._outcomes)

    def sum_gaps(self, weights: FloatArray) -> FloatArray:
        """Return sums of probability minus outcome ``(R, K)``, from a weight or sign of each unit ``(R, U)``."""
        return self._sums.sums(weights, self._gaps)

    def sum_squared_weights(self, draw_counts: FloatArray) -> FloatArray:
        """Return sums of the squared weights in each cell ``(R, K)``, from draw counts of the units ``(R, U)``."""
        return self._sums.sums(draw_counts, self._squares)

    def sum_new_outcomes(self, outcomes: FloatArray) -> FloatArray:
        """Return sums of new outcomes in each cell ``(R, K)``, from outcomes of independent samples ``(R, N)``."""
        return self._sums.sums(outcomes, self._counts)

    @cached_property
    def _sums(self) -> ReplicateCellSums | DenseCellSums:
        unit = np.arange(self.num_samples) if self.clusters is None else self.clusters
        if self._fill_all:
            return DenseCellSums(unit, self.cell, self.num_cells)
        return ReplicateCellSums(unit, self.cell, self.num_cells)

    @cached_property
    def _unit_weights(self) -> FloatArray:
        if self.clusters is None:
            return self.weights
        return np.bincount(self.clusters, self.weights).astype(np.float64)

    @cached_property
    def _counts(self) -> FloatArray:
        return self._sums.sum_by_unit(self.weights)

    @cached_property
    def _outcomes(self) -> FloatArray:
        return self._sums.sum_by_unit(self.weights * self.outcome)

    @cached_property
    def _gaps(self) -> FloatArray:
        return self._sums.sum_by_unit(self.weights * (self.probability - self.outcome))

    @cached_property
    def _squares(self) -> FloatArray:
        return self._sums.sum_by_unit(self.weights**2)


class CellResampler:
    """Seeded bootstrap and null replicates of cell counts and outcomes."""

    def __init__(self, cells: OutcomeCells, replicates: int, seed: int) -> None:
        self._cells = cells
        self._replicates = replicates
        self._random = np.random.default_rng(seed)

    def draw_bootstrap(self) -> tuple[FloatArray, FloatArray]:
        """Return counts and positive outcomes of each cell ``(R, K)`` in bootstrap replicates."""
        cells = self._cells
        if cells.is_iid:
            shares = np.concatenate([cells.positives, cells.count - cells.positives])
            shares = np.maximum(shares, 0.0) / cells.num_samples
            draws = self._random.multinomial(
                cells.num_draws, shares / shares.sum(), size=self._replicates
            )
            yes, no = np.split(draws.astype(np.float64), 2, axis=1)
            return yes + no, yes
        blocks = [
            (cells.sum_counts(times), cells.sum_outcomes(times), cells.scale(times))
            for times in self._iter_blocks(self._draw_unit_counts, cells.num_units)
        ]
        counts, positives, scale = (np.concatenate(each) for each in zip(*blocks, strict=True))
        return counts * scale, positives * scale

    def draw_calibrated_bootstrap(self) -> tuple[FloatArray, FloatArray]:
        """Return counts of bootstrap replicates, and outcomes drawn from the probabilities, both ``(R, K)``."""
        cells = self._cells
        if cells.is_iid:
            shares = cells.count / cells.num_samples
            counts = self._random.multinomial(
                cells.num_draws, shares / shares.sum(), size=self._replicates
            )
            return counts.astype(np.float64), self._draw_binomial(counts)
        blocks = []
        for times in self._iter_blocks(self._draw_unit_counts, cells.num_units):
            # Each copy of a unit that is drawn has outcomes, or a sign, of its own.
            copies = times.astype(np.int64)
            if cells.clusters is None:
                labels = self._random.binomial(copies, np.clip(cells.probability, 0.0, 1.0))
                outcomes = cells.sum_new_outcomes(labels.astype(np.float64))
            else:
                signs = 2.0 * self._random.binomial(copies, 0.5) - times
                outcomes = cells.sum_outcomes(times) + cells.sum_gaps(times - signs)
            blocks.append((cells.sum_counts(times), outcomes, cells.scale(times)))
        totals, positives, scale = (np.concatenate(each) for each in zip(*blocks, strict=True))
        return totals * scale, positives * scale

    def draw_calibrated_outcomes(self) -> FloatArray:
        """Return outcomes of each cell ``(R, K)`` drawn from the probabilities, with the counts of the data."""
        cells = self._cells
        if cells.is_iid:
            counts = np.rint(cells.count * (cells.num_draws / cells.num_samples)).astype(np.int64)
            return self._draw_binomial(np.broadcast_to(counts, (self._replicates, cells.num_cells)))
        if cells.clusters is None:
            blocks = self._iter_blocks(self._draw_labels, cells.num_samples)
            return np.concatenate([cells.sum_new_outcomes(labels) for labels in blocks])
        signs = self._iter_blocks(self._draw_signs, cells.num_units)
        moved = np.concatenate([cells.sum_gaps(each) for each in signs])
        return np.asarray(cells.expected - moved)

    def _draw_binomial(self, counts: IntArray) -> FloatArray:
        """Draw the outcomes of each cell ``(R, K)`` from its mean probability, given counts ``(R, K)``."""
        cells = self._cells
        share = np.divide(
            cells.expected, cells.count, out=np.zeros(cells.num_cells), where=cells.count > 0
        )
        return self._random.binomial(counts, np.clip(share, 0.0, 1.0)).astype(np.float64)

    def _iter_blocks(
        self, draw_block: Callable[[int], NDArray[np.float64]], num_columns: int
    ) -> Iterator[FloatArray]:
        step = max(1, _ELEMENTS // num_columns)
        for start in range(0, self._replicates, step):
            yield draw_block(min(step, self._replicates - start))

    def _draw_unit_counts(self, num_replicates: int) -> FloatArray:
        """Draw how often each sample, or cluster, occurs in a bootstrap replicate ``(size, U)``."""
        units = self._cells.num_units
        return count_draws(self._random.integers(units, size=(num_replicates, units)))

    def _draw_labels(self, num_replicates: int) -> FloatArray:
        """Draw outcomes ``(size, N)`` from the probabilities."""
        cells = self._cells
        draws = self._random.random((num_replicates, cells.num_samples)) < cells.probability
        return draws.astype(np.float64)

    def _draw_signs(self, num_replicates: int) -> FloatArray:
        """Draw a random sign for each cluster ``(size, U)``."""
        return np.asarray(
            self._random.integers(2, size=(num_replicates, self._cells.num_units)) * 2.0 - 1.0
        )
