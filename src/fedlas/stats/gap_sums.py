"""Sufficient statistics of confidences and correctness, overall and in cells of confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, error_reason
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.proportion import clopper_pearson

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray


@dataclass(frozen=True)
class GapSums:
    """Sums of confidences ``c`` and correctness ``r`` (0 or 1), overall and in each cell of confidence."""

    # Ends of the cells `(K + 1,)`, from 0 to 1. A cell includes its lower end.
    edges: FloatArray
    # Number of samples `(K + 1,)`: of all, then of each cell. The sums below have the same shape.
    count: FloatArray
    # Sum of `r`.
    right: FloatArray
    # Sum of `c`.
    confidence: FloatArray
    # Sum of `c ** 2`.
    squares: FloatArray
    # Sum of `c * r`.
    products: FloatArray

    @classmethod
    def from_samples(
        cls, edges: Sequence[float] | FloatArray, confidence: FloatArray, correct: NDArray[np.bool_]
    ) -> GapSums:
        """Return the sums of samples with ``confidence (N,)`` and ``correct (N,)``."""
        ends = np.asarray(edges, dtype=np.float64)
        cell = confidence_cells(ends, confidence)
        right = correct.astype(np.float64)

        def sum_by_cell(values: FloatArray) -> FloatArray:
            by_cell = np.bincount(cell, weights=values, minlength=len(ends) - 1)
            return np.concatenate([[values.sum()], by_cell])

        ones = np.ones(len(right))
        return cls(
            ends,
            *(sum_by_cell(v) for v in (ones, right, confidence, confidence**2, confidence * right)),
        )

    def __add__(self, other: GapSums) -> GapSums:
        names = ("count", "right", "confidence", "squares", "products")
        return GapSums(self.edges, *(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def gap(self) -> FloatArray:
        """Mean of ``r - c``: accuracy minus confidence; NaN where there is no sample."""
        with np.errstate(invalid="ignore"):
            return (self.right - self.confidence) / self.count

    def to_dict(self) -> dict[str, list[float]]:
        """Return the sums as a dict of lists for JSON."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> GapSums:
        """Return the sums written by :meth:`to_dict`."""
        try:
            sums = {name: read_array(content, name) for name in cls.__dataclass_fields__}
            edges = check_edges(sums["edges"])
            if wrong := [
                f"{name} {each.shape}" for name, each in sums.items() if each.shape != edges.shape
            ]:
                raise ValueError(f"{', '.join(wrong)} for {len(edges) - 1} cells")
            for name in ("count", "right"):
                read_counts(content, name)
            gap_sums = cls(**sums)
            if wrong := gap_sums._impossible_fields():
                raise ValueError(f"impossible sums: {', '.join(wrong)}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "the card must hold valid sums of confidences",
                error_reason(error),
                "Write the card again: fedlas card RUN.",
            ) from error
        return gap_sums

    def _impossible_fields(self) -> list[str]:
        """Return the names of sums that no samples with ``c`` in ``[0, 1]`` can have, up to rounding."""
        lowest, highest = confidence_bounds_by_cell(self.edges)
        # The sums were added in another order than here; their rounding is far below this share of the count.
        slack = 1e-9 * np.maximum(self.count, 1)

        def is_between(name: str, low: FloatArray, high: FloatArray) -> bool:
            values = getattr(self, name)
            # infinities and NaN are not within the slack
            with np.errstate(over="ignore", invalid="ignore"):
                adds_up = abs(values[0] - values[1:].sum()) <= slack[0]
            return bool(
                adds_up and (values >= low - slack).all() and (values <= high + slack).all()
            )

        c = self.confidence
        mean = self.confidence / np.maximum(self.count, 1)
        possible = {
            "count": is_between("count", self.count, self.count),
            "right": is_between("right", np.zeros_like(c), self.count),
            "confidence": is_between("confidence", lowest * self.count, highest * self.count),
            # Squares are least if all confidences are equal (Jensen); none exceeds its confidence times the highest.
            "squares": is_between("squares", mean * c, highest * c),
            # Only right samples have products, their confidences: a part of all confidences.
            "products": is_between(
                "products", lowest * self.right, np.minimum(highest * self.right, c)
            ),
        }
        return [name for name, fine in possible.items() if not fine]

    def bounds(self, *, confidence_level: float) -> tuple[FloatArray, FloatArray]:
        """Return simultaneous intervals of the mean of ``r - c``, overall and in each cell."""
        # Each is the intersection of two intervals that hold for any bounded values: the empirical Bernstein interval
        # of `r - c`, and the exact interval of `r` less that of `c`, see `confidence_bounds`. The second is the
        # narrower one in a narrow cell, and with few samples.
        # All intervals must hold together, so each may miss with an equal share of the probability (Bonferroni).
        miss = (1 - check_confidence_level(confidence_level)) / len(self.count)
        low, high = (np.empty(len(self.count)) for _ in range(2))
        lowest, highest = confidence_bounds_by_cell(self.edges)
        for k, count in enumerate(self.count):
            # No r - c leaves this range; it stays the interval of a cell with too few samples for a variance.
            least = -highest[k]
            most = 1 - lowest[k]
            low[k] = least
            high[k] = most
            if count < 2:
                continue
            mean_c = self.confidence[k] / count
            mean_r = self.right[k] / count
            # Variances come from the sums, because a card keeps no samples.
            square = self.right[k] - 2 * self.products[k] + self.squares[k]
            var_gap = (square - count * (mean_r - mean_c) ** 2) / (count - 1)
            # The probabilities add up to the miss: two sides of a quarter, and twice a quarter.
            wide = _bernstein_margin(var_gap, count, most - least, miss / 4)
            exact = clopper_pearson(round(self.right[k]), int(count), confidence_level=1 - miss / 4)
            sure = self._confidence_bounds(k, miss / 4)
            low[k] = max(least, mean_r - mean_c - wide, exact[0] - sure[1])
            high[k] = min(most, mean_r - mean_c + wide, exact[1] - sure[0])
        return low, high

    def confidence_bounds(self, *, confidence_level: float) -> tuple[float, float]:
        """Return a distribution-free interval of the mean confidence of all samples."""
        # It is the intersection of the empirical Bernstein interval, which is narrow for confidences that vary little,
        # and the Chernoff interval, which is narrow near 0 and 1 and with few samples.
        return self._confidence_bounds(0, 1 - check_confidence_level(confidence_level))

    def _confidence_bounds(self, cell: int, miss: float) -> tuple[float, float]:
        lowest, highest = (float(end[cell]) for end in confidence_bounds_by_cell(self.edges))
        count = float(self.count[cell])
        if count < 2:
            return lowest, highest
        mean = float(self.confidence[cell] / count)
        width = highest - lowest
        variance = (float(self.squares[cell]) - count * mean**2) / (count - 1)
        # Two intervals of two sides: a quarter of the miss for each.
        wide = _bernstein_margin(variance, count, width, miss / 4)
        low, high = _chernoff_interval(min(max((mean - lowest) / width, 0.0), 1.0), count, miss / 4)
        return max(lowest + width * low, mean - wide), min(lowest + width * high, mean + wide)


