"""Classwise calibration error: are all the probabilities right, and not only the highest one?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import LARGEST, check_choice
from fedlas.metrics.ece import width_bin
from fedlas.metrics.ranking import Floats
from fedlas.metrics.scan import METRICS, Chunk, OnePass, Variant, in_units
from fedlas.metrics.sums import CellSums, has_weights, in_range, refuse_weights
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
    """Return ``1 / C * sum_c sum_b |gap_cb| / N`` ``(...,)``."""
    return np.abs(table.probs - table.labels).sum(axis=-1) / (table.num_samples * table.num_classes)


def errors_by_class(table: ClassTable) -> Floats:
    """Return ``sum_b |gap_cb| / N`` of each class ``(..., C)``."""
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
        cells = predictions.num_classes * num_bins
        self.weights = WeightedClasses(self.shape) if has_weights(predictions) else None
        self._probs = CellSums(cells, False)
        self._beyond, self._labels = (CellSums(cells, False, bits=0) for _ in range(2))
        self._underflowed, self._rows = (
            torch.zeros(size, dtype=torch.int64, device="cpu")
            for size in (predictions.num_classes, 1)
        )

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        if self.weights is not None:
            self.weights.update(chunk)
            return
        classes, num_bins = self.shape
        # The sum of each column goes to the first bin; then the entries beyond it move to theirs.
        by_class = self._probs.values.view(self.shape)
        by_class[:, 0] += chunk.class_sums
        if num_bins > 1:
            # all that are beyond the first bin, and few others
            probs, label = _above(chunk.probs, 0.99 / num_bins)
            units = in_units(probs)
            cell = label * num_bins + width_bin(probs, num_bins)
            self._probs.values.index_add_(0, cell, units)
            by_class[:, 0] -= torch.zeros(classes, dtype=torch.int64, device="cpu").index_add_(
                0, label, units
            )
            self._beyond.add(cell)
        self._labels.add(chunk.target * num_bins + width_bin(chunk.target_probs, num_bins))
        self._underflowed += torch.bincount(
            chunk.target[chunk.target_probs == 0], minlength=classes
        )
        self._rows += len(chunk.target)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums, see :class:`~fedlas.metrics.scan.Sums`."""
        if self.weights is not None:
            return self.weights.tensors()
        sums = {
            "probs": self._probs.values,
            "beyond": self._beyond.values,
            "labels": self._labels.values,
        }
        return {**sums, "underflowed": self._underflowed, "rows": self._rows}

    def possible(self, samples: int) -> bool:
        """Return whether ``samples`` samples can give these sums."""
        if self.weights is not None:
            return self.weights.possible(samples)
        counts = (self._beyond.values, self._underflowed)
        most = samples * (1 + 1e-6) + 1e-6  # probabilities are rounded
        return (
            self.num_samples == samples
            and self._labels.counts(samples)
            and in_range(self._probs.floats(), 0, most)
            and all(in_range(count, 0, samples) for count in counts)
        )

    @property
    def num_samples(self) -> int:
        """``N``."""
        return int(self._rows)

    @property
    def count(self) -> Tensor:
        """Samples ``(C, B)`` int64; every row adds up to ``N``."""
        count = self._beyond.values.view(self.shape).clone()
        count[:, 0] = self.num_samples - count[:, 1:].sum(dim=1)
        return count

    @property
    def probs(self) -> Tensor:
        """Sum of the class's probability ``(C, B)`` float64."""
        return self._probs.floats().view(self.shape)

    @property
    def labels(self) -> Tensor:
        """Samples of which the class is the label ``(C, B)`` int64."""
        return self._labels.values.view(self.shape)

    def table(self) -> ClassTable:
        """Return the sums as formulas take them."""
        if self.weights is not None:
            return self.weights.table()
        probs, labels, count = (
            each.double().flatten().numpy() for each in (self.probs, self.labels, self.count)
        )
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
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._sums = {
            name: torch.zeros(shape[0] * shape[1], dtype=torch.float64, device="cpu")
            for name in ("probs", "count", "squares", "labels")
        }
        self.num_labels = torch.zeros(shape[0], dtype=torch.int64, device="cpu")

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        if chunk.weights is None:
            return
        classes, num_bins = self.shape
        probs = chunk.probs.cpu()
        weights = chunk.weights[:, None].expand(-1, classes)
        cell = width_bin(probs, num_bins) + torch.arange(classes, device="cpu") * num_bins
        label_cell = cell.gather(1, chunk.target[:, None]).squeeze(1)
        cell = cell.reshape(-1)
        terms = {"probs": probs * weights, "count": weights, "squares": weights**2}
        for name, each in terms.items():
            self._sums[name].index_add_(0, cell, each.reshape(-1))
        self._sums["labels"].index_add_(0, label_cell, chunk.weights)
        self.num_labels += torch.bincount(chunk.target[chunk.weights > 0], minlength=classes)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums, see :class:`~fedlas.metrics.scan.Sums`."""
        return {**self._sums, "num_labels": self.num_labels}

    def possible(self, samples: int) -> bool:
        """Return whether ``samples`` samples can give these sums."""
        finite = all(in_range(values, 0, LARGEST) for values in self._sums.values())
        most = self._sums["count"] * (1 + 1e-6) + 1e-6  # probabilities are rounded
        parts = all(in_range(self._sums[name], 0, most) for name in ("probs", "labels"))
        return finite and parts and in_range(self.num_labels, 0, samples)

    def table(self) -> ClassTable:
        """Return the sums as formulas take them."""
        probs, count, squares, labels = (each.numpy() for each in self._sums.values())
        return ClassTable(probs, labels, lambda: count, float(labels.sum()), self.shape[0], squares)


def _above(probs: Tensor, edge: float) -> tuple[Tensor, Tensor]:
    """Return the entries of ``probs (n, C)`` above ``edge`` and their classes, ``(E,)`` on the CPU."""
    if probs.device.type != "cpu":
        row, label = (probs > edge).nonzero(as_tuple=True)
        return probs[row, label].cpu(), label.cpu()
    # NumPy finds them several times faster; a quotient is cheaper than a remainder.
    flat = probs.numpy().reshape(-1)
    classes = probs.shape[1]
    place = np.flatnonzero(flat > edge)
    return torch.from_numpy(flat[place]), torch.from_numpy(place - place // classes * classes)


def _reference(sums: ClasswiseSums) -> float:
    refuse_weights(sums)
    return float(sums.reference_gaps.abs().sum(dim=1).mean()) / sums.num_samples


_CLASSWISE = {
    "exact": OnePass(ClasswiseSums, lambda sums: mean_over_classes(sums.table())),
    "reference": OnePass(ClasswiseSums, _reference),
}


@METRICS.register(
    "classwise_ece",
    order=80,
    title="Classwise ECE",
    zero_if_calibrated=True,
    paper="Kull et al. 2019, Beyond temperature scaling: obtaining well-calibrated multiclass probabilities",
    one_pass=_CLASSWISE["exact"],
)
def classwise_calibration_error(
    predictions: Predictions, *, num_bins: int = 15, variant: Variant = "exact"
) -> float:
    """ECE of each class's probability against "is it the label?", averaged over the classes.

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
        >>> classwise_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Note:
        The static calibration error (SCE) of Nixon et al. 2019 is this number.

        Probabilities are rounded to multiples of 2e-10, so that sums of them do not depend on the order of samples.

    Source:
        Kull et al. 2019, section 2, where it is called classwise-ECE.
    """
    return _CLASSWISE[check_choice("variant", variant, _CLASSWISE)](predictions, num_bins=num_bins)
