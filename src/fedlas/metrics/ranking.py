"""Samples sorted by confidence, in runs of ties: the input of rank-based metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedlas.metrics.sums import ROUNDING

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray

_MIDDLE = 1e-6
"""By how much, in samples, a cut may be off the middle of a run to be in it."""


class Runs(Protocol):
    """Runs of samples with equal confidence, in ascending order: arrays ``(..., G)`` float64."""

    # A leading axis counts replicates of the samples, in which a group can be empty. With weights, which average 1 over
    # the samples, numbers of samples are sums of weights.

    @property
    def num_bins(self) -> int:
        """Number of bins ``B``, for formulas with bins."""

    @property
    def num_samples(self) -> int:
        """Number of samples ``N`` in all runs."""

    @property
    def count(self) -> FloatArray:
        """Number of samples in each run."""

    @property
    def wrong(self) -> FloatArray:
        """Number of wrong samples in each run."""

    @property
    def gaps(self) -> FloatArray:
        """Sum of ``confidence - correct`` in each run."""


@dataclass(frozen=True, eq=False)
class CellRuns:
    """:class:`Runs` made of grid cells, whose samples have nearly equal confidence; arrays ``(G,)``."""

    # Samples of each run that are correct.
    right: FloatArray
    # Samples that are not; no run is empty.
    wrong: FloatArray
    # Sum of the confidences of those that are correct.
    right_confidence: FloatArray
    # Sum of the confidences of the others.
    wrong_confidence: FloatArray
    # `B` of formulas with bins.
    num_bins: int = 15

    @property
    def count(self) -> FloatArray:
        """Number of samples in each run."""
        return self.right + self.wrong

    @property
    def num_samples(self) -> int:
        """Number of samples ``N``, an integer also with weights that average 1."""
        return round(float(self.count.sum()))

    @property
    def gaps(self) -> FloatArray:
        """Sum of ``confidence - correct`` in each run."""
        return self.right_confidence + self.wrong_confidence - self.right

    def equal_mass_error_bound(self) -> float:
        """Return an upper bound of the error of :func:`equal_mass_error_bound` from the grid."""
        # Each cut is off by a part of the run it falls into, whose gap then counts in one bin instead of the next.
        ranks = equal_mass_ranks(self.num_samples, self.num_bins)
        run = np.searchsorted(np.cumsum(self.count), ranks, side="right")
        gaps = np.maximum(self.wrong_confidence, self.right - self.right_confidence)
        return 2 * float(gaps[run].sum()) / self.num_samples


class SampleRuns:
    """:class:`Runs` of sorted samples, summed on first use; for ties see :func:`tie_starts`."""

    def __init__(
        self,
        confidence: NDArray[Any],
        correct: NDArray[np.bool_],
        weights: FloatArray | None,
        num_bins: int,
    ) -> None:
        self.num_bins = num_bins
        self._values, self._correct, self._weights = sort_samples(confidence, correct, weights)
        self._starts = tie_starts(self._values)
        self.num_samples = len(self._values)

    @cached_property
    def count(self) -> FloatArray:
        """Number of samples in each run ``(G,)``."""
        if self._weights is None:
            return np.diff(self._starts, append=self.num_samples).astype(np.float64)
        return self._sums(1.0)

    @cached_property
    def wrong(self) -> FloatArray:
        """Number of wrong samples in each run ``(G,)``."""
        return self._sums(~self._correct)

    @cached_property
    def gaps(self) -> FloatArray:
        """Sum of ``confidence - correct`` in each run ``(G,)``."""
        return self._sums(self._values.astype(np.float64) - self._correct)

    def _sums(self, values: Any) -> FloatArray:
        weighted = values if self._weights is None else values * self._weights
        return np.add.reduceat(weighted, self._starts, dtype=np.float64)


def sort_samples(
    values: NDArray[Any], outcomes: NDArray[np.bool_], weights: FloatArray | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_], FloatArray | None]:
    """Sort samples by confidence, then wrong before right; drop samples of weight 0."""
    if weights is not None:
        present = np.flatnonzero(weights)
        order = present[np.lexsort((outcomes[present], values[present]))]
        return values[order], outcomes[order], weights[order]
    # The bits of positive floats ascend with them, and the sign's place has room for the outcome: sorting whole numbers
    # takes a third of the time that an index takes.
    whole = np.uint32 if values.dtype == np.float32 else np.uint64
    keys: NDArray[Any] = np.left_shift(values.view(whole), whole(1)) | outcomes.astype(whole)
    keys.sort()
    return (keys >> whole(1)).view(values.dtype), (keys & whole(1)).astype(bool), None


def tie_starts(ordered: NDArray[Any]) -> IntArray:
    """Return the start indices of runs that are equal up to :data:`ROUNDING`, in ascending ``ordered (N,)``."""
    # A run is a chain of neighbors closer than the tolerance, if its ends are as close too. Where values crowd, chains
    # are longer; there only equal values are a run.
    tolerance = ROUNDING * float(np.finfo(ordered.dtype).eps)
    steps = np.diff(ordered)
    apart = np.concatenate(([True], steps > tolerance))
    starts = np.flatnonzero(apart)
    wide = ordered[np.append(starts[1:], len(ordered)) - 1] - ordered[starts] > tolerance
    if wide.any():
        apart[1:] |= (steps > 0) & np.repeat(wide, np.diff(starts, append=len(ordered)))[1:]
        return np.flatnonzero(apart)
    return starts


def equal_mass_indices(
    ordered: NDArray[Any], weights: FloatArray | None, num_bins: int
) -> IntArray:
    """Return the indices at which to cut sorted samples into equal-mass bins without splitting ties ``(cuts,)``."""
    # A cut that falls within a run of `tie_starts` moves to its nearer end, the upper one if both are as near.
    ends = np.append(tie_starts(ordered)[1:], len(ordered))
    upto = ends.astype(np.float64) if weights is None else np.cumsum(weights)[ends - 1]
    runs = count_runs_below(upto[None], len(ordered), num_bins)[0]
    return np.where(runs > 0, ends[runs - 1], 0)


def equal_mass_ranks(num_samples: int, num_bins: int) -> IntArray:
    """Return the ranks that cut ``num_samples`` into bins whose counts differ by at most one, larger first."""
    inner = np.arange(1, num_bins)
    cut = inner * (num_samples // num_bins) + np.minimum(inner, num_samples % num_bins)
    return cut[(cut > 0) & (cut < num_samples)]


def equal_mass_error(runs: Runs) -> FloatArray:
    """Return ``sum_b |gap_b| / N`` over equal-mass bins of whole runs ``(...,)``."""
    # A cut that falls within a run moves to its nearer end, the upper one if both are as near.
    gaps = sum_between_cuts(equal_mass_cuts(runs), runs.gaps)
    return np.abs(gaps).sum(axis=-1) / runs.num_samples


def equal_mass_cuts(runs: Runs) -> IntArray:
    """Return the number of runs below each cut between equal-mass bins ``(R or 1, cuts)``."""
    upto = np.cumsum(runs.count, axis=-1)
    return count_runs_below(upto.reshape(-1, upto.shape[-1]), runs.num_samples, runs.num_bins)


def count_runs_below(cumulative_counts: FloatArray, num_samples: int, num_bins: int) -> IntArray:
    """Return the number of runs below each cut ``(R, cuts)``, from cumulative counts of the runs ``(R, G)``."""
    # Samples may have weights that average 1.
    ranks = equal_mass_ranks(num_samples, num_bins)
    # One search for all replicates: each is moved up by N + 1 more than the one before, which keeps the order.
    offset = np.arange(len(cumulative_counts))[:, None] * (num_samples + 1.0)
    run = np.searchsorted(
        (cumulative_counts + offset).ravel(), (ranks + offset).ravel(), side="right"
    ).reshape(len(cumulative_counts), -1)
    run -= np.arange(len(cumulative_counts))[:, None] * cumulative_counts.shape[1]
    start = _sum_of_first(cumulative_counts, run)
    end = np.take_along_axis(cumulative_counts, run, axis=1)
    # Whole numbers differ by 1 at least; sums of weights round, and a cut in the middle of a run must not depend on it.
    return run + (ranks - start >= end - ranks - _MIDDLE)


def sum_between_cuts(cuts: IntArray, values: FloatArray) -> FloatArray:
    """Return the sums ``(..., K + 1)`` of ``values (..., G)`` between consecutive cuts ``(R or 1, K)``."""
    rows = values.reshape(-1, values.shape[-1])
    cuts = np.broadcast_to(cuts, (len(rows), cuts.shape[-1]))
    starts = np.insert(cuts, 0, 0, axis=1)
    filled = starts < np.append(cuts, np.full((len(rows), 1), rows.shape[1]), axis=1)
    # One pass over all rows: the last sum of each ends where the next row begins, with a bin that is filled.
    places = (starts + np.arange(len(rows))[:, None] * rows.shape[1])[filled]
    sums = np.zeros(starts.shape)
    sums[filled] = np.add.reduceat(rows.ravel(), places)
    return sums.reshape(*values.shape[:-1], -1)


def _sum_of_first(cumulative: FloatArray, counts: IntArray) -> FloatArray:
    """Return the sum of the first ``runs (..., K)`` values, from cumulative sums."""
    return np.where(
        counts > 0, np.take_along_axis(cumulative, np.maximum(counts - 1, 0), axis=-1), 0.0
    )