def read_array(content: Mapping[str, Any], name: str) -> FloatArray:
    """Return the entry ``name`` of a file's content as an array of finite numbers."""
    numbers = np.asarray(content[name])
    if numbers.dtype.kind not in "iuf" or not numbers.ndim or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite numbers")
    return numbers.astype(np.float64)


def read_counts(content: Mapping[str, Any], name: str) -> FloatArray:
    """Return the entry ``name`` of a file's content as an array ``(n,)`` of non-negative integers."""
    counts = read_array(content, name)
    if counts.ndim != 1 or (counts < 0).any() or (counts != np.rint(counts)).any():
        raise ValueError(f"{name} must be whole numbers from 0")
    return counts


def check_edges(edges: FloatArray) -> FloatArray:
    """Return ``edges (K + 1,)`` if they ascend from 0 to 1, else raise ValueError."""
    if (
        edges.ndim != 1
        or len(edges) < 2
        or edges[0] != 0
        or edges[-1] != 1
        or not (np.diff(edges) > 0).all()
    ):
        raise ValueError("edges must ascend from 0 to 1")
    return edges


def quantile_edges(values: FloatArray, num_cells: int) -> FloatArray:
    """Return unique cell edges at quantiles of ``values``, including 0 and 1, placed midway between values."""
    steps = np.unique(values.round(6))
    inner = np.quantile(values, np.arange(1, num_cells) / num_cells).round(6)
    at = np.searchsorted(steps, inner[inner < 1])
    return np.concatenate(
        [[0.0], np.unique((steps[at[at > 0] - 1] + steps[at[at > 0]]) / 2), [1.0]]
    )


def confidence_cells(edges: FloatArray, confidence: FloatArray) -> NDArray[np.int64]:
    """Return the cell index of each confidence."""
    # Only inner edges are searched, so that a confidence of exactly 1 falls into the last cell.
    return np.searchsorted(edges[1:-1], confidence, side="right")


def confidence_bounds_by_cell(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and highest confidence ``(K + 1,)``, first overall, then of each cell."""
    return np.concatenate([edges[:1], edges[:-1]]), np.concatenate([edges[-1:], edges[1:]])


def _bernstein_margin(variance: float, count: float, width: float, miss: float) -> float:
    """Return the margin that the error of a mean of bounded values exceeds with probability at most ``miss``."""
    logarithm = math.log(2 / miss)
    # A variance of 0 that comes from differences of sums may round to below 0.
    return math.sqrt(2 * max(variance, 0.0) * logarithm / count) + 7 * width * logarithm / (
        3 * (count - 1)
    )


def _chernoff_interval(mean: float, count: float, miss: float) -> tuple[float, float]:
    """Return an interval of a mean in ``[0, 1]`` whose ends are each missed with probability at most ``miss``."""
    # Hoeffding, "Probability inequalities for sums of bounded random variables" (1963), theorem 1.

    def divergence(other: float) -> float:
        parts = ((mean, other), (1 - mean, 1 - other))
        return sum(p * math.log(p / q) for p, q in parts if p > 0)

    def solve_end(outside: float) -> float:
        inside = mean
        for _ in range(60):
            middle = (inside + outside) / 2
            far = middle in (0.0, 1.0) or count * divergence(middle) >= math.log(1 / miss)
            inside, outside = (inside, middle) if far else (middle, outside)
        return outside  # the outer one: an interval may be too wide, never too narrow

    return (0.0 if mean == 0 else solve_end(0.0)), (1.0 if mean == 1 else solve_end(1.0))
