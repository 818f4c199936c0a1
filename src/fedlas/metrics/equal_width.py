"""Expected calibration error (ECE) over equal-width bins.

``sum_b n_b / N * |accuracy_b - confidence_b|`` over ``B`` bins of confidence; all that it depends on is in this file.
For two classes ``"ece"`` is that of the event's probability, as in ``classwise.py``.

- Edges: bin ``b`` is ``(b / B, (b + 1) / B]``, and 0 belongs to the first (:func:`equal_width_index`).
- Ties: of equal logits the first class is predicted; a confidence that rounding moved across an edge lies on the edge.
- Weights: sums over samples are weighted sums, ``N`` is the sum of the weights, and a weight is 1 where none is passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.metric import METRICS, metric_value, resolve_metric
from fedlas.metrics.sums import ROUNDING, CellSums, Sums, effective_count
from fedlas.predictions.any_predictions import require_top_label

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.types import FloatArray, IntArray
    from fedlas.metrics.scan import Chunk
    from fedlas.predictions import Predictions, TopLabel


@dataclass(frozen=True, eq=False)
class Bins:
    """Mean confidence and accuracy per bin; arrays, float64 except ``count`` without weights.

    Attributes:
        edges: ``(B + 1,)`` from 0 to 1, ascending. Bin ``b`` is ``(edges[b], edges[b + 1]]``; 0 belongs to the first.
            Bins of equal mass can have equal edges, and are then empty.
        count: Samples in each bin ``(B,)`` int64; they add up to ``N``. With weights, float64 sums of these, scaled to
            add up to the number of samples of a weight above 0.
        confidence: Mean confidence ``(B,)``, NaN where the bin is empty.
        accuracy: Share of correct predictions ``(B,)``, NaN where the bin is empty.
        effective_count: Equally weighted samples that would make ``accuracy`` as sure ``(B,)``; ``count`` itself
            without weights.
    """

    edges: FloatArray
    count: FloatArray | IntArray
    confidence: FloatArray
    accuracy: FloatArray
    effective_count: FloatArray | IntArray

    @property
    def num_bins(self) -> int:
        """Number of bins ``B``, including empty ones."""
        return len(self.count)


@dataclass(frozen=True, eq=False)
class BinTable:
    """Sums over bins of confidence, the input of calibration errors: float64 arrays ``(..., B)``."""

    # A leading axis counts replicates of the samples; an array in which all of them agree may have 1 there.

    # Samples of each bin, 0 if it is empty.
    count: FloatArray
    # Sum of `confidence - outcome`: positive where the confidence is too high.
    gaps: FloatArray
    # Sum of the outcomes: 0 or 1 for wrong and right, or their known probability.
    outcome: FloatArray
    # `N`, of all bins together.
    num_samples: float
    # Sum of the squared weights of each bin, where all others are weighted sums.
    squares: FloatArray

    @property
    def effective_count(self) -> FloatArray:
        """Effective sample size of each bin: the number of equally weighted samples with the same variance."""
        return effective_count(self.count, self.squares)


def mean_gap(bins: BinTable) -> FloatArray:
    """Return ``sum_b n_b / N * |confidence_b - outcome_b|``: the ECE over these bins ``(...,)``."""
    return np.abs(bins.gaps).sum(axis=-1) / bins.num_samples


def bins_from_table(edges: FloatArray, table: BinTable, nonzero_count: float | None = None) -> Bins:
    """Return the means of a table of sums; weighted counts are scaled to ``nonzero_count``, the samples with weight."""
    scale = 1.0 if nonzero_count is None else nonzero_count / table.num_samples
    count = table.count * scale
    with np.errstate(invalid="ignore"):  # empty bins
        confidence, accuracy = (
            each * scale / count for each in (table.gaps + table.outcome, table.outcome)
        )
    if nonzero_count is None:
        whole = count.astype(np.int64)
        return Bins(edges, whole, confidence, accuracy, whole)
    return Bins(edges, count, confidence, accuracy, table.effective_count)


class BinSums(Sums):
    """Sums over equal-width bins of confidence, for any outcome."""

    def __init__(self, num_bins: int) -> None:
        self.num_bins = num_bins
        self.sums = CellSums(num_bins, "confidence", "outcome", "squares", "rows")

    def add(self, confidence: Tensor, outcome: Tensor, weights: Tensor) -> None:
        """Add samples with ``confidence (n,)``, ``outcome (n,)``, bool or float, and ``weights (n,)``."""
        index = equal_width_index(confidence, self.num_bins)
        terms = (weights * confidence, weights * outcome, weights**2, (weights > 0).double())
        self.sums.add(index, weights, *terms)

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        self.add(chunk.confidence, chunk.correct, chunk.weights)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums ``(5, B)``."""
        return {"sums": self.sums.values}

    def is_consistent(self, samples: float, *, weighted: bool) -> bool:
        """Return whether the sums are consistent with this number of samples."""
        return self.sums.is_consistent(samples, weighted=weighted)

    def table(self) -> BinTable:
        """Return the sums as a :class:`BinTable`."""
        count, confidence, outcome, squares, _ = self.sums.arrays()
        return BinTable(count, confidence - outcome, outcome, float(count.sum()), squares)

    def bins(self, *, weighted: bool = False) -> Bins:
        """Return mean confidence and accuracy per bin."""
        rows = float(self.sums.values[-1].sum()) if weighted else None
        return bins_from_table(equal_width_edges(self.num_bins), self.table(), rows)


