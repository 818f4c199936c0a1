"""Joint p-value of several tests by Westfall and Young's min-p, and two tests of calibration gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, as_float_array, describe

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.stats.replicates import Replicates
    from fedlas.stats.rows import Rows

_DIGITS = 9
"""Decimals in which statistics count as equal: what differs less was rounded in another order."""


def joint_p_value(observed: FloatArray, replicates: FloatArray) -> float:
    """Return one p-value of several tests together, from replicates under the null hypothesis.

    Each statistic of each replicate gets a p-value from its rank among all replicates and the observed one. The
    smallest p-value of a row is the statistic of the joint test, and its rank gives the joint p-value. So the tests
    may depend on each other in any way, and strongly dependent tests cost little: of ``K`` copies of one test the
    joint p-value is that of the test, where Bonferroni's correction multiplies it by ``K``.

    Args:
        observed: Statistics of ``K`` tests ``(K,)``; the larger, the more they speak against the hypothesis.
        replicates: The same of ``R`` replicates under the hypothesis ``(R, K)``.

    Returns:
        In ``[1 / (1 + R), 1]``. If the hypothesis holds, it is at most ``a`` with a probability of at most ``a``.

    Raises:
        InputError: If the shapes do not fit.

    Note:
        Rows with the same smallest p-value are ordered by their second smallest, so that few replicates and many tests
        leave few ties.

    Example:
        >>> replicates = np.random.default_rng(0).standard_normal((999, 3))
        >>> round(joint_p_value(np.array([0.0, 0.0, 4.0]), replicates), 3)
        0.001

    Source:
        Westfall and Young, "Resampling-Based Multiple Testing" (1993), section 2.5.
    """
    statistics = as_float_array(observed)
    null_statistics = as_float_array(replicates)
    if (
        null_statistics.ndim != 2
        or statistics.shape != null_statistics.shape[1:]
        or not null_statistics.size
    ):
        raise InputError(
            "observed must have shape (K,) and replicates (R, K)",
            f"{describe(observed)} and {describe(replicates)}",
            "Pass the same tests in the same order.",
        )
    rows = np.round(np.vstack([statistics, null_statistics]), _DIGITS)
    ranks = np.stack([_descending_rank(column) for column in rows.T], axis=1)
    ranks.sort(axis=1)
    least = ranks[:, 0] * (len(rows) + 1) + ranks[:, min(1, ranks.shape[1] - 1)]
    return float((least <= least[0]).mean())


class NullReplicates:
    """Observed statistics of several tests, and their replicates under calibration, by name."""

    def __init__(self) -> None:
        self.observed: dict[str, float] = {}
        self.replicates: dict[str, FloatArray] = {}

    def add(
        self, name: str, observed: float, replicates: FloatArray, *, two_sided: bool = False
    ) -> None:
        """Add a test; a two-sided statistic becomes its distance from the mean under calibration."""
        # A statistic that is not finite, or that no replicate moves, tests nothing and is left out.
        finite = np.isfinite(observed) and bool(np.isfinite(replicates).all())
        if not finite or float(np.ptp(replicates)) == 0.0:
            return
        center = float(replicates.mean())
        self.observed[name] = abs(observed - center) if two_sided else observed
        self.replicates[name] = np.abs(replicates - center) if two_sided else replicates

    def p_values(self) -> dict[str, float]:
        """Return the p-value of each single test, by name."""
        return {
            name: float(
                _descending_rank(np.round(np.append(self.replicates[name], value), _DIGITS))[-1]
            )
            / (1 + len(self.replicates[name]))
            for name, value in self.observed.items()
        }

    @property
    def least_p(self) -> float | None:
        """Smallest p-value that the replicates can give, or None without a test."""
        return 1.0 / (1 + len(next(iter(self.replicates.values())))) if self.replicates else None

    def joint_p(self) -> float | None:
        """Return the joint p-value of all tests, or None without a test."""
        if not self.observed:
            return None
        observed = np.array(list(self.observed.values()))
        return joint_p_value(observed, np.stack(list(self.replicates.values()), axis=1))


def _descending_rank(values: FloatArray) -> FloatArray:
    """Return how many of ``values (R,)`` are at least as large as each one, itself included."""
    ordered = np.sort(values)
    return len(values) - np.searchsorted(ordered, values, side="left").astype(np.float64)


def _gap_weights(confidence: FloatArray) -> dict[str, FloatArray]:
    """Return the weight of each gap ``(G,)`` in the mean confidence test and in Spiegelhalter's z."""
    return {"confidence": np.ones(len(confidence)), "spiegelhalter": 1.0 - 2.0 * confidence}


def _gap_statistic(name: str) -> Callable[[Replicates], FloatArray]:
    return lambda block: np.abs(block.weighted_gap_sum(_gap_weights(block.groups.confidence)[name]))


GAP_STATISTICS: Mapping[str, Callable[[Replicates], FloatArray]] = {
    name: _gap_statistic(name) for name in ("confidence", "spiegelhalter")
}
"""The statistics of a block of replicates, by name."""


def observed_gap_statistics(rows: Rows) -> dict[str, float]:
    """Return the observed statistics of the gap tests, by name."""
    groups = rows.groups if rows.has_many_rows else rows.singles
    gaps = groups.count * groups.confidence - groups.right
    if rows.is_weighted:
        gaps = gaps * rows.weights[rows.order]
    return {
        name: abs(float(gaps @ terms)) for name, terms in _gap_weights(groups.confidence).items()
    }
