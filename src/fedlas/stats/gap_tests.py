"""Two statistics of the gaps between confidence and outcome: their mean, and Spiegelhalter's z without its scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Rows


def _statistics(gaps: Floats, confidence: Floats) -> dict[str, Floats]:
    """Return both for gaps ``(R, G)`` at the confidences ``(G,)``; what every replicate shares is left out."""
    return {
        "confidence": np.abs(gaps.sum(axis=1)),
        "spiegelhalter": np.abs(gaps @ (1.0 - 2.0 * confidence)),
    }


def _statistic(name: str) -> Callable[[Replicates], Floats]:
    return lambda block: _statistics(block.gaps, block.groups.confidence)[name]


GAPS: Mapping[str, Callable[[Replicates], Floats]] = {
    name: _statistic(name) for name in ("confidence", "spiegelhalter")
}
"""The statistics of a block of replicates, by name."""


def observed_gaps(rows: Rows) -> dict[str, float]:
    """Return the same statistics of the rows themselves, by name."""
    groups = rows.groups if rows.are_many else rows.singles
    gaps = groups.count * groups.confidence - groups.right
    if rows.are_weighted:
        gaps = gaps * rows.weights[rows.order]
    return {
        name: float(value[0]) for name, value in _statistics(gaps[None], groups.confidence).items()
    }
