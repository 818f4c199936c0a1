"""Calibration errors of the predicted class: does a confidence of 0.8 come true four times in five?"""

from __future__ import annotations

import numpy as np
import torch

from fedlas._core.check import check_choice
from fedlas.metrics.base import METRICS, Approximation, OnePass, Variant
from fedlas.metrics.binning import BinSums, BinTable, EqualMass, EqualWidth, mean_gap
from fedlas.metrics.grids import FineGrid
from fedlas.metrics.ranking import Floats, equal_mass_gaps
from fedlas.metrics.weighted import nonzero, refuse_weights
from fedlas.predictions import Predictions, TopLabel


def _reference_adaptive(statistic: EqualMass) -> float:
    """Bins between interpolated order statistics, open below even at the first: the least confident belongs to none."""
    refuse_weights("adaptive_ece", statistic)
    samples, ordered = len(statistic.confidence), np.sort(statistic.confidence.numpy())
    edges = np.interp(np.linspace(0, samples, statistic.num_bins + 1), np.arange(samples), ordered)
    inside = statistic.confidence > torch.from_numpy(edges[:1]).to(statistic.confidence.dtype)
    sums = BinSums(torch.from_numpy(edges))
    sums.add(statistic.confidence[inside], statistic.correct[inside])
    return float(np.abs(sums.table().gaps).sum()) / samples


def largest_gap(bins: BinTable) -> Floats:
    """``max_b |confidence_b - accuracy_b|`` over the bins that are not empty ``(...,)``."""
    # A count of 1 leaves an empty bin out: it has no gap either.
    return (np.abs(bins.gaps) / nonzero(bins.count)).max(axis=-1)


def _fine_cut(grid: FineGrid) -> float:
    runs = grid.ranking()
    return float(np.abs(equal_mass_gaps(runs, grid.num_bins)).sum()) / runs.num_samples


def _fine_cut_error(grid: FineGrid) -> float:
    runs = grid.ranking()
    return runs.equal_mass_error(grid.num_bins) / runs.num_samples


_ECE = OnePass("expected_calibration_error", EqualWidth, lambda bins: mean_gap(bins.table()))
_MCE = OnePass("maximum_calibration_error", EqualWidth, lambda bins: largest_gap(bins.table()))
_FINE = Approximation(OnePass("adaptive_ece", FineGrid, _fine_cut), _fine_cut_error)
_ADAPTIVE = {
    "exact": OnePass("adaptive_ece", EqualMass, lambda bins: mean_gap(bins.table())),
    "reference": OnePass("adaptive_ece", EqualMass, _reference_adaptive),
}


@METRICS.register(
    "ece",
    title="ECE",
    higher_is_better=False,
    percent=True,
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


@METRICS.register(
    "adaptive_ece",
    title="Adaptive ECE",
    higher_is_better=False,
    percent=True,
    zero_if_calibrated=True,
    paper="Nguyen & O'Connor 2015, Posterior calibration and exploratory analysis for NLP models",
    one_pass=_ADAPTIVE["exact"],
    streaming=_FINE,
)
def adaptive_ece(predictions: Predictions | TopLabel, *, num_bins: int = 15, variant: Variant = "exact") -> float:
    """ECE over bins of equal mass: the sorted confidences are cut at ranks into bins of (almost) equal counts.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins, at least 1; may exceed ``N``.
        variant: ``"exact"``: every sample counts, and equal confidences are in the same bin (a cut among them moves
            to their nearer end). ``"reference"``: the published code, whose edges are interpolated order statistics and
            whose first bin is open below, so that the least confident sample is in no bin.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1, or for another variant.

    Note:
        Not ACE, which has such bins for the probability of every class:
        :func:`~fedlas.metrics.classwise_adaptive_calibration_error`.

        Keeps the confidences: ``O(N)`` memory. Streaming cuts between the cells of a fine grid instead, which moves
        every cut by less than a cell.

    Example:
        >>> adaptive_ece(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Nguyen & O'Connor 2015; for networks Mukhoti et al. 2020, "Calibrating deep neural networks using focal loss".
    """
    return _ADAPTIVE[check_choice("adaptive_ece", "variant", variant, _ADAPTIVE)](predictions, num_bins=num_bins)


@METRICS.register(
    "mce",
    title="MCE",
    higher_is_better=False,
    percent=True,
    zero_if_calibrated=True,
    paper="Naeini, Cooper & Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning",
    one_pass=_MCE,
)
def maximum_calibration_error(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Largest gap of any bin that is not empty, ``max_b |accuracy_b - confidence_b|``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width, as in :func:`expected_calibration_error`.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        Usually the gap of the bin with the fewest samples, so mostly noise; read it beside the counts.

    Example:
        >>> maximum_calibration_error(Predictions([[0.0, 0.0], [9.0, 0.0]], [1, 0]))
        0.5
    """
    return _MCE(predictions, num_bins=num_bins)
