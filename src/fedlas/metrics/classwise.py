"""Classwise calibration error: are all the probabilities right, and not only the highest one?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas.metrics.base import METRICS, OnePass
from fedlas.metrics.binning import bin_index, equal_width_edges
from fedlas.metrics.exact import ExactSum
from fedlas.metrics.ranking import Floats
from fedlas.metrics.scan import PROB_BITS, Chunk
from fedlas.metrics.weighted import counts_for, has_weights, refuse_weights
from fedlas.predictions import Predictions


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Sums over every class and bin of its probability: arrays ``(..., C * B)`` float64, the bins of a class together.

    A leading axis counts replicates of the samples; an array in which all of them agree may have 1 there.

    Attributes:
        probs: Sum of the probabilities of the class that are in the bin.
        labels: How many of these samples have the class as label.
        count: How many there are, computed when asked for.
        num_samples: ``N``, of all bins of a class together.
        num_classes: ``C``.
        squares: Sum of the squared weights of each bin; None if every sample counts once.

    With weights all of these are weighted sums, and ``num_samples`` is the sum of the weights.
    """

    probs: Floats
    labels: Floats
    count: Callable[[], Floats]
    num_samples: float
    num_classes: int
    squares: Floats | None = None


def mean_over_classes(table: ClassTable) -> Floats:
    """``1 / C * sum_c sum_b |gap_cb| / N`` ``(...,)``."""
    return np.abs(table.probs - table.labels).sum(axis=-1) / (table.num_samples * table.num_classes)


def errors_by_class(table: ClassTable) -> Floats:
    """``sum_b |gap_cb| / N`` of each class ``(..., C)``."""
    gaps = np.abs(table.probs - table.labels)
    return gaps.reshape(*gaps.shape[:-1], table.num_classes, -1).sum(axis=-1) / table.num_samples


class ClasswiseSums:
    """Statistic: for each class and bin, sums over the samples whose probability of the class is in the bin.

    A row of probabilities adds up to 1, so fewer than ``num_bins`` of its entries are beyond the first bin. Only those
    are sorted into bins; the first bin is what they leave of the column's sum.

    Args:
        predictions: Any with as many classes as those to come, and weights if they have.
        num_bins: ``B``.

    Attributes:
        weights: :class:`WeightedClasses`, which takes all samples in where they have weights; else None.
    """

    takes_weights = True

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        self.shape = (predictions.num_classes, num_bins)
        self.edges = equal_width_edges(num_bins)
        cells = predictions.num_classes * num_bins
        self.weights = WeightedClasses(self.shape, self.edges) if has_weights(predictions) else None
        self._probs = ExactSum(cells)
        self._beyond, self._labels = (torch.zeros(cells, dtype=torch.int64, device="cpu") for _ in range(2))
        self._underflowed = torch.zeros(predictions.num_classes, dtype=torch.int64, device="cpu")
        self._rows = torch.zeros(1, dtype=torch.int64, device="cpu")

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        if self.weights is not None:
            self.weights.update(chunk)
            return
        classes, num_bins = self.shape
        first = torch.arange(classes, device="cpu") * num_bins
        self._probs.add_fixed(chunk.class_sums, first, bits=PROB_BITS)
        if num_bins > 1:
            beyond = _above(chunk.probs, float(self.edges[1].to(chunk.probs.dtype)))
            probs, first = chunk.probs.view(-1)[beyond].cpu(), beyond.cpu() % classes * num_bins
            cell, units = first + bin_index(probs, self.edges), (probs * 2.0**PROB_BITS).round().long()
            self._probs.add_fixed(units, cell, bits=PROB_BITS)
            self._probs.add_fixed(-units, first, bits=PROB_BITS)
            self._beyond.index_add_(0, cell, torch.ones_like(cell))
        cell = chunk.target * num_bins + bin_index(chunk.target_probs, self.edges)
        self._labels.index_add_(0, cell, torch.ones_like(cell))
        self._underflowed += torch.bincount(chunk.target[chunk.target_probs == 0], minlength=classes)
        self._rows += len(cell)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        if self.weights is not None:
            return self.weights.tensors()
        return {
            "probs": self._probs.digits,
            "beyond": self._beyond,
            "labels": self._labels,
            "underflowed": self._underflowed,
            "rows": self._rows,
        }

    @property
    def num_samples(self) -> int:
        """``N``."""
        return int(self._rows)

    @property
    def count(self) -> Tensor:
        """Samples ``(C, B)`` int64; every row adds up to ``N``."""
        count = self._beyond.view(self.shape).clone()
        count[:, 0] = self.num_samples - count.sum(dim=1)
        return count

    @property
    def probs(self) -> Tensor:
        """Sum of the class's probability ``(C, B)`` float64."""
        return self._probs.floats().view(self.shape)

    @property
    def labels(self) -> Tensor:
        """Samples of which the class is the label ``(C, B)`` int64."""
        return self._labels.view(self.shape)

    def table(self) -> ClassTable:
        """The sums as formulas take them."""
        if self.weights is not None:
            return self.weights.table()
        probs, labels, count = (each.double().flatten().numpy() for each in (self.probs, self.labels, self.count))
        return ClassTable(probs, labels, lambda: count, self.num_samples, self.shape[0])

    @property
    def reference_gaps(self) -> Tensor:
        """As published: without classes beyond the last label, and with probabilities that underflowed in no bin."""
        gaps = self.probs - self.labels
        gaps[:, 0] += self._underflowed
        return gaps[: int(self.labels.sum(dim=1).nonzero().max()) + 1]


