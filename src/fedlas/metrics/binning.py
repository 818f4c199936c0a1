"""Bins of confidence: the one definition that calibration errors, reliability diagrams and reports share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas.metrics.base import OnePass
from fedlas.metrics.ranking import Floats, Ranking, equal_mass_ranks, ranking
from fedlas.metrics.scan import Chunk
from fedlas.metrics.weighted import (
    averaging_one,
    counts_for,
    filled,
    has_weights,
    once,
    sums_for,
    times,
    weighted_mass_edges,
)
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions

# Rows binned at a time: keeps the index and float64 weights small beside the confidences themselves.
_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class Bins:
    """What happened in each bin of confidence; all tensors on the CPU, all but ``count`` float64.

    Attributes:
        edges: ``(B + 1,)`` from 0 to 1, ascending. Bin ``b`` is ``(edges[b], edges[b + 1]]``; 0 belongs to the first.
            Bins of equal mass can have equal edges, and are then empty.
        count: Samples in each bin ``(B,)`` int64; they add up to ``N``. With weights, float64 sums of these, scaled to
            add up to the number of samples of a weight above 0.
        confidence: Mean confidence ``(B,)``, NaN where the bin is empty.
        accuracy: Share of correct predictions ``(B,)``, NaN where the bin is empty.
        effective_count: Of how many equally weighted samples ``accuracy`` would be as sure ``(B,)``; ``count`` itself
            without weights.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor
    effective_count: Tensor

    @property
    def num_bins(self) -> int:
        """``B``, empty ones included."""
        return len(self.count)


@dataclass(frozen=True, eq=False)
class BinTable:
    """Sums over bins of confidence, of which calibration errors are made: arrays ``(..., B)`` float64.

    A leading axis counts replicates of the samples; an array in which all of them agree may have 1 there.

    Attributes:
        count: Samples of each bin, 0 if it is empty.
        gaps: Sum of ``confidence - outcome``: positive where the confidence is too high.
        outcome: Sum of the outcomes: 0 or 1 for wrong and right, or their known probability.
        num_samples: ``N``, of all bins together.
        squares: Sum of the squared weights of each bin, and all others are weighted sums; None without weights.
    """

    count: Floats
    gaps: Floats
    outcome: Floats
    num_samples: float
    squares: Floats | None = None

    @property
    def effective_count(self) -> Floats:
        """``(sum w)**2 / sum w**2`` of each bin: of how many equally weighted samples a mean would be as sure."""
        return self.count if self.squares is None else self.count**2 / filled(self.squares)


def mean_gap(bins: BinTable) -> Floats:
    """``sum_b n_b / N * |confidence_b - outcome_b|``: the ECE of these bins ``(...,)``."""
    return np.abs(bins.gaps).sum(axis=-1) / bins.num_samples


