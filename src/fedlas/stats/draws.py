"""Bootstrap and null replicates, drawn block by block, and metrics over them.

Random numbers are a function of the seed and the replicate's number alone: neither the size of the blocks nor the
number of threads plays a part. They come from
:func:`fedlas._core.streams.seeded_generator` for a purpose and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import InputError, check_count
from fedlas._core.streams import seeded_generator
from fedlas.metrics.classwise import ClassTable, class_errors
from fedlas.predictions.any_predictions import AnyPredictions, require_top_label
from fedlas.stats.cell_sums import count_draws
from fedlas.stats.replicates import (
    BLOCK_ELEMENTS,
    BootstrapReplicates,
    ConsistencyReplicates,
    Replicates,
    SignFlippedReplicates,
)
from fedlas.stats.rows import FEW_CLASSES, NUM_GROUPS, ClassBlockSums, Rows
from fedlas.stats.tables import evaluate_block, supports_groups

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.metric import Metric
    from fedlas.metrics.sums import Quantity

BY_CLASS = "by class"
"""Name of the errors of each class among the values of metrics."""
NO_STATISTICS: Mapping[str, Callable[[Replicates], FloatArray]] = MappingProxyType({})
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


def prepare_rows(predictions: AnyPredictions, num_bins: int) -> Rows:
    """Return the rows of ``predictions``, without rows of weight 0, prepared for resampling."""
    predictions = _drop_zero_weights(predictions)
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


def has_several_units(predictions: AnyPredictions) -> bool:
    """Return whether at least two samples, or two clusters, have positive weight, as intervals and tests require."""
    predictions = _drop_zero_weights(predictions)
    clusters = predictions.tensors().clusters
    units = predictions.num_samples if clusters is None else len(clusters.unique())
    return units > 1


def _drop_zero_weights(predictions: AnyPredictions) -> AnyPredictions:
    """Return the samples with positive weight."""
    predictions = require_top_label(predictions)
    weights = predictions.tensors().weights
    if weights is None or bool(weights.all()):
        return predictions
    return predictions.rows(weights.nonzero().squeeze(1))


def iter_unit_draws(*rows: Rows, replicates: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks of bootstrap draw counts of the units ``(R, U)``, shared by all sets of rows."""
    # Clusters are drawn whole. There are `replicates` rows in all.
    units = rows[0].num_units
    for uniforms in _iter_uniforms(DrawPurpose.BOOTSTRAP, rows, replicates, seed):
        # Uniform numbers are at most 1 - 2**-53, which times N rounds to less than N: no index is out of range.
        yield count_draws(np.multiply(uniforms, units, out=uniforms).astype(np.int64))