class WeightedClasses:
    """The same sums of samples with weights, in float64 and without the shortcut for the first bin.

    Args:
        shape: ``(C, B)``.
        edges: Of the bins, ``(B + 1,)``.
    """

    def __init__(self, shape: tuple[int, int], edges: Tensor) -> None:
        self.shape, self.edges = shape, edges
        cells = shape[0] * shape[1]
        self._probs, self._count, self._squares, self._labels = (counts_for(cells, True) for _ in range(4))
        self.num_labels = counts_for(shape[0], False)

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        if chunk.weights is None:
            return
        classes, num_bins = self.shape
        probs, weights = chunk.probs.cpu(), chunk.weights[:, None].expand(-1, classes)
        cell = bin_index(probs, self.edges) + torch.arange(classes, device="cpu") * num_bins
        own = cell.gather(1, chunk.target[:, None]).squeeze(1)
        cell = cell.reshape(-1)
        self._probs.index_add_(0, cell, (probs * weights).reshape(-1))
        self._count.index_add_(0, cell, weights.reshape(-1))
        self._squares.index_add_(0, cell, (weights**2).reshape(-1))
        self._labels.index_add_(0, own, chunk.weights)
        self.num_labels += torch.bincount(chunk.target[chunk.weights > 0], minlength=classes)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        return {
            "probs": self._probs,
            "count": self._count,
            "squares": self._squares,
            "labels": self._labels,
            "num_labels": self.num_labels,
        }

    def table(self) -> ClassTable:
        """The sums as formulas take them."""
        probs, count, squares, labels = (
            each.numpy() for each in (self._probs, self._count, self._squares, self._labels)
        )
        return ClassTable(probs, labels, lambda: count, float(labels.sum()), self.shape[0], squares)


def _above(probs: Tensor, edge: float) -> Tensor:
    """Flat positions of what is above ``edge``; NumPy finds them several times faster, where it can."""
    if probs.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(probs.numpy() > edge))
    return (probs > edge).view(-1).nonzero().squeeze(1)


def _reference(sums: ClasswiseSums) -> float:
    refuse_weights(_OWNER, sums)
    return float(sums.reference_gaps.abs().sum(dim=1).mean()) / sums.num_samples


_OWNER = "classwise_calibration_error"
_CLASSWISE = {
    "exact": OnePass(_OWNER, ClasswiseSums, lambda sums: mean_over_classes(sums.table())),
    "reference": OnePass(_OWNER, ClasswiseSums, _reference),
}


@METRICS.register(
    "classwise_ece",
    title="Classwise ECE",
    higher_is_better=False,
    percent=True,
    zero_if_calibrated=True,
    paper="Kull et al. 2019, Beyond temperature scaling: obtaining well-calibrated multiclass probabilities",
    one_pass=_CLASSWISE["exact"],
)
def classwise_calibration_error(predictions: Predictions, *, num_bins: int = 15, convention: str = "exact") -> float:
    """ECE of each class's probability against "is it the label?", averaged over the classes.

    ``1 / C * sum_c sum_b n_cb / N * |mean_{i in cb} (1[y_i = c] - p_ic)|``, where bin ``cb`` holds the samples whose
    ``p_ic`` is in bin ``b``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1. Bin ``(a, b]``; 0 belongs to the first.
        convention: ``"exact"``: the mean over all ``C`` columns of the logits. ``"reference"``: the published code,
            which averages over ``max(target) + 1`` classes and leaves out probabilities that are exactly 0.

    Returns:
        A fraction in ``[0, 1]``; of the order of ``1 / C``, so compare it between models, not between data sets.

    Raises:
        InputError: If ``num_bins`` is below 1, or for another convention.

    Example:
        >>> classwise_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Note:
        The static calibration error (SCE) of Nixon et al. 2019 is this number.

        Probabilities are rounded to multiples of 1e-12, so that sums of them do not depend on the order of samples.

    Source:
        Kull et al. 2019, section 2, where it is called classwise-ECE.
    """
    return _CLASSWISE[check_choice("classwise_calibration_error", "convention", convention, _CLASSWISE)](
        predictions, num_bins=num_bins
    )
