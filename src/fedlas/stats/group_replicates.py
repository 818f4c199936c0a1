"""Replicates of groups of neighbors in confidence, where there are many rows that are independent and count once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fedlas.metrics.classwise import ClassTable
from fedlas.metrics.sums import Quantity
from fedlas.stats.class_cells import FEW_CLASSES, ClassBlocks
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Rows


class GroupsResampled(Replicates):
    """Rows drawn with replacement, of which one knows the group alone.

    Each part is drawn from a stream of its own when a metric first asks for it: all blocks are asked for the same.
    """

    def __init__(
        self,
        rows: Rows,
        groups: np.random.RandomState,
        right: np.random.RandomState,
        blocks: np.random.RandomState,
        normal: Floats,
    ) -> None:
        super().__init__(rows, rows.groups, len(normal))
        self._random = groups
        self._random_right = right
        self._blocks = blocks
        self._normal = normal

    @cached_property
    def counts(self) -> Floats:
        """How many rows of each group were drawn ``(R, G)``."""
        shares = self.groups.count / self.rows.num_samples
        counts = self._random.multinomial(self.rows.num_samples, shares, size=self.size)
        return counts.astype(np.float64)

    @property
    def squares(self) -> Floats:
        """The same: rows count once each."""
        return self.counts

    @cached_property
    def right(self) -> Floats:
        """How many of them are right ``(R, G)``."""
        shares = self.groups.right / self.groups.count
        return self._random_right.binomial(self.counts.astype(np.int64), shares).astype(np.float64)

    @cached_property
    def expected_right(self) -> Floats:
        """Return how many are expected right by the rows' own label probabilities."""
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

    def mean(self, quantity: Quantity) -> Floats:
        """Return the mean over all rows plus its standard error times normal numbers: the bootstrap's limit."""
        mean, error = self.rows.mean_and_error(quantity)
        return np.asarray(mean + error * self._normal)

    @cached_property
    def class_table(self) -> ClassTable:
        """Sums over the blocks that were drawn."""
        sums = class_blocks(self.rows)
        number = len(sums.probs)
        block_counts = self._blocks.multinomial(number, np.full(number, 1 / number), size=self.size)
        times = block_counts.astype(np.float64)
        return self._class_table(
            times @ sums.probs, times @ sums.labels, lambda: times @ sums.counts
        )


class GroupsRedrawn(Replicates):
    """Labels drawn from the probabilities, of which one knows how many of each group, and of each class, agree."""

    def __init__(
        self,
        rows: Rows,
        size: int,
        right: np.random.RandomState,
        labels: np.random.RandomState,
    ) -> None:
        super().__init__(rows, rows.groups, size)
        self._random_right = right
        self._random = labels

    @property
    def counts(self) -> Floats:
        """All rows of each group ``(1, G)``."""
        return self.groups.count[None]

    @property
    def squares(self) -> Floats:
        """The same: rows count once each."""
        return self.groups.count[None]

    @cached_property
    def right(self) -> Floats:
        """How many rows of each group are right ``(R, G)``; drawn when first asked for."""
        count = self.groups.count.astype(np.int64)
        confidence = np.clip(self.groups.confidence, 0.0, 1.0)
        size = (self.size, len(count))
        return self._random_right.binomial(count, confidence, size=size).astype(np.float64)

    @cached_property
    def class_table(self) -> ClassTable:
        """Labels of ten classes and more are drawn cell by cell; those of fewer from their normal limit."""
        sums = class_blocks(self.rows)
        counts, probs = (each.sum(axis=0) for each in (sums.counts, sums.probs))
        if self.rows.num_classes < FEW_CLASSES:
            signs = self._random.standard_normal((self.size, len(sums.probs)))
            labels = probs + signs @ (sums.drawn - sums.probs)
        else:
            share = np.divide(probs, counts, out=np.zeros_like(probs), where=counts > 0).clip(0, 1)
            size = (self.size, len(counts))
            labels = self._random.binomial(counts.astype(np.int64), share, size=size)
        return self._class_table(probs[None], labels.astype(np.float64), lambda: counts[None])


def class_blocks(rows: Rows) -> ClassBlocks:
    """Return the sums of blocks of rows, filled."""
    rows.gather([], ClassBlocks)
    return rows.table(ClassBlocks)
