"""Bootstrap and null replicates, drawn block by block, and metrics over them.

Random numbers are a function of the seed and the replicate's number alone: neither the size of the blocks nor the
number of threads plays a part. They are those of :func:`fedlas._core.streams.stream` for a purpose and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from fedlas._core.check import InputError, check_count
from fedlas._core.streams import stream
from fedlas.metrics.classwise import errors_by_class
from fedlas.metrics.metric import Metric
from fedlas.predictions.any_predictions import AnyPredictions, check_measurable
from fedlas.stats.cell_sums import times_drawn
from fedlas.stats.group_replicates import GroupsRedrawn, GroupsResampled
from fedlas.stats.replicates import BLOCK, Redrawn, Replicates, Resampled, Turned
from fedlas.stats.rows import GROUPS, Floats, Rows
from fedlas.stats.tables import knows_groups, values_of_block

BY_CLASS = "by class"
"""Name of the errors of each class among the values of metrics."""
NOTHING: Mapping[str, Callable[[Replicates], Floats]] = MappingProxyType({})
"""No further statistics."""


class DrawPurpose(IntEnum):
    """Purpose of a random stream; each purpose has its own stream of a seed. Do not renumber."""

    BOOTSTRAP = 0
    NOISE_FLOOR = 1
    CELL_BIAS = 2
    RIGHT = 3
    BLOCKS = 4
    LABELS = 5
    MEANS = 6


def rows_for(predictions: AnyPredictions, num_bins: int) -> Rows:
    """Return the rows of ``predictions``, without rows of weight 0, prepared for resampling."""
    predictions = _counted(predictions)
    if predictions.num_samples < 2:
        raise InputError(
            "predictions must hold at least 2 samples",
            1,
            "Pass more samples: one sample has no spread.",
        )
    rows = Rows(predictions, check_count("num_bins", num_bins))
    if rows.num_units < 2:
        raise InputError(
            "samples must come from at least 2 clusters",
            f"{rows.num_samples:,} samples from one cluster",
            "Use samples from more clusters: one cluster shows no variance between clusters.",
        )
    return rows


def has_spread(predictions: AnyPredictions) -> bool:
    """Return whether at least two samples, or two clusters, have positive weight, as intervals and tests require."""
    predictions = _counted(predictions)
    clusters = predictions.clusters
    units = predictions.num_samples if clusters is None else len(clusters.unique())
    return units > 1


def _counted(predictions: AnyPredictions) -> AnyPredictions:
    """Return the samples with positive weight."""
    predictions = check_measurable(predictions)
    weights = predictions.weights
    if weights is None or bool(weights.all()):
        return predictions
    return predictions.rows(weights.nonzero().squeeze(1))


def resampled_units(*rows: Rows, replicates: int, seed: int) -> Iterator[Floats]:
    """Yield blocks of bootstrap draw counts of the units ``(R, U)``, shared by all sets of rows."""
    # Clusters are drawn whole. There are `replicates` rows in all.
    units = rows[0].num_units
    for uniforms in _uniforms(DrawPurpose.BOOTSTRAP, rows, replicates, seed):
        # Uniform numbers are at most 1 - 2**-53, which times N rounds to less than N: no index is out of range.
        yield times_drawn(np.multiply(uniforms, units, out=uniforms).astype(np.int64))


def resampled(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of bootstrap replicates of rows, ``replicates`` in all."""
    for times in resampled_units(rows, replicates=replicates, seed=seed):
        yield Resampled(rows, times)


