"""Tests for whether calibration has changed since it was measured, over a stream, at a chosen rate of false alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.stats.gap_sums import GapSums, cells_of, ends_of
from fedlas.stats.intervals import check_level
from fedlas.stats.rows import Floats

__all__ = ["ConfidenceDrift", "GapDrift", "confidence_drift", "spent"]

_FRACTIONS = np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Bets, as shares of the largest bet that cannot lose everything. The test averages their wealth."""
_LEAST = 0.05
"""Smallest loss that a bet is scaled by, so that an interval at the end of its range does not make bets infinite."""


class GapDrift:
    """Sequential test that accuracy differs from confidence by as much as it did when the card was written.

    Null hypothesis: given all samples before it, a sample's expected ``r - c`` (right less confidence) lies in the
    interval that the card's samples leave, over all samples and within each cell of confidence. Against each interval
    one gambler bets above and another below, with fixed shares of what they may stake. Under the null hypothesis the
    average of their wealth is a non-negative supermartingale that starts at 1. By Ville's inequality it ever reaches
    ``2 / false_alarm`` with probability at most ``false_alarm / 2``; the card's intervals spend the other half. So the
    probability of a false alarm is at most ``false_alarm``, at whatever times one looks and however long the stream is.

    Args:
        reference: Sums of the card's samples.
        false_alarm: Probability in (0, 1).
        log_wealth: Logarithm of the wealth to continue from, ``(K + 1, 2, bets)``; None starts afresh.

    State:
        The wealth of each gambler, changed by :meth:`observe`: ``O(cells)``.

    Raises:
        InputError: If ``false_alarm`` is out of range.

    Note:
        Samples must come in an order that does not depend on labels. Samples that share a cause (frames of one video)
        are not independent, and the null hypothesis is about each sample given those before it.

    Source:
        Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024, arXiv
        2010.09686), section 4, for the test; Ville 1939 for the inequality; Maurer and Pontil, "Empirical Bernstein
        bounds and sample variance penalization" (2009), theorem 4, and Clopper and Pearson (1934) for the intervals.
    """

    def __init__(self, reference: GapSums, *, false_alarm: float, log_wealth: Floats | None = None) -> None:
        self.false_alarm = check_level("drift", false_alarm, name="false_alarm")
        self.edges = reference.edges
        self.low, self.high = reference.bounds(level=1 - false_alarm / 2)
        lowest, highest = ends_of(reference.edges)
        # One over the largest loss per unit staked: a bet below it keeps the factor of the wealth above 0.
        up = 1 / np.maximum(highest + self.high, _LEAST)
        down = 1 / np.maximum(1 - lowest - self.low, _LEAST)
        self._bets = np.stack([up, down], axis=1)[:, :, None] * _FRACTIONS  # (K + 1, 2, bets)
        self.log_wealth = np.zeros_like(self._bets) if log_wealth is None else log_wealth.copy()

    @property
    def threshold(self) -> float:
        """Evidence at which the test raises an alarm."""
        return 2 / self.false_alarm

    @property
    def log_evidence(self) -> float:
        """Logarithm of the average wealth of all gamblers."""
        return float(_log_mean(self.log_wealth.reshape(1, -1))[0])

    def log_evidence_by_cell(self) -> Floats:
        """Log evidence of the bets on all samples, then of the bets on each cell: where the evidence comes from."""
        return _log_mean(self.log_wealth.reshape(len(self.log_wealth), -1))

    def observe(self, confidence: Floats, correct: NDArray[np.bool_]) -> int | None:
        """Bet on some samples, in order.

        Args:
            confidence: ``(n,)``.
            correct: ``(n,)``.

        Returns:
            Index of the first sample after which there was an alarm; None if there was none.

        Raises:
            InputError: If a confidence is not in ``[0, 1]``, or the shapes differ. The wealth is unchanged then.
        """
        outside = confidence[~((confidence >= 0) & (confidence <= 1))]  # written so that NaN is outside
        if confidence.shape != correct.shape or len(outside):
            got = f"{confidence.shape} with {correct.shape}, outside {outside[:3].tolist()}"
            fix = "Pass probabilities of the predicted classes."
            raise InputError("drift", "every confidence must be in [0, 1], one for each prediction", got, fix)
        if not len(confidence):
            return None
        gap = correct.astype(np.float64) - confidence
        cell = cells_of(self.edges, confidence)
        # The wealth of each cell's gamblers after every sample: it moves at samples of that cell only.
        paths = np.empty((len(gap), len(self.log_wealth)))
        for k in range(len(self.log_wealth)):
            rows = slice(None) if k == 0 else np.flatnonzero(cell == k - 1)
            steps = np.zeros((len(gap), *self._bets.shape[1:]))
            above, below = gap[rows] - self.high[k], self.low[k] - gap[rows]
            # Wealth leaves float64's range in a long stream, so logarithms are added; log1p keeps those of small bets.
            steps[rows] = np.log1p(self._bets[k] * np.stack([above, below], axis=1)[:, :, None])
            # The whole path is kept and not only its end: an alarm counts even if the wealth falls afterward.
            path = self.log_wealth[k] + steps.cumsum(axis=0)
            paths[:, k] = _log_mean(path.reshape(len(gap), -1))
            self.log_wealth[k] = path[-1]
        # The wealth is averaged, not maximized: an average of supermartingales is one too, a maximum is not.
        reached = np.flatnonzero(_log_mean(paths) >= math.log(self.threshold))
        return int(reached[0]) if len(reached) else None


