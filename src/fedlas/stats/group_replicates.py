"""Replicates of counts per confidence group, for many independent unweighted rows."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fedlas.stats.class_cells import FEW_CLASSES, ClassBlockSums
from fedlas.stats.replicates import Replicates

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.classwise import ClassTable
    from fedlas.metrics.sums import Quantity
    from fedlas.stats.rows import Rows


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
