"""Means and evidence of a watch over time, in a bounded number of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas.stats.gap_sums import read_counts, read_numbers
from fedlas.stats.rows import Floats

ROWS, FIRST_WIDTH = 64, 50
"""Most rows of a history, and samples in a row at first: when all rows are full, each two become one."""


@dataclass(frozen=True)
class History:
    """A row for each so many samples of the stream.

    Attributes:
        count: Samples that have each statistic ``(R, S)``.
        total: Sum of each statistic ``(R, S)``.
        evidence: Evidence of the watch at the end of each row ``(R,)``.
    """

    count: Floats
    total: Floats
    evidence: Floats

    @classmethod
    def empty(cls, statistics: int) -> History:
        """Of no samples."""
        return cls(np.zeros((0, statistics)), np.zeros((0, statistics)), np.zeros(0))

    def after(self, row: int, made: tuple[Floats, NDArray[np.bool_]] | None, evidence: float) -> History:
        """With more samples in its last row, or in a new one behind it; ``made`` has values and who has them."""
        count, total, last = self.count, self.total, self.evidence
        if row == len(last):
            none = np.zeros((1, count.shape[1]))
            count, total, last = np.concatenate([count, none]), np.concatenate([total, none]), np.append(last, 0.0)
        count, total, last = count.copy(), total.copy(), last.copy()
        if made is not None:
            values, has = made
            count[-1] += has.sum(axis=0)
            total[-1] += np.where(has, values, 0.0).sum(axis=0)
        last[-1] = evidence
        return History(count, total, last)

    def merged(self) -> History:
        """With each two rows as one; their number is even."""
        count, total = (each.reshape(-1, 2, each.shape[1]).sum(axis=1) for each in (self.count, self.total))
        return History(count, total, self.evidence[1::2])

    @property
    def means(self) -> Floats:
        """Mean of each statistic over all rows ``(S,)``; NaN where there is no sample."""
        with np.errstate(invalid="ignore"):
            return self.total.sum(axis=0) / self.count.sum(axis=0)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"count": self.count.tolist(), "total": self.total.tolist(), "evidence": self.evidence.tolist()}

    @classmethod
    def read(cls, content: Mapping[str, Any], least: Floats, most: Floats) -> History:
        """What :meth:`plain` returned, of statistics in ``[least, most]``.

        Raises:
            KeyError: If a part is missing.
            ValueError: If no samples have these sums.
        """
        count, total, evidence = (read_numbers(content, name) for name in ("count", "total", "evidence"))
        if count.shape != (len(evidence), len(least)) or total.shape != count.shape or (evidence < 0).any():
            raise ValueError(f"a history of {count.shape}, {total.shape} and {evidence.shape}")
        read_counts({"count": count.ravel().tolist()}, "count")
        slack = 1e-9 * np.maximum(count, 1)  # sums of floats are a little off
        if ((total < least * count - slack) | (total > most * count + slack)).any():
            raise ValueError("a history with sums that no samples have")
        return cls(count, total, evidence)
