"""Calibration of parts: of every class's own probability, and of the predicted class in groups of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe
from fedlas.metrics.binning import BinSums, EqualMass, equal_width_edges
from fedlas.metrics.classwise import ClasswiseSums
from fedlas.metrics.scan import check_predictions, scan
from fedlas.metrics.signed import over_gap, under_gap
from fedlas.predictions import Predictions


@dataclass(frozen=True)
class ClassCalibration:
    """How well one class's probability agrees with how often the class is the label.

    Attributes:
        label: The class.
        num_labels: Samples of the class.
        frequency: Their share of all samples.
        mean_probability: Mean probability of the class over all samples.
        ece: ECE of the probability; the mean over all classes is the classwise ECE.
    """

    label: int
    num_labels: int
    frequency: float
    mean_probability: float
    ece: float

    @property
    def gap(self) -> float:
        """``mean_probability - frequency``: positive where the class is predicted too often on the whole."""
        return self.mean_probability - self.frequency


@dataclass(frozen=True)
class GroupCalibration:
    """Accuracy and calibration of the predicted class in one group of samples.

    Attributes:
        num_samples: Samples in the group.
        accuracy: Share of correct predictions.
        confidence: Mean confidence.
        ece: ECE within the group.
        o_ece: Its part from bins that are too confident.
        u_ece: Its part from the others.
    """

    num_samples: int
    accuracy: float
    confidence: float
    ece: float
    o_ece: float
    u_ece: float

    @property
    def gap(self) -> float:
        """``confidence - accuracy``: positive where the model is too confident."""
        return self.confidence - self.accuracy


def calibration_by_class(predictions: Predictions, *, num_bins: int = 15) -> dict[int, ClassCalibration]:
    """Classwise calibration, class by class: is ``p_c`` the probability that ``c`` is the label?

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.

    Returns:
        One entry for each of the ``C`` classes, in their order, those without labels included.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        All samples count for every class, so these numbers are as noisy as ``N`` makes them. For the calibration of
        what is predicted as a class, group by that: ``calibration_by_group(predictions, predictions.predicted)``.

    Example:
        >>> table = calibration_by_class(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        >>> table[1].frequency, table[1].mean_probability, table[1].ece
        (1.0, 0.5, 0.5)
    """
    check_predictions("calibration_by_class", predictions)
    sums = ClasswiseSums(predictions, check_count("calibration_by_class", "num_bins", num_bins))
    scan(predictions, [sums])
    return class_table(sums)


def class_table(sums: ClasswiseSums) -> dict[int, ClassCalibration]:
    """The table of what :class:`ClasswiseSums` gathered."""
    samples = sums.num_samples
    labels, probs = sums.labels.sum(dim=1).tolist(), sums.probs.sum(dim=1).tolist()
    gaps = sums.gaps.abs().sum(dim=1).tolist()
    return {
        label: ClassCalibration(label, count, count / samples, total / samples, gap / samples)
        for label, (count, total, gap) in enumerate(zip(labels, probs, gaps, strict=True))
    }


def calibration_by_group(
    predictions: Predictions, groups: Tensor | np.ndarray[Any, Any] | Sequence[Any], *, num_bins: int = 15
) -> dict[Any, GroupCalibration]:
    """Accuracy and calibration of the predicted class in each group of samples.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        groups: Group of each sample ``(N,)``: integers, strings or anything NumPy can sort, such as a hospital, a
            camera, ``predictions.predicted`` or ``predictions.target``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1; the same for all groups.

    Returns:
        One entry for each group that occurs, sorted by group.

    Raises:
        InputError: If there is not one group for each sample, or ``num_bins`` is below 1.

    Note:
        Small groups have a large ECE by chance alone: compare it between groups of like size, or with the noise floor;
        ``gap`` has no such bias. A calibrated model is calibrated in groups made of its inputs only if it knows what
        distinguishes them, and never in groups made of the label: it cannot know that.

    Example:
        >>> p = Predictions([[0.0, 0.0], [9.0, 0.0], [9.0, 0.0]], [1, 0, 0])
        >>> table = calibration_by_group(p, ["hard", "easy", "easy"])
        >>> list(table), table["hard"].gap, table["hard"].num_samples
        (['easy', 'hard'], 0.5, 1)
    """
    check_predictions("calibration_by_group", predictions)
    check_count("calibration_by_group", "num_bins", num_bins)
    given = np.asarray(groups.cpu() if isinstance(groups, Tensor) else groups)
    if given.shape != (predictions.num_samples,):
        raise InputError(
            "calibration_by_group",
            f"groups must be ({predictions.num_samples},), one for each sample",
            describe(given),
            "Pass the group of every sample, in the order of the logits.",
        )
    names, number = np.unique(given, return_inverse=True)
    samples = EqualMass(predictions, num_bins)
    scan(predictions, [samples])
    order = torch.from_numpy(np.argsort(number, kind="stable"))
    sizes = np.bincount(number).tolist()
    parts = zip(samples.confidence[order].split(sizes), samples.correct[order].split(sizes), strict=True)
    return {name: _in_group(*part, num_bins) for name, part in zip(names.tolist(), parts, strict=True)}


def _in_group(confidence: Tensor, correct: Tensor, num_bins: int) -> GroupCalibration:
    sums = BinSums(equal_width_edges(num_bins))
    sums.add(confidence, correct)
    samples = sums.num_samples
    return GroupCalibration(
        samples,
        float(sums.outcome.sum()) / samples,
        float(sums.confidence.sum()) / samples,
        sums.mean_gap(),
        over_gap(sums),
        under_gap(sums),
    )