class EqualWidth(BinSums):
    """Statistic: sums over equal-width bins of confidence, with correctness as the outcome."""

    top_label = True

    def __init__(self, _predictions: object, num_bins: int) -> None:
        super().__init__(num_bins)


def equal_width_index(values: Tensor, num_bins: int) -> Tensor:
    """Return the index of the bin ``(b / B, (b + 1) / B]`` of each value in ``[0, 1]``, int64; 0 is in the first."""
    import torch

    # A value up to `ROUNDING` times its type's precision above an edge lies on it: the softmax of `log 0.6` may be the
    # float64 after 0.6, and the float32 nearest to 0.2 is above 0.2.
    below = 1.0 + num_bins * ROUNDING * torch.finfo(values.dtype).eps
    return torch.mul(values, float(num_bins)).sub_(below).ceil_().clamp_(0, num_bins - 1).long()


def equal_width_edges(num_bins: int) -> FloatArray:
    """Return ``num_bins + 1`` edges from 0 to 1, each the float64 nearest to ``b / num_bins``."""
    edges: FloatArray = np.arange(num_bins + 1) / num_bins
    return edges


@METRICS.register(
    "ece",
    order=50,
    title="ECE",
    zero_if_calibrated=True,
    paper="Naeini, Cooper & Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning",
    statistic=EqualWidth,
    formula=mean_gap,
    of_event="classwise_ece",
    takes_replicates=True,
)
def ece(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Expected calibration error of the predicted class or, with two classes, of the event's probability.

    ``sum_b n_b / N * |frequency_b - probability_b|``: the frequency of right predictions and the mean confidence of bin
    ``b``, or the frequency of the event and its mean probability.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1. Bin ``(a, b]``; 0 belongs to the first.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        Biased upward: with finite ``N`` it is above zero for perfectly calibrated predictions too.

        Both of two classes have the same, so that no event has to be named. That of their predicted class, which some
        libraries compute, is :func:`top_label_ece`.

    Example:
        >>> from fedlas import Predictions
        >>> ece(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Naeini et al. 2015, who bin the probability of one of two classes; for networks Guo et al. 2017, "On calibration
        of modern neural networks", section 2, who bin the confidence.
    """
    predictions = require_top_label(predictions)
    entry = resolve_metric("ece", predictions)
    return metric_value(
        entry, (entry.statistic or EqualWidth).from_predictions(predictions, num_bins)
    )


@METRICS.register(
    "top_label_ece",
    order=55,
    title="Top-label ECE",
    default=False,
    default_of_two=True,
    zero_if_calibrated=True,
    paper="Guo et al. 2017, On calibration of modern neural networks",
    statistic=EqualWidth,
    formula=mean_gap,
    takes_replicates=True,
)
def top_label_ece(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """ECE of the predicted class, ``sum_b n_b / N * |accuracy_b - confidence_b|``, also with two classes.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1. Bin ``(a, b]``; 0 belongs to the first.

    Returns:
        A fraction in ``[0, 1]``; but for two classes that of :func:`ece`.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        For two classes the confidence is at least one half: samples that are too sure of the event, and others that are
        too sure of the other class, share a bin.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 2.0], [2.0, 0.0]], [1, 1])
        >>> round(top_label_ece(p), 3), round(ece(p), 3)
        (0.381, 0.5)

    Source:
        Guo et al. 2017, section 2.
    """
    return float(mean_gap(EqualWidth.from_predictions(predictions, num_bins).table()))
