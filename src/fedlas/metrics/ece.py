"""ECE: does a confidence of 0.8 come true four times in five?

``sum_b n_b / N * |accuracy_b - confidence_b|`` over ``B`` bins of confidence; all that it depends on is in this file.

- Edges: bin ``b`` is ``(b / B, (b + 1) / B]``, and 0 belongs to the first (:func:`width_bin`).
- Ties: of equal logits the first class is predicted; a confidence that rounding moved across an edge lies on the edge.
- Weights: sums over samples become weighted sums, and ``N`` the sum of the weights.
- Sums are whole numbers without weights (:class:`~fedlas.metrics.sums.CellSums`), so that the order of samples, batches
  and shards changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import LARGEST
from fedlas.metrics.ranking import ROUNDING, Floats
from fedlas.metrics.scan import METRICS, Chunk, OnePass
from fedlas.metrics.sums import CellSums, has_weights, in_range, nonzero
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
        return self.count if self.squares is None else self.count**2 / nonzero(self.squares)


def mean_gap(bins: BinTable) -> Floats:
    """Return ``sum_b n_b / N * |confidence_b - outcome_b|``: the ECE of these bins ``(...,)``."""
    return np.abs(bins.gaps).sum(axis=-1) / bins.num_samples


def bins_of(edges: Tensor, table: BinTable, rows: float | None = None) -> Bins:
    """Return the means of a table of sums; ``rows``, the samples of a weight above 0, scales the counts if given."""
    scale = 1.0 if rows is None else rows / table.num_samples
    count = torch.from_numpy(table.count * scale)
    confidence, accuracy = (
        torch.from_numpy(each) * scale / count
        for each in (table.gaps + table.outcome, table.outcome)
    )
    if rows is None:
        return Bins(edges, count.long(), confidence, accuracy, count.long())
    return Bins(edges, count, confidence, accuracy, torch.from_numpy(table.effective_count))


class BinSums:
    """Sums over bins of equal width, from which errors and :class:`Bins` follow.

    Args:
        num_bins: ``B``.
        weighted: Whether samples have weights: the sums are weighted, and float64 then.
    """

    def __init__(self, num_bins: int, weighted: bool = False) -> None:
        self._num_bins = num_bins
        self._count = CellSums(num_bins, weighted, bits=0)
        self._confidence = CellSums(num_bins, weighted)
        self._outcome = CellSums(num_bins, weighted)
        self._squares = (
            torch.zeros(num_bins, dtype=torch.float64, device="cpu") if weighted else None
        )
        self._rows = torch.zeros(1, dtype=torch.int64, device="cpu") if weighted else None

    def add(self, confidence: Tensor, outcome: Tensor, weights: Tensor | None = None) -> None:
        """Take in samples with ``confidence (n,)`` and ``outcome (n,)``, bool or float, and their weights, if any."""
        for start in range(0, len(confidence), _ROWS):
            rows = slice(start, start + _ROWS)
            part = confidence[rows]
            weight = None if weights is None else weights[rows]
            index = width_bin(part, self._num_bins)
            self._count.add(index, weights=weight)
            self._confidence.add(index, part, weight)
            self._outcome.add(index, outcome[rows], weight)
            if weight is not None and self._squares is not None and self._rows is not None:
                self._squares.index_add_(0, index, weight**2)
                self._rows += torch.count_nonzero(weight)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums, see :class:`~fedlas.metrics.scan.Sums`."""
        sums = {"count": self._count, "confidence": self._confidence, "outcome": self._outcome}
        tensors = {name: each.values for name, each in sums.items()}
        if self._squares is not None and self._rows is not None:
            tensors |= {"squares": self._squares, "rows": self._rows}
        return tensors

    def possible(self, samples: int) -> bool:
        """Return whether ``samples`` samples can give these sums."""
        parts = self._confidence.is_part_of(self._count) and self._outcome.is_part_of(self._count)
        rows = self._rows is None or in_range(self._rows, 0, samples)
        squares = self._squares is None or in_range(self._squares, 0, LARGEST)
        return self._count.counts(samples) and parts and rows and squares

    def table(self) -> BinTable:
        """Return the sums as formulas take them."""
        count, confidence, outcome = (
            each.floats().numpy() for each in (self._count, self._confidence, self._outcome)
        )
        squares = None if self._squares is None else self._squares.numpy()
        return BinTable(count, confidence - outcome, outcome, float(count.sum()), squares)

    def bins(self) -> Bins:
        """Return the sums as means."""
        rows = None if self._rows is None else float(self._rows)
        return bins_of(equal_width_edges(self._num_bins), self.table(), rows)


class EqualWidth(BinSums):
    """Statistic: sums over bins of equal width, with right or wrong as the outcome."""

    top_label = True
    takes_weights = True

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        super().__init__(num_bins, has_weights(predictions))

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        self.add(chunk.confidence, chunk.correct, chunk.weights)


def width_bin(values: Tensor, num_bins: int) -> Tensor:
    """Return the bin ``(b / B, (b + 1) / B]`` of each value in ``[0, 1]``, int64; 0 belongs to the first.

    Note:
        A value up to :data:`~fedlas.metrics.ranking.ROUNDING` times its type's precision above an edge lies on it: the
        softmax of ``log 0.6`` may be the float64 after 0.6, and the float32 nearest to 0.2 is above 0.2.
    """
    below = 1.0 + num_bins * ROUNDING * torch.finfo(values.dtype).eps
    return torch.mul(values, float(num_bins)).sub_(below).ceil_().clamp_(0, num_bins - 1).long()


def equal_width_edges(num_bins: int) -> Tensor:
    """Return ``num_bins + 1`` edges from 0 to 1, each the float64 nearest to ``b / num_bins``."""
    return torch.arange(num_bins + 1, dtype=torch.float64, device="cpu") / num_bins


_ECE = OnePass(EqualWidth, lambda bins: mean_gap(bins.table()))


@METRICS.register(
    "ece",
    order=50,
    title="ECE",
    zero_if_calibrated=True,
    paper="Naeini, Cooper & Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning",
    one_pass=_ECE,
)
def expected_calibration_error(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Expected calibration error of the predicted class, ``sum_b n_b / N * |accuracy_b - confidence_b|``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1. Bin ``(a, b]``; 0 belongs to the first.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        Biased upward: with finite ``N`` it is above zero for perfectly calibrated predictions too.

    Example:
        >>> expected_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Naeini et al. 2015; for networks Guo et al. 2017, "On calibration of modern neural networks", section 2.
    """
    return _ECE(predictions, num_bins=num_bins)
