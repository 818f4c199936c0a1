"""Samples in order of confidence, equal ones together: what metrics are made of that compare ranks, not bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_MIDDLE = 1e-6
"""By how much, in samples, a cut may be off the middle of a run to be in it."""


class Runs(Protocol):
    """Groups of samples of equal confidence, by ascending confidence: arrays ``(..., G)`` float64.

    A leading axis counts replicates of the samples, in which a group can be empty. With weights, which average 1 over
    the samples, numbers of samples are sums of weights.
    """

    @property
    def num_samples(self) -> int:
        """``N``, of all groups together."""

    @property
    def count(self) -> Floats:
        """Samples of each group."""

    @property
    def wrong(self) -> Floats:
        """Wrong ones among them."""

    @property
    def gaps(self) -> Floats:
        """Sum of ``confidence - correct``."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """:class:`Runs` of samples, or of cells of a grid that hold samples of nearly equal confidence; all ``(G,)``.

    Attributes:
        right: Samples of each run that are correct.
        wrong: Samples that are not; no run is empty.
        right_confidence: Sum of the confidences of those that are correct.
        wrong_confidence: Sum of the confidences of the others.
    """

    right: Floats
    wrong: Floats
    right_confidence: Floats
    wrong_confidence: Floats

    @property
    def count(self) -> Floats:
        """Samples of each run."""
        return self.right + self.wrong

    @property
    def num_samples(self) -> int:
        """``N``, a whole number also where weights that average 1 add up to it."""
        return round(float(self.count.sum()))

    @property
    def gaps(self) -> Floats:
        """Sum of ``confidence - correct`` of each run."""
        return self.right_confidence + self.wrong_confidence - self.right

    def equal_mass_error(self, num_bins: int) -> float:
        """How far the sum of ``|equal_mass_gaps|`` can be from that of the single samples that the runs are made of.

        Each cut is off by a part of the run it falls into, whose gap then counts in one bin instead of the next.
        """
        run = np.searchsorted(np.cumsum(self.count), equal_mass_ranks(self.num_samples, num_bins), side="right")
        return 2 * float(np.maximum(self.wrong_confidence, self.right - self.right_confidence)[run].sum())


def ranking(confidence: Tensor, correct: Tensor, weights: Tensor | None = None) -> Ranking:
    """The ranking of single samples; runs are those of equal confidence.

    Args:
        confidence: ``(N,)`` on the CPU.
        correct: ``(N,)`` bool.
        weights: ``(N,)``, averaging 1 over those above 0; None if every sample counts once.
    """
    if weights is not None:
        return _weighted_ranking(*(each[weights > 0].numpy() for each in (confidence, correct, weights)))
    values, outcomes = confidence.numpy(), correct.numpy()
    # The sort need not be stable: the order among equal confidences does not reach the sums.
    order = np.argsort(values)
    values, outcomes = values[order], outcomes[order]
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    total = np.diff(np.append(starts, len(values))).astype(np.float64)
    right = np.add.reduceat(outcomes.astype(np.float64), starts)
    # Count times confidence rounds once, where adding the equal confidences would round each time.
    each = values[starts].astype(np.float64)
    return Ranking(right, total - right, right * each, (total - right) * each)


def _weighted_ranking(values: NDArray[Any], outcomes: NDArray[np.bool_], weights: Floats) -> Ranking:
    order = np.argsort(values, kind="stable")
    values, outcomes, weights = values[order], outcomes[order], weights[order]
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    # Wrong ones are summed and not subtracted: what is left of equal sums would not be 0.
    right, wrong = (np.add.reduceat(weights * which, starts) for which in (outcomes, ~outcomes))
    each = values[starts].astype(np.float64)
    return Ranking(right, wrong, right * each, wrong * each)


def equal_mass_ranks(num_samples: int, num_bins: int) -> Integers:
    """Where to cut ``num_samples`` into ``num_bins`` counts that differ by at most one, the larger ones first."""
    inner = np.arange(1, num_bins)
    cut = inner * (num_samples // num_bins) + np.minimum(inner, num_samples % num_bins)
    return cut[(cut > 0) & (cut < num_samples)]


def equal_mass_gaps(runs: Runs, num_bins: int) -> Floats:
    """Sum of ``confidence - correct`` in bins of as equal counts as whole runs allow ``(..., B)``.

    A cut that falls within a run moves to its nearer end, the upper one if both are as near.
    """
    return equal_mass_sums(runs, num_bins, runs.gaps)[0]


def equal_mass_sums(runs: Runs, num_bins: int, *values: Floats) -> list[Floats]:
    """Sums in these bins of ``values (..., G)`` of the runs, ``(..., B)`` each."""
    upto = np.cumsum(runs.count, axis=-1)
    cuts = runs_below_cuts(upto.reshape(-1, upto.shape[-1]), runs.num_samples, num_bins)
    return [_sums_between(cuts, each) for each in values]


def equal_mass_gaps_of_rows(weights: Floats, gaps: Floats, starts: Integers, num_samples: int, num_bins: int) -> Floats:
    """:func:`equal_mass_gaps` of rows whose runs begin at ``starts (G,)``, without the sums of every run.

    Args:
        weights: How often each row counts ``(R or 1, N)``, by ascending confidence.
        gaps: ``weight * (confidence - correct)`` ``(R, N)``.
        starts: First row of each run.
        num_samples: Sum of the weights.
        num_bins: Number of bins.
    """
    ends = np.append(starts[1:], weights.shape[1])
    upto = np.cumsum(weights, axis=1)
    cuts = runs_below_cuts(upto if len(ends) == upto.shape[1] else upto.take(ends - 1, axis=1), num_samples, num_bins)
    return _sums_between(np.append(starts, weights.shape[1])[cuts], gaps)


def runs_below_cuts(upto: Floats, num_samples: int, num_bins: int) -> Integers:
    """How many runs are below each cut ``(R, cuts)``, of samples in the runs up to each one ``(R, G)``.

    Samples may have weights that average 1.
    """
    ranks = equal_mass_ranks(num_samples, num_bins)
    # One search for all replicates: each is moved up by N + 1 more than the one before, which keeps the order.
    offset = np.arange(len(upto))[:, None] * (num_samples + 1.0)
    run = np.searchsorted((upto + offset).ravel(), (ranks + offset).ravel(), side="right").reshape(len(upto), -1)
    run -= np.arange(len(upto))[:, None] * upto.shape[1]
    start, end = _below(upto, run), np.take_along_axis(upto, run, axis=1)
    # Whole numbers differ by 1 at least; sums of weights round, and a cut in the middle of a run must not depend on it.
    return run + (ranks - start >= end - ranks - _MIDDLE)


def _sums_between(cuts: Integers, values: Floats) -> Floats:
    """Sums ``(..., K + 1)`` of ``values (..., G)`` below, between and from the cuts ``(R or 1, K)`` on."""
    rows = values.reshape(-1, values.shape[-1])
    cuts = np.broadcast_to(cuts, (len(rows), cuts.shape[-1]))
    starts = np.insert(cuts, 0, 0, axis=1)
    filled = starts < np.append(cuts, np.full((len(rows), 1), rows.shape[1]), axis=1)
    # One pass over all rows: the last sum of each ends where the next row begins, with a bin that is filled.
    places = (starts + np.arange(len(rows))[:, None] * rows.shape[1])[filled]
    sums = np.zeros(starts.shape)
    sums[filled] = np.add.reduceat(rows.ravel(), places)
    return sums.reshape(*values.shape[:-1], -1)


def _below(cumulated: Floats, runs: Integers) -> Floats:
    """What the first ``runs (..., K)`` add up to."""
    return np.where(runs > 0, np.take_along_axis(cumulated, np.maximum(runs - 1, 0), axis=-1), 0.0)
