"""Bins of confidence: the one definition that calibration errors, reliability diagrams and reports share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas.metrics.base import OnePass
from fedlas.metrics.ranking import ROUNDING, Floats, Ranking, equal_mass_places, ranking, sorted_samples
from fedlas.metrics.scan import Chunk
from fedlas.metrics.sums import CellSums
from fedlas.metrics.weighted import averaging_one, has_weights, nonzero
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions

Scheme = Literal["equal-width", "equal-mass"]
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
        return self.count if self.squares is None else self.count**2 / nonzero(self.squares)


def mean_gap(bins: BinTable) -> Floats:
    """``sum_b n_b / N * |confidence_b - outcome_b|``: the ECE of these bins ``(...,)``."""
    return np.abs(bins.gaps).sum(axis=-1) / bins.num_samples


def bins_of(edges: Tensor, table: BinTable, rows: float | None = None) -> Bins:
    """Return the means of a table of sums; ``rows``, the samples of a weight above 0, scales the counts if given."""
    scale = 1.0 if rows is None else rows / table.num_samples
    count = torch.from_numpy(table.count * scale)
    confidence, accuracy = (
        torch.from_numpy(each) * scale / count for each in (table.gaps + table.outcome, table.outcome)
    )
    if rows is None:
        return Bins(edges, count.long(), confidence, accuracy, count.long())
    return Bins(edges, count, confidence, accuracy, torch.from_numpy(table.effective_count))


class BinSums:
    """Exact sums over bins, from which errors and :class:`Bins` follow.

    Args:
        bins: Number of bins of equal width, or the edges of any others: ``(B + 1,)`` float64, ascending.
        weighted: Whether samples have weights: the sums are weighted, and float64 then.
    """

    def __init__(self, bins: int | Tensor, weighted: bool = False) -> None:
        self.edges = equal_width_edges(bins) if isinstance(bins, int) else bins
        self._equal_width = isinstance(bins, int)
        size = len(self.edges) - 1
        self._count = CellSums(size, weighted, bits=0)
        self._confidence, self._outcome = CellSums(size, weighted), CellSums(size, weighted)
        self._squares = torch.zeros(size, dtype=torch.float64, device="cpu") if weighted else None
        self._rows = torch.zeros(1, dtype=torch.int64, device="cpu") if weighted else None

    def add(self, confidence: Tensor, outcome: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples with ``confidence (n,)`` and ``outcome (n,)``, bool or float, and their weights, if any."""
        for start in range(0, len(confidence), _ROWS):
            rows = slice(start, start + _ROWS)
            part, weight = confidence[rows], None if weights is None else weights[rows]
            index = width_bin(part, len(self.edges) - 1) if self._equal_width else bin_index(part, self.edges)
            self._count.add(index, weights=weight)
            self._confidence.add(index, part, weight)
            self._outcome.add(index, outcome[rows], weight)
            if weight is not None and self._squares is not None and self._rows is not None:
                self._squares.index_add_(0, index, weight**2)
                self._rows += torch.count_nonzero(weight)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        sums = {"count": self._count, "confidence": self._confidence, "outcome": self._outcome}
        tensors = {name: each.values for name, each in sums.items()}
        if self._squares is not None and self._rows is not None:
            tensors |= {"squares": self._squares, "rows": self._rows}
        return tensors

    def table(self) -> BinTable:
        """Return the sums as formulas take them."""
        count, confidence, outcome = (each.floats().numpy() for each in (self._count, self._confidence, self._outcome))
        squares = None if self._squares is None else self._squares.numpy()
        return BinTable(count, confidence - outcome, outcome, float(count.sum()), squares)

    def bins(self) -> Bins:
        """Return the sums as means."""
        return bins_of(self.edges, self.table(), None if self._rows is None else float(self._rows))


def width_bin(values: Tensor, num_bins: int) -> Tensor:
    """The bin of equal width ``(b / B, (b + 1) / B]`` of each value in ``[0, 1]``, int64; 0 belongs to the first.

    Note:
        A value up to :data:`~fedlas.metrics.ranking.ROUNDING` times its type's precision above an edge lies on it: the
        softmax of ``log 0.6`` may be the float64 after 0.6, and the float32 nearest to 0.2 is above 0.2.
    """
    below = 1.0 + num_bins * ROUNDING * torch.finfo(values.dtype).eps
    return torch.mul(values, float(num_bins)).sub_(below).ceil_().clamp_(0, num_bins - 1).long()