def iter_bootstrap(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of bootstrap replicates of rows, ``replicates`` in all."""
    for times in iter_unit_draws(rows, replicates=replicates, seed=seed):
        yield BootstrapReplicates(rows, times)


def iter_null(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of null replicates, with labels drawn as if the model were calibrated, ``replicates`` in all."""
    # Labels are drawn from its probabilities; with clusters their gaps are turned, see `SignFlippedReplicates`.
    for uniforms in _iter_uniforms(DrawPurpose.NOISE_FLOOR, [rows], replicates, seed):
        if rows.clusters is None:
            yield ConsistencyReplicates(rows, uniforms)
        else:
            yield SignFlippedReplicates(rows, np.where(uniforms < 0.5, -1.0, 1.0))


class GroupedBootstrap(Replicates):
    """Bootstrap replicates that draw only how many rows of each group occur.

    Each part is drawn from a stream of its own when a metric first asks for it: all blocks are asked for the same.
    """

    def __init__(
        self,
        rows: Rows,
        random_groups: np.random.RandomState,
        random_right: np.random.RandomState,
        random_blocks: np.random.RandomState,
        normal_draws: FloatArray,
    ) -> None:
        super().__init__(rows, rows.groups, len(normal_draws))
        self._random = random_groups
        self._random_right = random_right
        self._blocks = random_blocks
        self._normal = normal_draws

    @cached_property
    def counts(self) -> FloatArray:
        """Number of rows drawn from each group ``(R, G)``."""
        shares = self.groups.count / self.rows.num_samples
        counts = self._random.multinomial(self.rows.num_samples, shares, size=self.size)
        return counts.astype(np.float64)

    @property
    def squares(self) -> FloatArray:
        """Sum of squared weights in each group ``(R, G)``; equals ``counts``, as rows have weight 1."""
        return self.counts

    @cached_property
    def right(self) -> FloatArray:
        """Number of correct rows drawn from each group ``(R, G)``."""
        shares = self.groups.right / self.groups.count
        return self._random_right.binomial(self.counts.astype(np.int64), shares).astype(np.float64)

    @cached_property
    def expected_right(self) -> FloatArray:
        """Return the expected number of correct rows ``(R, G)``, given the rows' label probabilities."""
        # Seeded by each replicate's own draw: no other number changes where this one is asked for.
        number = len(self.groups.count)
        noise = np.stack(
            [
                np.random.default_rng(seed).standard_normal(number)
                for seed in self._normal.view(np.uint64).tolist()
            ]
        )
        spread = np.sqrt(self.counts) * self.rows.expected_spread(self.groups)
        return self.counts * self.rows.expected_right(self.groups) + spread * noise

    def mean(self, quantity: Quantity) -> FloatArray:
        """Return the mean over all rows plus normal noise: the limit of its bootstrap distribution ``(R,)``."""
        mean, error = self.rows.mean_and_error(quantity)
        return np.asarray(mean + error * self._normal)

    @cached_property
    def class_table(self) -> ClassTable:
        """Sums over classes and bins, from drawn blocks of rows."""
        sums = gather_class_blocks(self.rows)
        number = len(sums.probs)
        block_counts = self._blocks.multinomial(number, np.full(number, 1 / number), size=self.size)
        times = block_counts.astype(np.float64)
        return self._class_table(
            times @ sums.probs, times @ sums.labels, lambda: times @ sums.counts
        )


class GroupedConsistency(Replicates):
    """Null replicates that draw only how many rows of each group, and of each class, are correct."""

    def __init__(
        self,
        rows: Rows,
        size: int,
        random_right: np.random.RandomState,
        random_labels: np.random.RandomState,
    ) -> None:
        super().__init__(rows, rows.groups, size)
        self._random_right = random_right
        self._random = random_labels

    @property
    def counts(self) -> FloatArray:
        """Number of rows in each group ``(1, G)``."""
        return self.groups.count[None]

    @property
    def squares(self) -> FloatArray:
        """Sum of squared weights in each group ``(1, G)``; equals ``counts``, as rows have weight 1."""
        return self.groups.count[None]

    @cached_property
    def right(self) -> FloatArray:
        """Number of correct rows in each group ``(R, G)``."""
        count = self.groups.count.astype(np.int64)
        confidence = np.clip(self.groups.confidence, 0.0, 1.0)
        size = (self.size, len(count))
        return self._random_right.binomial(count, confidence, size=size).astype(np.float64)

    @cached_property
    def class_table(self) -> ClassTable:
        """Sums over classes and bins, with binomial label counts; normal with fewer than ten classes."""
        sums = gather_class_blocks(self.rows)
        counts, probs = (each.sum(axis=0) for each in (sums.counts, sums.probs))
        if self.rows.num_classes < FEW_CLASSES:
            signs = self._random.standard_normal((self.size, len(sums.probs)))
            labels = probs + signs @ (sums.drawn - sums.probs)
        else:
            share = np.divide(probs, counts, out=np.zeros_like(probs), where=counts > 0).clip(0, 1)
            size = (self.size, len(counts))
            labels = self._random.binomial(counts.astype(np.int64), share, size=size)
        return self._class_table(probs[None], labels.astype(np.float64), lambda: counts[None])


def gather_class_blocks(rows: Rows) -> ClassBlockSums:
    """Gather and return the sums over classes and bins of random blocks of rows."""
    rows.gather([], ClassBlockSums)
    return rows.table(ClassBlockSums)


def iter_bootstrap_by_group(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of bootstrap replicates of groups of rows, ``replicates`` in all."""
    purposes = (DrawPurpose.BOOTSTRAP, DrawPurpose.RIGHT, DrawPurpose.BLOCKS, DrawPurpose.MEANS)
    random, random_right, blocks, normal = (seeded_generator(each, seed) for each in purposes)
    for size in _block_sizes(len(rows.groups.count), [rows], replicates):
        yield GroupedBootstrap(rows, random, random_right, blocks, normal.standard_normal(size))


def iter_null_by_group(rows: Rows, *, replicates: int, seed: int) -> Iterator[Replicates]:
    """Yield blocks of null replicates of groups of rows, ``replicates`` in all."""
    random, labels = (
        seeded_generator(each, seed) for each in (DrawPurpose.NOISE_FLOOR, DrawPurpose.LABELS)
    )
    for size in _block_sizes(len(rows.groups.count), [rows], replicates):
        yield GroupedConsistency(rows, size, random, labels)


def metrics_over_replicates(
    purpose: DrawPurpose,
    rows: Rows,
    entries: Sequence[Metric],
    *,
    replicates: int,
    seed: int,
    by_class: bool = False,
    extra: Mapping[str, Callable[[Replicates], FloatArray]] = NO_STATISTICS,
    advance: Callable[[float], None] | None = None,
) -> dict[str, FloatArray]:
    """Return values of several metrics over one shared set of replicates, by name."""
    means = purpose is DrawPurpose.BOOTSTRAP
    group_entries = [
        entry for entry in entries if rows.has_many_rows and supports_groups(entry, means=means)
    ]
    row_entries = [entry for entry in entries if entry not in group_entries]
    row_draws, group_draws = (
        (iter_bootstrap, iter_bootstrap_by_group) if means else (iter_null, iter_null_by_group)
    )
    passes = [
        (row_draws, row_entries, not rows.has_many_rows),
        (group_draws, group_entries, rows.has_many_rows),
    ]
    has_more = by_class or bool(extra)
    passes = [(draw, some, here) for draw, some, here in passes if some or (has_more and here)]
    parts: dict[str, list[FloatArray]] = {}
    for draw, some, here in passes:
        for block in draw(rows, replicates=replicates, seed=seed):
            for name, values in evaluate_block(some, block).items():
                parts.setdefault(name, []).append(values)
            if by_class and here:
                parts.setdefault(BY_CLASS, []).append(class_errors(block.class_table))
            for name, statistic in extra.items() if here else ():
                parts.setdefault(name, []).append(statistic(block))
            block.release()
            if advance is not None:
                advance(block.size / replicates / len(passes))
    return {name: np.concatenate(values) for name, values in parts.items()}


def bootstrap_and_null_values(
    rows: Rows,
    entries: Sequence[Metric],
    null_entries: Sequence[Metric],
    *,
    extra: Mapping[str, Callable[[Replicates], FloatArray]] = NO_STATISTICS,
    **options: Any,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return bootstrap values of ``entries``, and null values of ``null_entries`` and of ``extra``."""
    import torch

    # The two share nothing that either changes, so a second core takes the one, if PyTorch may use more than one.

    def null_values() -> dict[str, FloatArray]:
        return metrics_over_replicates(
            DrawPurpose.NOISE_FLOOR, rows, null_entries, extra=extra, **options
        )

    if torch.get_num_threads() == 1:
        return metrics_over_replicates(
            DrawPurpose.BOOTSTRAP, rows, entries, **options
        ), null_values()
    with ThreadPoolExecutor(1) as other:
        future = other.submit(null_values)
        return metrics_over_replicates(
            DrawPurpose.BOOTSTRAP, rows, entries, **options
        ), future.result()


def _block_sizes(num_columns: int, rows: Sequence[Rows], replicates: int) -> Iterator[int]:
    """Yield the block sizes, which depend on memory and do not change the random numbers."""
    # Besides arrays of so many columns there are (R, C * num_bins) arrays, and those of neighbors in confidence.
    cells = [each.num_classes * each.num_bins for each in rows]
    neighbors = min(NUM_GROUPS, rows[0].num_samples)
    step = max(1, BLOCK_ELEMENTS // max(num_columns, neighbors, *cells))
    yield from (min(step, replicates - start) for start in range(0, replicates, step))


def _iter_uniforms(
    purpose: DrawPurpose, rows: Sequence[Rows], replicates: int, seed: int
) -> Iterator[FloatArray]:
    random = seeded_generator(purpose, seed)
    units = rows[0].num_units
    yield from (
        random.random_sample((size, units)) for size in _block_sizes(units, rows, replicates)
    )
