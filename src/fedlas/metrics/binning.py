"""Bins of confidence: the one definition that calibration errors, reliability diagrams and reports share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas.metrics.base import OnePass
from fedlas.metrics.exact import ExactSum
from fedlas.metrics.ranking import Floats, Ranking, equal_mass_ranks, ranking
from fedlas.metrics.scan import Chunk
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
        count: Samples in each bin ``(B,)`` int64; they add up to ``N``.
        confidence: Mean confidence ``(B,)``, NaN where the bin is empty.
        accuracy: Share of correct predictions ``(B,)``, NaN where the bin is empty.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor

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
    """

    count: Floats
    gaps: Floats
    outcome: Floats
    num_samples: int


def mean_gap(bins: BinTable) -> Floats:
    """``sum_b n_b / N * |confidence_b - outcome_b|``: the ECE of these bins ``(...,)``."""
    return np.abs(bins.gaps).sum(axis=-1) / bins.num_samples


class BinSums:
    """Exact sums over bins with given edges, from which errors and :class:`Bins` follow.

    Args:
        edges: ``(B + 1,)`` float64, ascending.

    Attributes:
        count: ``(B,)`` int64.
    """

    def __init__(self, edges: Tensor) -> None:
        self.edges = edges
        bins = len(edges) - 1
        self.count = torch.zeros(bins, dtype=torch.int64, device="cpu")
        self._confidence = ExactSum(bins)
        self._outcome = ExactSum(bins)

    def add(self, confidence: Tensor, outcome: Tensor) -> None:
        """Take in samples with ``confidence (n,)`` and ``outcome (n,)``, bool or float."""
        for part, happened in zip(confidence.split(_ROWS), outcome.split(_ROWS), strict=True):
            index = bin_index(part, self.edges)
            self.count.index_add_(0, index, torch.ones_like(index))
            self._confidence.add(part, index)
            self._outcome.add(happened, index)

    def tensors(self) -> dict[str, Tensor]:
        """The sums as integers, see :class:`~fedlas.metrics.scan.Sums`."""
        return {"count": self.count, "confidence": self._confidence.digits, "outcome": self._outcome.digits}

    @property
    def confidence(self) -> Tensor:
        """Sum of the confidences ``(B,)`` float64."""
        return self._confidence.floats()

    @property
    def outcome(self) -> Tensor:
        """Sum of the outcomes ``(B,)`` float64: 0 or 1 for wrong and right, or their known probability."""
        return self._outcome.floats()

    @property
    def num_samples(self) -> int:
        """``N``."""
        return int(self.count.sum())

    @property
    def gaps(self) -> Tensor:
        """``count_b * (confidence_b - outcome_b)`` ``(B,)`` float64: positive where the confidence is too high."""
        return self.confidence - self.outcome

    def table(self) -> BinTable:
        """The sums as formulas take them."""
        return BinTable(self.count.double().numpy(), self.gaps.numpy(), self.outcome.numpy(), self.num_samples)

    def bins(self) -> Bins:
        """The sums as means."""
        return Bins(self.edges, self.count, self.confidence / self.count, self.outcome / self.count)


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

    def __init__(self, _predictions: AnyPredictions, num_bins: int) -> None:
        self.sums = BinSums(equal_width_edges(num_bins))

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.sums.add(chunk.confidence, chunk.correct)

    def tensors(self) -> dict[str, Tensor]:
        """Those of the bins."""
        return self.sums.tensors()

    def table(self) -> BinTable:
        """Sums over the bins."""
        return self.sums.table()


class EqualMass:
    """Statistic: all confidences and outcomes, because the edges depend on all of them; ``O(N)`` memory."""

    top_label = True

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self.num_bins = num_bins
        scores = predictions.confidence if isinstance(predictions, TopLabel) else predictions.logits
        self.confidence = torch.empty(predictions.num_samples, dtype=scores.dtype, device="cpu")
        self.correct = torch.empty(predictions.num_samples, dtype=torch.bool, device="cpu")
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
        sums = BinSums(equal_mass_edges(self.ordered(), self.num_bins))
        sums.add(self.confidence, self.correct)
        return sums

    def table(self) -> BinTable:
        """Sums over bins of equal mass."""
        return self.sums.table()

    def ranking(self) -> Ranking:
        """The samples, those of equal confidence together."""
        return ranking(self.confidence, self.correct)


_SCHEMES: dict[str, Callable[[AnyPredictions, int], EqualWidth | EqualMass]] = {
    "equal-width": EqualWidth,
    "equal-mass": EqualMass,
}


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
    one_pass = OnePass("reliability_bins", statistic, lambda _: 0.0)
    return one_pass.gather(predictions, num_bins=num_bins).sums.bins()