def bin_index(values: Tensor, edges: Tensor) -> Tensor:
    """The bin ``(edges[b], edges[b + 1]]`` of each value, int64; what lies outside goes to the first or the last bin.

    Note:
        Compares in the precision of ``values``: the float32 nearest to 0.2 lies on the edge 0.2, not above it.
    """
    return torch.bucketize(values, edges[1:-1].to(values.dtype))


def equal_width_edges(num_bins: int) -> Tensor:
    """``num_bins + 1`` edges from 0 to 1, each the float64 nearest to ``b / num_bins``."""
    return torch.arange(num_bins + 1, dtype=torch.float64, device="cpu") / num_bins


def equal_mass_bins(
    confidence: Tensor, outcome: Tensor, num_bins: int, weights: Tensor | None = None
) -> tuple[Tensor, BinTable]:
    """Edges and sums of bins of as equal counts as ties allow.

    The sorted sample is cut at the ranks that make the counts differ by at most one, the larger first. A cut that falls
    among equal values moves to the nearer end of them (the upper one if both are as near), so equal confidences are
    never separated by their order in the file.

    Args:
        confidence: ``(N,)`` in any order, at least 0.
        outcome: ``(N,)`` bool.
        num_bins: ``B``; may exceed ``N``: the surplus bins are empty.
        weights: ``(N,)``, averaging 1 over those above 0; None if every sample counts once.

    Returns:
        Edges ``(B + 1,)`` float64, from 0 to 1, an inner one being the highest confidence of the bin below it; and sums
        over the bins.
    """
    values, right, share = sorted_samples(confidence, outcome, weights)
    places = equal_mass_places(values, share, num_bins)
    ends = np.concatenate(([0], places, np.full(num_bins - len(places), len(values))))
    table = np.zeros((4, num_bins))
    for b, (start, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
        part, hits = values[start:end], right[start:end]
        if share is None:
            table[:3, b] = end - start, part.sum(dtype=np.float64), np.count_nonzero(hits)
        else:
            weight = share[start:end]
            table[:, b] = weight.sum(), (part * weight).sum(), weight[hits].sum(), (weight**2).sum()
    edges = np.zeros(num_bins + 1)
    edges[1:] = np.where(ends[1:] > 0, values[ends[1:] - 1], 0.0)
    edges[1 + len(places) :] = 1.0
    count, total, hit, squares = table
    return torch.from_numpy(edges), BinTable(count, total - hit, hit, len(values), None if share is None else squares)


def equal_mass_edges(confidence: Tensor, num_bins: int) -> Tensor:
    """The edges of :func:`equal_mass_bins` of ``confidence (N,)`` in any order, ``(B + 1,)`` float64."""
    return equal_mass_bins(confidence, torch.zeros_like(confidence, dtype=torch.bool), num_bins)[0]


class EqualWidth:
    """Statistic: sums over bins of equal width, with right or wrong as the outcome."""

    top_label = True
    takes_weights = True

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self._weighted = has_weights(predictions)
        self.sums = BinSums(num_bins, self._weighted)

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.sums.add(chunk.confidence, chunk.correct, chunk.weights if self._weighted else None)

    def tensors(self) -> dict[str, Tensor]:
        """Those of the bins."""
        return self.sums.tensors()

    def table(self) -> BinTable:
        """Sums over the bins."""
        return self.sums.table()

    def bins(self) -> Bins:
        """Means over the bins."""
        return self.sums.bins()


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

    def ranking(self) -> Ranking:
        """The samples, those of equal confidence together."""
        return ranking(self.confidence, self.correct, self.weights)

    def table(self) -> BinTable:
        """Sums over bins of equal mass."""
        return equal_mass_bins(self.confidence, self.correct, self.num_bins, self.weights)[1]

    def bins(self) -> Bins:
        """Means over bins of equal mass."""
        edges, table = equal_mass_bins(self.confidence, self.correct, self.num_bins, self.weights)
        return bins_of(edges, table, None if self.weights is None else table.num_samples)


_SCHEMES: dict[str, Any] = {"equal-width": EqualWidth, "equal-mass": EqualMass}


def reliability_bins(
    predictions: Predictions | TopLabel, *, num_bins: int = 15, scheme: Scheme = "equal-width"
) -> Bins:
    """Mean confidence and accuracy in bins of confidence: what a reliability diagram draws.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins, at least 1.
        scheme: ``"equal-width"`` (bins of :func:`~fedlas.metrics.expected_calibration_error`) or ``"equal-mass"``
            (those of :func:`~fedlas.metrics.adaptive_ece`).

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
    return OnePass("reliability_bins", statistic, lambda _: 0.0).gather(predictions, num_bins=num_bins).bins()
