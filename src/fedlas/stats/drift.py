"""Sequential test for drift of the means of bounded statistics, with a bounded false alarm rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

SHARES = np.array([0.01, 0.03, 0.1, 0.3, 0.7])
"""Bets, as shares of the largest bet that cannot lose everything. The test averages their wealth."""
_MIN_WIDTH = 0.05
"""Smallest loss that a bet is scaled by, so that an interval at the end of its range does not make bets infinite."""
_START_STAKE = 0.5
"""Share of the money that is staked before the first sample. The rest is staked a little at each sample."""
_PACE = 100.0
"""Samples until half of the rest is staked; a later change waits for money that is staked when it begins."""
_MAX_WEALTH = 1e200
"""The wealth of a gambler is cut here, so that it stays a float64. A cut supermartingale is still one."""
_ROWS = 512
_FACTORS = 2**22
"""Samples, and factors of wealth, that are made at once at most."""


class MeanDrift:
    """Sequential test that the means of bounded statistics lie in given intervals.

    Null hypothesis: given all samples before it, the expected value of each statistic of a sample lies in its interval
    ``[low, high]``, wherever the sample has that statistic. Against each interval one gambler bets above and another
    below, each with several fixed shares of what may be staked. Half of the money is staked at the start. The rest is
    staked little by little, because bets that were open while nothing happened have lost: without fresh money a change
    after 10,000 good samples would be found ten times as late as one at the start. Under the null hypothesis the money
    of all gamblers together, staked or not, is a non-negative supermartingale that starts at 1. By Ville's inequality
    it ever reaches ``1 / false_alarm`` with probability at most ``false_alarm``, at whatever times one looks and
    however long the stream is.

    Args:
        low: Lower ends of the intervals ``(S,)``.
        high: Upper ends ``(S,)``.
        range_low: Smallest value that each statistic can have ``(S,)``.
        range_high: Largest ``(S,)``.
        false_alarm: Probability in (0, 1).
        parts: What each statistic is of, a number from 0 ``(S,)``; None: all are of one thing.

    State:
        ``samples``: how many were observed; ``wealth (S, 2, bets)``: the wealth that each gambler has at stake. Both
        are changed by :meth:`observe`, and may be set to resume.
        ``first_alarm_by_part``: for each part whose own wealth reached the alarm threshold, the index of that sample in
        the last call of :meth:`observe`. A part without a change reaches the threshold with probability at most
        ``false_alarm``, however many others have changed.

    Raises:
        InputError: If ``false_alarm`` is out of range, or an interval is empty or leaves its range.

    Note:
        Samples that share a cause (frames of one video) are not independent: the null hypothesis is about each sample
        given those before it.

    Source:
        Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024, arXiv
        2010.09686), section 4, for the bets; Ville 1939 for the inequality; Shin, Ramdas and Rinaldo, "E-detectors: a
        nonparametric framework for sequential change detection" (2022, arXiv 2203.03532), section 2, for bets that
        begin at every sample. There they bound the time between false alarms; here the weights of the beginnings add
        up to 1, which bounds the probability of one.

    Example:
        >>> one = np.ones(1)
        >>> test = MeanDrift(0.9 * one, 0.95 * one, 0 * one, one, false_alarm=0.01)
        >>> test.observe(np.zeros((20, 1)), np.ones((20, 1), dtype=bool))  # twenty mistakes of a model with 5 to 10 %
        3
    """

    def __init__(
        self,
        low: FloatArray,
        high: FloatArray,
        range_low: FloatArray,
        range_high: FloatArray,
        *,
        false_alarm: float,
        parts: NDArray[np.int64] | None = None,
    ) -> None:
        self.false_alarm = check_confidence_level(false_alarm, name="false_alarm")
        if not (low.shape == high.shape == range_low.shape == range_high.shape and len(low)):
            raise InputError(
                "low, high and both ends of the range must have shape (S,)",
                f"{low.shape}, {high.shape}, {range_low.shape}, {range_high.shape}",
                "Pass one of each per statistic.",
            )
        if not ((range_low <= low) & (low <= high) & (high <= range_high)).all():  # false for NaN
            raise InputError(
                "each interval [low, high] must lie within the range of its statistic",
                f"{low.tolist()} to {high.tolist()}",
                "Check the order of the ends.",
            )
        self.low = low
        self.high = high
        self.least = range_low
        self.most = range_high
        # One over the largest loss per unit staked: a bet below it keeps the factor of the wealth above 0.
        up = 1 / np.maximum(high - range_low, _MIN_WIDTH)
        down = 1 / np.maximum(range_high - low, _MIN_WIDTH)
        self._bets = np.stack([up, down], axis=1)[:, :, None] * SHARES
        self.parts = np.zeros(len(low), dtype=np.int64) if parts is None else parts
        self.first_alarm_by_part: dict[int, int] = {}
        self.samples = 0
        self.wealth = np.full(wealth_shape(len(low)), _START_STAKE)

    @property
    def threshold(self) -> float:
        """Evidence at which the test raises an alarm."""
        return 1 / self.false_alarm

    @property
    def evidence(self) -> float:
        """Wealth relative to the start: mean wealth of the bets plus the unstaked share."""
        return float(self.wealth.mean() + _unstaked_share(self.samples))

    @property
    def evidence_by_statistic(self) -> FloatArray:
        """Mean wealth of each statistic's bets ``(S,)``."""
        return self.wealth.mean(axis=(1, 2))

    @property
    def evidence_by_part(self) -> FloatArray:
        """Wealth of each part's bets relative to the wealth at the start ``(P,)``; their sum is the staked evidence."""
        return self._wealth_by_part(self.wealth.reshape(-1))

    def observe(self, values: FloatArray, present: NDArray[np.bool_]) -> int | None:
        """Bet on samples in order, and return the index of the first alarm, or None if there is none."""
        self._check_values(values, present)
        wealth = self.wealth.reshape(-1).copy()
        alarm = None
        self.first_alarm_by_part = {}
        unstaked = _unstaked_share(self.samples + np.arange(len(values) + 1))
        stakes = -np.diff(unstaked)
        # Factors are made for some samples at once; the wealth itself moves sample by sample.
        with np.errstate(over="ignore"):  # cut in the next line
            rows = max(1, min(_ROWS, _FACTORS // len(wealth)))
            for start in range(0, len(values), rows):
                part = slice(start, start + rows)
                factors = self._bet_factors(values[part], present[part]).reshape(-1, len(wealth))
                for index, (stake, factor) in enumerate(
                    zip(stakes[part], factors, strict=True), start
                ):
                    # What is staked now may win with this sample already: the stake was known before it.
                    wealth = np.minimum((wealth + stake) * factor, _MAX_WEALTH)
                    # Every sample counts and not only the last: an alarm stays even if the wealth falls afterward.
                    if wealth.sum() / len(wealth) + unstaked[index + 1] >= self.threshold:
                        alarm = index if alarm is None else alarm
                        self._record_part_alarms(wealth, index)
        self.wealth, self.samples = wealth.reshape(self.wealth.shape), self.samples + len(values)
        return alarm

    def _record_part_alarms(self, wealth: FloatArray, index: int) -> None:
        """Record the parts whose own wealth exceeds the alarm threshold at this sample."""
        for part in np.flatnonzero(self._wealth_by_part(wealth) >= self.threshold).tolist():
            self.first_alarm_by_part.setdefault(part, index)

    def _wealth_by_part(self, wealth: FloatArray) -> FloatArray:
        each = wealth.reshape(len(self.parts), -1).sum(axis=1)
        return np.asarray(np.bincount(self.parts, weights=each) / len(wealth))

    def _bet_factors(self, values: FloatArray, present: NDArray[np.bool_]) -> FloatArray:
        """Return the factor that multiplies each bet's wealth ``(n, S, 2, bets)``; 1 for a missing statistic."""
        gains = np.stack([values - self.high, self.low - values], axis=2) * present[:, :, None]
        return 1 + self._bets * gains[..., None]

    def _check_values(self, values: FloatArray, present: NDArray[np.bool_]) -> None:
        shape = (len(values), len(self.low))
        if values.shape != shape or present.shape != shape:
            raise InputError(
                f"values and present must both have shape (n, {shape[1]})",
                f"{values.shape} and {present.shape}",
                "Pass one row per sample.",
            )
        # written so that NaN is outside
        outside = present & ~((values >= self.least) & (values <= self.most))
        if outside.any():
            raise InputError(
                "every value must lie within the range of its statistic",
                values[outside][:3].tolist(),
                "Check how the statistics are computed.",
            )


def wealth_shape(statistics: int) -> tuple[int, int, int]:
    """Return the shape of the wealth array for this number of statistics."""
    return statistics, 2, len(SHARES)


def _unstaked_share(samples: NDArray[Any] | float) -> FloatArray:
    """Return the share of the wealth that is not yet staked after this number of samples; falls slowly to 0."""
    return np.asarray((1 - _START_STAKE) / (1 + np.log1p(np.asarray(samples) / _PACE)))
