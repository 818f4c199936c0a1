"""Bias of classwise calibration errors from label noise in sparse cells.

The bootstrap cannot tell: a cell of one sample has the same gap however often that sample is drawn.
``results/coverage.md`` has what this changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.streams import seeded_generator
from fedlas.metrics.classwise import ClassTable, ClasswiseSums, mean_class_error
from fedlas.metrics.classwise_adaptive import SortedClassProbs
from fedlas.metrics.ranking import equal_mass_cuts, sum_between_cuts
from fedlas.resample.effective import effective_sample_size
from fedlas.stats.draws import DrawPurpose, gather_class_blocks
from fedlas.stats.replicates import BootstrapReplicates
from fedlas.stats.tables import ReplicateClassRuns

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.metric import Metric
    from fedlas.stats.rows import Rows

DRAWS = 100
"""Sets of labels that are drawn; their mean is over all cells as well, so that few are enough."""
STANDARD_ERRORS = 2.0
"""How far from the observed numbers the true ones are taken to be at most."""


def metric_bias_bounds(metric: Metric, rows: Rows) -> tuple[float, float]:
    """Return lower and upper bounds of the metric's bias, estimated by redrawing labels in each cell."""
    if not metric.zero_if_calibrated or metric.formula is None:
        return 0.0, 0.0
    if metric.statistic is ClasswiseSums:
        least, most = bias_bounds(rows.table(_equal_width_table), metric.formula)
        return max(0.0, float(least)) if metric.squares else 0.0, float(most)
    if metric.statistic is SortedClassProbs:
        return 0.0, float(bias_bounds(rows.table(_equal_mass_table), mean_class_error)[1])
    return 0.0, 0.0


def class_bias_upper_bounds(rows: Rows, errors: Callable[[ClassTable], FloatArray]) -> FloatArray:
    """Return an upper bound of the bias of each class's calibration error ``(C,)``, given its formula."""
    return bias_bounds(rows.table(_equal_width_table), errors)[1]


def bias_bounds(
    table: ClassTable, formula: Callable[[ClassTable], Any]
) -> tuple[FloatArray, FloatArray]:
    """Return lower and upper bounds of the bias of ``formula``, estimated by redrawing labels in each cell."""
    # That is what the expected labels show, less or more `STANDARD_ERRORS` of it. Its standard error has a part from
    # each bin: what changes if the labels of the bin, in all classes, are one of theirs closer to the probabilities.
    expected = shrink_label_counts(table)
    closer = shrink_label_counts(table, max_shift=1.0)
    count, probs = (each.reshape(table.num_classes, -1) for each in (table.count(), table.probs))
    excesses = []
    parts = []
    for each in range(count.shape[1]):
        column = replace(
            table,
            probs=probs[:, each],
            labels=expected[:, each],
            count=partial(_identity, count[:, each]),
        )
        excesses.append(_label_noise_bias(column, formula, each))
        parts.append(
            _label_noise_bias(replace(column, labels=closer[:, each]), formula, each) - excesses[-1]
        )
    excess = np.sum(excesses, axis=0)
    lower_error = np.sqrt(np.square(parts).sum(axis=0))
    upper_error = np.sqrt(np.square(np.maximum(parts, 0.0)).sum(axis=0))
    return np.asarray(excess - STANDARD_ERRORS * lower_error), np.asarray(
        excess + STANDARD_ERRORS * upper_error
    )


def _label_noise_bias(
    column: ClassTable, formula: Callable[[ClassTable], Any], seed: int
) -> FloatArray:
    """Return the mean of ``formula`` over redrawn labels minus ``formula`` of the expected labels."""
    count = column.count()
    expected = column.labels
    # Empty cells have no share to draw with, and keep 0 labels in every draw.
    filled = count > 0
    labels = np.zeros((DRAWS, len(count)))
    # Effective numbers of weighted samples are not whole: each of the whole number then counts a little more or less.
    trials = np.maximum(np.rint(count[filled]), 1.0)
    labels[:, filled] = seeded_generator(DrawPurpose.CELL_BIAS, seed).binomial(
        trials.astype(np.int64), expected[filled] / count[filled], size=(DRAWS, len(trials))
    ) * (count[filled] / trials)
    mean_value = np.mean(formula(replace(column, labels=labels)), axis=0)
    return np.asarray(mean_value - formula(column))