class BinSums:
    """Exact sums over bins with given edges, from which errors and :class:`Bins` follow.

    Args:
        edges: ``(B + 1,)`` float64, ascending.
        weighted: Whether samples have weights: the sums are weighted, and float64 then.

    Attributes:
        count: ``(B,)`` int64, or sums of weights.
    """

    def __init__(self, edges: Tensor, weighted: bool = False) -> None:
        self.edges = edges
        bins = len(edges) - 1
        self.count = counts_for(bins, weighted)
        self._confidence, self._outcome = sums_for(bins, weighted), sums_for(bins, weighted)
        self._squares: Tensor | None = counts_for(bins, True) if weighted else None
        self._rows: Tensor | None = counts_for(1, False) if weighted else None

    def add(self, confidence: Tensor, outcome: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples with ``confidence (n,)`` and ``outcome (n,)``, bool or float, and their weights, if any."""
        for start in range(0, len(confidence), _ROWS):
            rows = slice(start, start + _ROWS)
            part, weight = confidence[rows], None if weights is None else weights[rows]
            index = bin_index(part, self.edges)
            self.count.index_add_(0, index, once(index, weight))
            self._confidence.add(times(part, weight), index)
            self._outcome.add(times(outcome[rows], weight), index)
            if weight is not None and self._squares is not None and self._rows is not None:
                self._squares.index_add_(0, index, weight**2)
                self._rows += torch.count_nonzero(weight)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        sums = {"count": self.count, "confidence": self._confidence.digits, "outcome": self._outcome.digits}
        if self._squares is not None and self._rows is not None:
            sums |= {"squares": self._squares, "rows": self._rows}
        return sums

    @property
    def confidence(self) -> Tensor:
        """Sum of the confidences ``(B,)`` float64."""
        return self._confidence.floats()

    @property
    def outcome(self) -> Tensor:
        """Sum of the outcomes ``(B,)`` float64: 0 or 1 for wrong and right, or their known probability."""
        return self._outcome.floats()

    @property
    def num_samples(self) -> float:
        """``N``, or the sum of the weights."""
        return self.count.sum().item()

    @property
    def gaps(self) -> Tensor:
        """``count_b * (confidence_b - outcome_b)`` ``(B,)`` float64: positive where the confidence is too high."""
        return self.confidence - self.outcome

    def table(self) -> BinTable:
        """The sums as formulas take them."""
        squares = None if self._squares is None else self._squares.numpy()
        return BinTable(self.count.double().numpy(), self.gaps.numpy(), self.outcome.numpy(), self.num_samples, squares)

    def bins(self) -> Bins:
        """The sums as means."""
        count = self.count if self._rows is None else self.count * (self._rows / self.count.sum())
        effective = self.count if self._squares is None else torch.from_numpy(self.table().effective_count)
        return Bins(self.edges, count, self.confidence / self.count, self.outcome / self.count, effective)


def bin_index(values: Tensor, edges: Tensor) -> Tensor:
    """The bin ``(edges[b], edges[b + 1]]`` of each value, int64; what lies outside goes to the first or the last bin.

    Note:
        Compares in the precision of ``values``: the float32 nearest to 0.2 lies on the edge 0.2, not above it.
    """
    return torch.bucketize(values, edges[1:-1].to(values.dtype))


def equal_width_edges(num_bins: int) -> Tensor:
    """``num_bins + 1`` edges from 0 to 1, each the float64 nearest to ``b / num_bins``."""
    return torch.arange(num_bins + 1, dtype=torch.float64, device="cpu") / num_bins


def equal_mass_edges(ordered: Tensor, num_bins: int) -> Tensor:
    """Edges between bins of as equal counts as ties allow.

    The sorted sample is cut at the ranks that make the counts differ by at most one, the larger first. A cut that falls
    among equal values moves to the nearer end of them (the upper one if both are as near), so equal confidences are
    never separated by their order in the file.

    Args:
        ordered: Confidences ``(N,)``, ascending.
        num_bins: ``B``; may exceed ``N``: the surplus bins are empty.

    Returns:
        ``(B + 1,)`` float64, from 0 to 1; an inner edge is the highest confidence of the bin below it.
    """
    cut = torch.from_numpy(equal_mass_ranks(len(ordered), num_bins))
    # Equal values span from start to end; within them only these two places may hold a cut.
    start = torch.searchsorted(ordered, ordered[cut], right=False)
    end = torch.searchsorted(ordered, ordered[cut], right=True)
    # Where what is below the cut differs, it is its own start: there the distance of 0 keeps it.
    cut = torch.where(cut - start < end - cut, start, end)
    edges = torch.zeros(num_bins + 1, dtype=torch.float64, device="cpu")
    edges[1 : 1 + len(cut)] = torch.where(cut > 0, ordered[(cut - 1).clamp(min=0)], 0).double()
    edges[1 + len(cut) :] = 1.0
    return edges


class EqualWidth:
    """Statistic: sums over bins of equal width, with right or wrong as the outcome."""

    top_label = True
    takes_weights = True

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self._weighted = has_weights(predictions)
        self.sums = BinSums(equal_width_edges(num_bins), self._weighted)

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.sums.add(chunk.confidence, chunk.correct, chunk.weights if self._weighted else None)

    def tensors(self) -> dict[str, Tensor]:
        """Those of the bins."""
        return self.sums.tensors()

    def table(self) -> BinTable:
        """Sums over the bins."""
        return self.sums.table()


class EqualMass:
    """Statistic: all confidences and outcomes, because the edges depend on all of them; ``O(N)`` memory.

    ``weights (N,)`` average 1 over those above 0; None if every sample counts once.
    """

    takes_weights = True

    top_label = True

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self.num_bins = num_bins
        scores = predictions.confidence if isinstance(predictions, TopLabel) else predictions.scores
        self.confidence = torch.empty(predictions.num_samples, dtype=scores.dtype, device="cpu")
        self.correct = torch.empty(predictions.num_samples, dtype=torch.bool, device="cpu")
        self.weights = averaging_one(predictions)
        self._filled = 0

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        rows = slice(self._filled, self._filled + len(chunk.confidence))
        self.confidence[rows] = chunk.confidence
        self.correct[rows] = chunk.correct
        self._filled = rows.stop

    def ordered(self) -> Tensor:
        """The confidences, ascending; NumPy's sort is several times faster than torch's and keeps no index."""
        ordered = self.confidence.numpy().copy()
        ordered.sort()
        return torch.from_numpy(ordered)

    @property
    def sums(self) -> BinSums:
        """Sums over bins of equal mass."""
        if self.weights is None:
            edges = equal_mass_edges(self.ordered(), self.num_bins)
        else:
            edges = weighted_mass_edges(self.confidence, self.weights, self.num_bins)
        sums = BinSums(edges, self.weights is not None)
        sums.add(self.confidence, self.correct, self.weights)
        return sums

    def table(self) -> BinTable:
        """Sums over bins of equal mass."""
        return self.sums.table()

    def ranking(self) -> Ranking:
        """The samples, those of equal confidence together."""
        return ranking(self.confidence, self.correct, self.weights)


_SCHEMES: dict[str, Any] = {"equal-width": EqualWidth, "equal-mass": EqualMass}


def reliability_bins(predictions: Predictions | TopLabel, *, num_bins: int = 15, scheme: str = "equal-width") -> Bins:
    """Mean confidence and accuracy in bins of confidence: what a reliability diagram draws.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins, at least 1.
        scheme: ``"equal-width"`` (bins of :func:`~fedlas.metrics.expected_calibration_error`) or ``"equal-mass"``
            (those of :func:`~fedlas.metrics.adaptive_calibration_error`).

    Returns:
        The bins, those without samples included.

    Raises:
        InputError: For another scheme or a ``num_bins`` below 1.

    Example:
        >>> bins = reliability_bins(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]), num_bins=4)
        >>> bins.count.tolist(), bins.accuracy.tolist()
        ([0, 0, 1, 1], [nan, nan, 0.0, 1.0])
    """
    statistic = _SCHEMES[check_choice("reliability_bins", "scheme", scheme, _SCHEMES)]
    return OnePass("reliability_bins", statistic, lambda _: 0.0).gather(predictions, num_bins=num_bins).sums.bins()
