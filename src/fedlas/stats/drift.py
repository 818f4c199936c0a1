"""Has calibration changed since it was measured? Tests over a stream, at a rate of false alarms that is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, reason
from fedlas._core.extras import require
from fedlas.stats.intervals import check_level
from fedlas.stats.selective_risk import clopper_pearson

Floats = NDArray[np.float64]

_FRACTIONS = np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7])
"""Bets, as shares of the largest that cannot lose everything; their wealth is averaged."""
_LEAST = 0.05


@dataclass(frozen=True)
class GapSums:
    """Sufficient sums of confidences ``c`` and right predictions ``r`` (0 or 1), for all samples and cell by cell.

    Attributes:
        edges: Ends of the cells ``(K + 1,)``, from 0 to 1; a cell holds its lower end.
        count: ``(K + 1,)``: all samples, then each cell. The same holds for the others.
        right: Sum of ``r``.
        confidence: Sum of ``c``.
        squares: Sum of ``c ** 2``.
        products: Sum of ``c * r``.
    """

    edges: Floats
    count: Floats
    right: Floats
    confidence: Floats
    squares: Floats
    products: Floats

    @classmethod
    def of(cls, edges: Sequence[float] | Floats, confidence: Floats, correct: NDArray[np.bool_]) -> GapSums:
        """The sums of some samples."""
        ends = np.asarray(edges, dtype=np.float64)
        cell, right = cells_of(ends, confidence), correct.astype(np.float64)

        def total(values: Floats) -> Floats:
            by_cell = np.bincount(cell, weights=values, minlength=len(ends) - 1)
            return np.concatenate([[values.sum()], by_cell])

        ones = np.ones(len(right))
        return cls(ends, *(total(v) for v in (ones, right, confidence, confidence**2, confidence * right)))

    def __add__(self, other: GapSums) -> GapSums:
        names = ("count", "right", "confidence", "squares", "products")
        return GapSums(self.edges, *(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def gap(self) -> Floats:
        """Mean of ``r - c``: accuracy minus confidence; NaN where there is no sample."""
        with np.errstate(invalid="ignore"):
            return (self.right - self.confidence) / self.count

    def plain(self) -> dict[str, list[float]]:
        """For JSON."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> GapSums:
        """What :meth:`plain` gave.

        Raises:
            InputError: If it is something else.
        """
        try:
            sums = {name: read_numbers(content, name) for name in cls.__dataclass_fields__}
            edges = check_edges(sums["edges"])
            if wrong := [f"{name} {each.shape}" for name, each in sums.items() if each.shape != edges.shape]:
                raise ValueError(f"{', '.join(wrong)} for {len(edges) - 1} cells")
            for name in ("count", "right"):
                read_counts(content, name)
            found = cls(**sums)
            if wrong := found._impossible():
                raise ValueError(f"no samples have these sums: {', '.join(wrong)}")
        except (KeyError, TypeError, ValueError) as error:
            fix = "Write the card again: fedlas card RUN."
            raise InputError("card", "it must hold sums of confidences", reason(error), fix) from error
        return found

    def _impossible(self) -> list[str]:
        """Names of the sums that no samples with ``c`` in ``[0, 1]`` have, but for rounding."""
        lowest, highest = _ends(self.edges)
        slack = 1e-9 * np.maximum(self.count, 1)

        def between(name: str, low: Floats, high: Floats) -> bool:
            values = getattr(self, name)
            with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN are not within the slack
                adds_up = abs(values[0] - values[1:].sum()) <= slack[0]
            return bool(adds_up and (values >= low - slack).all() and (values <= high + slack).all())

        c, mean = self.confidence, self.confidence / np.maximum(self.count, 1)
        possible = {
            "count": between("count", self.count, self.count),
            "right": between("right", np.zeros_like(c), self.count),
            "confidence": between("confidence", lowest * self.count, highest * self.count),
            "squares": between("squares", mean * c, highest * c),
            "products": between("products", lowest * self.right, np.minimum(highest * self.right, c)),
        }
        return [name for name, fine in possible.items() if not fine]

    def bounds(self, *, level: float) -> tuple[Floats, Floats]:
        """Interval of the mean of ``r - c`` for all samples and in each cell; all hold together with ``level``.

        The intersection of two intervals that hold for any bounded values: the empirical Bernstein interval of
        ``r - c``; and the exact interval of ``r`` less the empirical Bernstein interval of ``c``, which is the narrower
        one in a narrow cell.
        """
        miss = (1 - check_level("drift", level)) / len(self.count)
        low, high = (np.empty(len(self.count)) for _ in range(2))
        lowest, highest = _ends(self.edges)
        for k, count in enumerate(self.count):
            least, most = -highest[k], 1 - lowest[k]
            low[k], high[k] = least, most
            if count < 2:
                continue
            mean_c, mean_r = self.confidence[k] / count, self.right[k] / count
            var_c = (self.squares[k] - count * mean_c**2) / (count - 1)
            square = self.right[k] - 2 * self.products[k] + self.squares[k]
            var_gap = (square - count * (mean_r - mean_c) ** 2) / (count - 1)
            wide = _bernstein(var_gap, count, most - least, miss / 4)
            exact = clopper_pearson(round(self.right[k]), int(count), level=1 - miss / 4)
            narrow = _bernstein(var_c, count, highest[k] - lowest[k], miss / 8)
            low[k] = max(least, mean_r - mean_c - wide, exact[0] - mean_c - narrow)
            high[k] = min(most, mean_r - mean_c + wide, exact[1] - mean_c + narrow)
        return low, high