@dataclass(frozen=True)
class ConfidenceDrift:
    """Test of whether the distribution of confidences has changed.

    Attributes:
        distance: Largest difference of the two cumulative shares over the ends of the bins, in [0, 1].
        p_value: P-value of the test that both samples have one distribution.
    """

    distance: float
    p_value: float


def confidence_drift(reference: Sequence[float] | Floats, live: Sequence[float] | Floats) -> ConfidenceDrift:
    """Two-sample Kolmogorov-Smirnov test over counts in the same bins.

    The distance is taken over the ends of bins only, so it is at most the distance over all confidences, and the
    p-value is too large rather than too small.

    Args:
        reference: Number of samples in each bin ``(bins,)``.
        live: Number of samples of the other kind in each bin ``(bins,)``.

    Example:
        >>> confidence_drift([50, 50], [50, 50]).p_value, confidence_drift([90, 10], [10, 90]).p_value < 1e-6
        (1.0, True)

    Source:
        Smirnov, "Table for estimating the goodness of fit of empirical distributions" (1948).
    """
    first, second = np.asarray(reference, dtype=np.float64), np.asarray(live, dtype=np.float64)
    n, m = first.sum(), second.sum()
    counted = min(n, m) >= 1 and max(n, m) < np.inf and min(first.min(), second.min()) >= 0  # false for NaN
    if first.shape != second.shape or not counted:
        got = f"{first.shape} with {n:g}, {second.shape} with {m:g}"
        raise InputError("confidence_drift", "both must have samples, in the same bins", got, "Count both alike.")
    distance = float(np.abs(first.cumsum() / n - second.cumsum() / m).max())
    p_value = float(require("scipy.stats", extra="stats").kstwobign.sf(distance * math.sqrt(n * m / (n + m))))
    return ConfidenceDrift(distance, p_value)


def spent(false_alarm: float, look: int) -> float:
    """Share of ``false_alarm`` for the ``look``-th look, from 1: ``6 / (pi * look) ** 2``. All shares add up to it."""
    return false_alarm * 6 / (math.pi * look) ** 2


def _log_mean(logs: Floats) -> Floats:
    """``log(mean(exp(logs)))`` over the last axis."""
    top = logs.max(axis=-1)  # taken out, so that exp does not overflow
    return top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