def _identity(count: FloatArray) -> FloatArray:
    return count


def shrink_label_counts(table: ClassTable, max_shift: float = 0.0) -> FloatArray:
    """Return empirical-Bayes label counts per cell ``(C, B)``, moved ``max_shift`` standard errors to calibration."""
    # Cells of the same bin share one ratio of labels to probabilities over all classes. Where cells differ from their
    # bin beyond chance, those of many samples keep a part of their own difference.
    # Source: Efron and Morris, "Data analysis using Stein's estimator and its generalizations", JASA 70 (1975).
    count, probs, labels = (
        each.reshape(table.num_classes, -1) for each in (table.count(), table.probs, table.labels)
    )
    # Between one vote a sample and one vote a cell: small cells add as much bias as large ones, and may differ from
    # them, as the confidences of a class that is predicted too rarely do.
    weight = 1.0 / np.sqrt(np.maximum(count, 1.0))
    sums = (weight * probs).sum(axis=0)
    scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    ratio = scale * (weight * labels).sum(axis=0)
    error = scale * np.sqrt(
        (weight**2 * _binomial_variance((ratio * probs).clip(0.0, count), count)).sum(axis=0)
    )
    shared = ((ratio + (1.0 - ratio).clip(-max_shift * error, max_shift * error)) * probs).clip(
        0.0, count
    )
    # The variance, over classes, of a cell's share of labels about that of its bin, less two standard errors of it.
    chance = _binomial_variance(shared, count)
    apart = labels - shared
    # A Poisson number of mean m has Var((X - m) ** 2) = 2 m ** 2 + m; the labels of a cell nearly are one.
    noise = STANDARD_ERRORS * np.sqrt((2.0 * chance**2 + chance).sum(axis=0))
    spread = ((apart**2 - chance).sum(axis=0) - noise).clip(min=0.0) / np.maximum(
        (count**2).sum(axis=0), 1.0
    )
    beyond = count**2 * spread
    # A cell keeps of its deviation the share that true spread has in spread plus chance (empirical Bayes).
    share = np.divide(beyond, beyond + chance, out=np.zeros_like(beyond), where=beyond > 0)
    return np.asarray((shared + share * apart).clip(0.0, count))


def _binomial_variance(labels: FloatArray, count: FloatArray) -> FloatArray:
    """Return the variance of binomial counts with ``count`` trials and mean ``labels``."""
    return labels * (1.0 - labels / np.maximum(count, 1.0))


def _scale_to_effective_samples(table: ClassTable, rows: Rows) -> ClassTable:
    """Scale weighted sums to the effective number of samples, so that few heavy samples count as few."""
    if not rows.is_weighted:
        return table
    effective = effective_sample_size(rows.weights)
    count = table.count()
    scale = effective / rows.num_samples
    return replace(
        table,
        probs=scale * table.probs,
        labels=scale * table.labels,
        count=lambda: scale * count,
        num_samples=effective,
    )


def _equal_width_table(rows: Rows) -> ClassTable:
    """Return sums over equal-width bins of every class's probability."""
    if rows.has_many_rows:
        sums = gather_class_blocks(rows)
        probs, labels, count = (each.sum(axis=0) for each in (sums.probs, sums.labels, sums.counts))
    else:
        every = BootstrapReplicates(rows, np.ones((1, rows.num_units))).class_table
        probs, labels, count = (each[0] for each in (every.probs, every.labels, every.count()))
    table = ClassTable(probs, labels, lambda: count, rows.num_samples, rows.num_classes)
    return _scale_to_effective_samples(table, rows)


def _equal_mass_table(rows: Rows) -> ClassTable:
    """Return sums over equal-mass bins of every class's probability."""
    sums = []
    for runs in ReplicateClassRuns(BootstrapReplicates(rows, np.ones((1, rows.num_units)))):
        right = runs.count - runs.wrong
        cuts = equal_mass_cuts(runs)
        sums.append(
            [sum_between_cuts(cuts, each) for each in (runs.gaps + right, right, runs.count)]
        )
    probs, labels, count = (np.concatenate(each, axis=1)[0] for each in zip(*sums, strict=True))
    table = ClassTable(probs, labels, lambda: count, rows.num_samples, rows.num_classes)
    return _scale_to_effective_samples(table, rows)