def redrawn(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of null replicates, with labels drawn as if the model were calibrated, ``replicates`` in all."""
    # Labels are drawn from its probabilities; with clusters their gaps are turned, see `Turned`.
    for uniforms in _uniforms(DrawPurpose.NOISE_FLOOR, [rows], replicates, seed):
        if rows.clusters is None:
            yield Redrawn(rows, uniforms)
        else:
            yield Turned(rows, np.where(uniforms < 0.5, -1.0, 1.0))


def groups_resampled(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of bootstrap replicates of groups of rows, ``replicates`` in all."""
    purposes = (DrawPurpose.BOOTSTRAP, DrawPurpose.RIGHT, DrawPurpose.BLOCKS, DrawPurpose.MEANS)
    random, random_right, blocks, normal = (stream(each, seed) for each in purposes)
    for size in _sizes(len(rows.groups.count), [rows], replicates):
        yield GroupsResampled(rows, random, random_right, blocks, normal.standard_normal(size))


def groups_redrawn(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of null replicates of groups of rows, ``replicates`` in all."""
    random, labels = (stream(each, seed) for each in (DrawPurpose.NOISE_FLOOR, DrawPurpose.LABELS))
    for size in _sizes(len(rows.groups.count), [rows], replicates):
        yield GroupsRedrawn(rows, size, random, labels)


def values_in(
    purpose: DrawPurpose,
    rows: Rows,
    entries: Sequence[Metric],
    *,
    replicates: int,
    seed: int,
    by_class: bool = False,
    extra: Mapping[str, Callable[[Replicates], Floats]] = NOTHING,
    advance: Callable[[float], None] | None = None,
) -> dict[str, Floats]:
    """Return values of several metrics over one shared set of replicates, by name."""
    means = purpose is DrawPurpose.BOOTSTRAP
    of_groups = [entry for entry in entries if rows.are_many and knows_groups(entry, means=means)]
    of_rows = [entry for entry in entries if entry not in of_groups]
    row_draws, group_draws = (resampled, groups_resampled) if means else (redrawn, groups_redrawn)
    passes = [(row_draws, of_rows, not rows.are_many), (group_draws, of_groups, rows.are_many)]
    has_more = by_class or bool(extra)
    passes = [(draw, some, here) for draw, some, here in passes if some or (has_more and here)]
    parts: dict[str, list[Floats]] = {}
    for draw, some, here in passes:
        for block in draw(rows, replicates=replicates, seed=seed):
            for name, values in values_of_block(some, block).items():
                parts.setdefault(name, []).append(values)
            if by_class and here:
                parts.setdefault(BY_CLASS, []).append(errors_by_class(block.class_table))
            for name, statistic in extra.items() if here else ():
                parts.setdefault(name, []).append(statistic(block))
            block.release()
            if advance is not None:
                advance(block.size / replicates / len(passes))
    return {name: np.concatenate(values) for name, values in parts.items()}


def values_in_both(
    rows: Rows,
    entries: Sequence[Metric],
    tested: Sequence[Metric],
    *,
    extra: Mapping[str, Callable[[Replicates], Floats]] = NOTHING,
    **options: Any,
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return bootstrap values of ``entries``, and null values of ``tested`` and of ``extra``."""
    # The two share nothing that either changes, so a second core takes the one, if PyTorch may use more than one.

    def floors() -> dict[str, Floats]:
        return values_in(DrawPurpose.NOISE_FLOOR, rows, tested, extra=extra, **options)

    if torch.get_num_threads() == 1:
        return values_in(DrawPurpose.BOOTSTRAP, rows, entries, **options), floors()
    with ThreadPoolExecutor(1) as other:
        future = other.submit(floors)
        return values_in(DrawPurpose.BOOTSTRAP, rows, entries, **options), future.result()


def _sizes(columns: int, rows: Sequence[Rows], replicates: int) -> Iterator[int]:
    """Yield the block sizes, which depend on memory and do not change the random numbers."""
    # Besides arrays of so many columns there are (R, C * num_bins) arrays, and those of neighbors in confidence.
    cells = [each.num_classes * each.num_bins for each in rows]
    neighbors = min(GROUPS, rows[0].num_samples)
    step = max(1, BLOCK // max(columns, neighbors, *cells))
    yield from (min(step, replicates - start) for start in range(0, replicates, step))


def _uniforms(
    purpose: DrawPurpose, rows: Sequence[Rows], replicates: int, seed: int
) -> Iterator[Floats]:
    random = stream(purpose, seed)
    units = rows[0].num_units
    yield from (random.random_sample((size, units)) for size in _sizes(units, rows, replicates))