def read_numbers(content: Mapping[str, Any], name: str) -> Floats:
    """An entry of a file as an array.

    Raises:
        KeyError: If there is none.
        ValueError: If it is anything but finite numbers, in an array.
    """
    numbers = np.asarray(content[name])
    if numbers.dtype.kind not in "iuf" or not numbers.ndim or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite numbers")
    return numbers.astype(np.float64)


def read_counts(content: Mapping[str, Any], name: str) -> Floats:
    """An entry of a file as an array ``(n,)`` of whole numbers from 0.

    Raises:
        KeyError: If there is none.
        ValueError: If it is anything else.
    """
    counts = read_numbers(content, name)
    if counts.ndim != 1 or (counts < 0).any() or (counts != np.rint(counts)).any():
        raise ValueError(f"{name} must be whole numbers from 0")
    return counts


def check_edges(edges: Floats) -> Floats:
    """Return ``edges (K + 1,)`` if they ascend from 0 to 1.

    Raises:
        ValueError: Otherwise.
    """
    if edges.ndim != 1 or len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not (np.diff(edges) > 0).all():
        raise ValueError("edges must ascend from 0 to 1")
    return edges


def cells_of(edges: Floats, confidence: Floats) -> NDArray[np.int64]:
    """Number of the cell of each confidence."""
    return np.searchsorted(edges[1:-1], confidence, side="right")


class GapDrift:
    """A sequential test that accuracy still differs from confidence as it did when the card was written.

    Null hypothesis: given all before it, a sample's expected ``r - c`` (right less confidence) lies in the interval
    that the card's samples leave, over all samples and within each cell of confidence. Against each interval a gambler
    bets above and another below, with fixed shares of what they may stake; the wealth of all, averaged, is a
    non-negative supermartingale that starts at 1 under the null hypothesis. By Ville's inequality it ever reaches
    ``2 / false_alarm`` with probability at most ``false_alarm / 2``; the other half is spent on the card's intervals.
    So whenever one looks, and however long the stream is, the probability of a false alarm is at most ``false_alarm``.

    Args:
        reference: Sums of the card's samples.
        false_alarm: In (0, 1).
        log_wealth: To go on from, ``(K + 1, 2, bets)``; None starts afresh.

    State:
        The wealth of each gambler, changed by :meth:`observe`: ``O(cells)``.

    Raises:
        InputError: If ``false_alarm`` is out of range.

    Note:
        Samples must come in an order that does not depend on labels; those that share a cause (frames of one video) are
        not independent, and the null hypothesis is about each given those before.

    Source:
        Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024, arXiv
        2010.09686), section 4, for the test; Ville 1939 for the inequality; Maurer and Pontil, "Empirical Bernstein
        bounds and sample variance penalization" (2009), theorem 4, and Clopper and Pearson (1934) for the intervals.
    """

    def __init__(self, reference: GapSums, *, false_alarm: float, log_wealth: Floats | None = None) -> None:
        self.false_alarm = check_level("drift", false_alarm, name="false_alarm")
        self.edges = reference.edges
        self.low, self.high = reference.bounds(level=1 - false_alarm / 2)
        lowest, highest = _ends(reference.edges)
        up = 1 / np.maximum(highest + self.high, _LEAST)
        down = 1 / np.maximum(1 - lowest - self.low, _LEAST)
        self._bets = np.stack([up, down], axis=1)[:, :, None] * _FRACTIONS  # (K + 1, 2, bets)
        self.log_wealth = np.zeros_like(self._bets) if log_wealth is None else log_wealth.copy()

    @property
    def threshold(self) -> float:
        """Evidence at which there is an alarm."""
        return 2 / self.false_alarm

    @property
    def log_evidence(self) -> float:
        """Logarithm of the wealth of all gamblers, averaged."""
        return float(_log_mean(self.log_wealth.reshape(1, -1))[0])

    def log_evidence_by_cell(self) -> Floats:
        """The same of those who bet on all samples, then of each cell: where the evidence comes from."""
        return _log_mean(self.log_wealth.reshape(len(self.log_wealth), -1))

    def observe(self, confidence: Floats, correct: NDArray[np.bool_]) -> int | None:
        """Take in some samples, in order.

        Args:
            confidence: ``(n,)``.
            correct: ``(n,)``.

        Returns:
            Place of the first after which there was an alarm; None if there was none.

        Raises:
            InputError: If a confidence is not in ``[0, 1]``, or there is not one for each; nothing is taken in then.
        """
        outside = confidence[~((confidence >= 0) & (confidence <= 1))]  # so worded that NaN is outside
        if confidence.shape != correct.shape or len(outside):
            got = f"{confidence.shape} with {correct.shape}, outside {outside[:3].tolist()}"
            fix = "Pass probabilities of the predicted classes."
            raise InputError("drift", "every confidence must be in [0, 1], one for each prediction", got, fix)
        if not len(confidence):
            return None
        gap = correct.astype(np.float64) - confidence
        cell = cells_of(self.edges, confidence)
        paths = np.empty((len(gap), len(self.log_wealth)))
        for k in range(len(self.log_wealth)):
            rows = slice(None) if k == 0 else np.flatnonzero(cell == k - 1)
            steps = np.zeros((len(gap), *self._bets.shape[1:]))
            above, below = gap[rows] - self.high[k], self.low[k] - gap[rows]
            steps[rows] = np.log1p(self._bets[k] * np.stack([above, below], axis=1)[:, :, None])
            path = self.log_wealth[k] + steps.cumsum(axis=0)
            paths[:, k] = _log_mean(path.reshape(len(gap), -1))
            self.log_wealth[k] = path[-1]
        reached = np.flatnonzero(_log_mean(paths) >= math.log(self.threshold))
        return int(reached[0]) if len(reached) else None


