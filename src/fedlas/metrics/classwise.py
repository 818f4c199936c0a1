"""Classwise ECE (SCE): calibration of every class's probability, not only of the predicted class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import check_choice
from fedlas.metrics.equal_width import equal_width_index
from fedlas.metrics.metric import METRICS, VARIANTS, Variant
from fedlas.metrics.sums import CellSums, Sums, check_no_weights, is_in_range

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.types import FloatArray
    from fedlas.metrics.scan import Chunk
    from fedlas.predictions import Predictions


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Sums over classes and bins of the class's probability: arrays ``(..., C * B)``, class by class."""

    # A leading axis counts replicates of the samples; an array in which all of them agree may have 1 there.

    probs: FloatArray
    labels: FloatArray
    count: Callable[[], FloatArray]
    num_samples: float
    num_classes: int


def mean_class_error(table: ClassTable) -> FloatArray:
    """Return the mean calibration error of the classes, ``1 / C * sum_c sum_b |gap_cb| / N`` ``(...,)``."""
    return np.abs(table.probs - table.labels).sum(axis=-1) / (table.num_samples * table.num_classes)


def class_errors(table: ClassTable) -> FloatArray:
    """Return ``sum_b |gap_cb| / N`` for each class ``(..., C)``."""
    gaps = np.abs(table.probs - table.labels)
    return gaps.reshape(*gaps.shape[:-1], table.num_classes, -1).sum(axis=-1) / table.num_samples


class ClasswiseSums(Sums):
    """Statistic: sums over samples for each class and bin of its probability."""

    # A row of probabilities adds up to 1, so fewer than `num_bins` of its entries are beyond the first bin. Only those
    # are sorted into bins; the first bin is what they leave of the column's sum.

    def __init__(self, predictions: Predictions, num_bins: int) -> None:
        import torch

        self.shape = (predictions.num_classes, num_bins)
        cells = predictions.num_classes * num_bins
        self._cells = CellSums(cells, "probs", "labels")
        self.num_labels, self._underflowed = torch.zeros(
            2, predictions.num_classes, dtype=torch.float64, device="cpu"
        )

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        import torch

        classes, num_bins = self.shape
        sums = self._cells.values
        weights = chunk.weights
        target_bin = equal_width_index(chunk.target_probs, num_bins)
        # The sum of each column goes to the first bin; then the entries beyond it move to theirs.
        first = sums[:2].view(2, classes, num_bins)[:, :, 0]
        first[0] += weights.sum()
        first[1] += chunk.class_sums
        if num_bins > 1:
            # all that are beyond the first bin, and few others
            probs, row, label = _entries_above(chunk.probs, 0.99 / num_bins)
            weight = weights[row]
            terms = torch.stack([weight, weight * probs])
            cell = label * num_bins + equal_width_index(probs, num_bins)
            sums[:2].index_add_(1, cell, terms)
            first.index_add_(1, label, -terms)
            first.clamp_(min=0.0)  # rounding
        sums[2].index_add_(0, chunk.target * num_bins + target_bin, weights)
        self.num_labels.index_add_(0, chunk.target, (weights > 0).double())
        self._underflowed.index_add_(0, chunk.target, (chunk.target_probs == 0).double())

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums ``(3, C B)``, and the counts of labels and of underflowed probabilities ``(C,)``."""
        labels = {"num_labels": self.num_labels, "underflowed": self._underflowed}
        return {"sums": self._cells.values, **labels}

    def is_consistent(self, samples: float, *, weighted: bool) -> bool:
        """Return whether the sums are consistent with this number of samples."""
        counts = (self.num_labels, self._underflowed)
        numbers = all(is_in_range(count, 0, samples) for count in counts)
        return numbers and self._cells.is_consistent(
            samples, weighted=weighted, terms_per_sample=self.shape[0]
        )

    def table(self) -> ClassTable:
        """Return the sums as a :class:`ClassTable`."""
        count, probs, labels = self._cells.arrays()
        return ClassTable(probs, labels, lambda: count, float(labels.sum()), self.shape[0])

    def reference_gaps(self) -> FloatArray:
        """Return gaps ``(C, B)`` as published: no class above the last label, no bin for underflowed probabilities."""
        _, probs, labels = self._cells.arrays().reshape(3, *self.shape)
        gaps = probs - labels
        gaps[:, 0] += self._underflowed.numpy()
        return gaps[: int(np.flatnonzero(labels.sum(axis=1)).max()) + 1]


def _entries_above(probs: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries of ``probs (n, C)`` above ``threshold``, with row and class indices, ``(E,)`` on the CPU."""
    import torch

    if probs.device.type != "cpu":
        row, label = (probs > threshold).nonzero(as_tuple=True)
        return probs[row, label].cpu(), row.cpu(), label.cpu()
    # NumPy finds them several times faster; a quotient is cheaper than a remainder.
    flat = probs.numpy().reshape(-1)
    above = np.flatnonzero(flat > threshold)
    place = torch.from_numpy(above)
    row = place // probs.shape[1]
    return torch.from_numpy(flat[above]), row, place - row * probs.shape[1]


def _reference_classwise_ece(predictions: Predictions, num_bins: int) -> float:
    check_no_weights(predictions)
    sums = ClasswiseSums.from_predictions(predictions, num_bins)
    return float(np.abs(sums.reference_gaps()).sum(axis=1).mean()) / predictions.num_samples


@METRICS.register(
    "classwise_ece",
    order=80,
    title="Classwise ECE",
    default_of_two=False,
    zero_if_calibrated=True,
    paper="Kull et al. 2019, Beyond temperature scaling: obtaining well-calibrated multiclass probabilities",
    statistic=ClasswiseSums,
    formula=mean_class_error,
    takes_replicates=True,
)
def classwise_ece(
    predictions: Predictions, *, num_bins: int = 15, variant: Variant = "exact"
) -> float:
    """ECE of each class's probability against its frequency, averaged over the classes (also called SCE).

    ``1 / C * sum_c sum_b n_cb / N * |mean_{i in cb} (1[y_i = c] - p_ic)|``, where bin ``cb`` holds the samples whose
    ``p_ic`` is in bin ``b``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1. Bin ``(a, b]``; 0 belongs to the first.
        variant: ``"exact"``: the mean over all ``C`` columns of the logits. ``"reference"``: the published code,
            which averages over ``max(target) + 1`` classes and leaves out probabilities that are exactly 0.

    Returns:
        A fraction in ``[0, 1]``; of the order of ``1 / C``, so compare it between models, not between data sets.

    Raises:
        InputError: If ``num_bins`` is below 1, or for another variant.

    Example:
        >>> from fedlas import Predictions
        >>> classwise_ece(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Note:
        The static calibration error (SCE) of Nixon et al. 2019 is this number.

    Source:
        Kull et al. 2019, section 2, where it is called classwise-ECE.
    """
    if check_choice("variant", variant, VARIANTS) == "reference":
        return _reference_classwise_ece(predictions, num_bins)
    return float(mean_class_error(ClasswiseSums.from_predictions(predictions, num_bins).table()))