@dataclass(frozen=True)
class ConfidenceDrift:
    """Whether confidences are distributed as they were.

    Attributes:
        distance: Largest difference of the two cumulative shares, over the ends of the bins, in [0, 1].
        p_value: Of the test that both are of one distribution.
    """

    distance: float
    p_value: float


def confidence_drift(reference: Sequence[float] | Floats, live: Sequence[float] | Floats) -> ConfidenceDrift:
    """Two-sample Kolmogorov-Smirnov test over counts in the same bins.

    Looking at the ends of bins only, the distance is at most that over all confidences, so the p-value is too large
    rather than too small.

    Args:
        reference: Samples in each bin.
        live: The same of the other sample.

    Example:
        >>> confidence_drift([50, 50], [50, 50]).p_value, confidence_drift([90, 10], [10, 90]).p_value < 1e-6
        (1.0, True)

    Source:
        Smirnov, "Table for estimating the goodness of fit of empirical distributions" (1948).
    """
    first, second = np.asarray(reference, dtype=np.float64), np.asarray(live, dtype=np.float64)
    n, m = first.sum(), second.sum()
    counted = min(n, m) >= 1 and max(n, m) < np.inf and min(first.min(), second.min()) >= 0  # which NaN is not
    if first.shape != second.shape or not counted:
        got = f"{first.shape} with {n:g}, {second.shape} with {m:g}"
        raise InputError("confidence_drift", "both must have samples, in the same bins", got, "Count both alike.")
    distance = float(np.abs(first.cumsum() / n - second.cumsum() / m).max())
    p_value = float(require("scipy.stats", extra="stats").kstwobign.sf(distance * math.sqrt(n * m / (n + m))))
    return ConfidenceDrift(distance, p_value)


def spent(false_alarm: float, look: int) -> float:
    """Share of ``false_alarm`` for the ``look``-th look, from 1: ``6 / (pi * look) ** 2``; all add up to the whole."""
    return false_alarm * 6 / (math.pi * look) ** 2


def _ends(edges: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest confidence overall, then in each cell."""
    return np.concatenate([edges[:1], edges[:-1]]), np.concatenate([edges[-1:], edges[1:]])


def _bernstein(variance: float, count: float, width: float, miss: float) -> float:
    """How far a mean of values in an interval of that width is off, on one side, but for probability ``miss``."""
    logarithm = math.log(2 / miss)
    return math.sqrt(2 * max(variance, 0.0) * logarithm / count) + 7 * width * logarithm / (3 * (count - 1))


def _log_mean(logs: Floats) -> Floats:
    """``log(mean(exp(logs)))`` over the last axis."""
    top = logs.max(axis=-1)
    return top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
