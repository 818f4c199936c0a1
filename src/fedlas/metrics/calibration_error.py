"""Adaptive ECE over equal-mass bins, maximum calibration error, and reliability bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import check_choice
from fedlas.metrics.equal_width import Bins, BinTable, EqualWidth, bins_from_table
from fedlas.metrics.grids import FineGrid
from fedlas.metrics.metric import METRICS, VARIANTS, Variant
from fedlas.metrics.ranking import (
    CellRuns,
    SampleRuns,
    equal_mass_error,
    equal_mass_indices,
    sort_samples,
    sum_between_cuts,
)
from fedlas.metrics.sums import Statistic, check_no_weights, nonzero, normalized_weights
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import AnyPredictions, require_top_label

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.scan import Chunk

Scheme = Literal["equal-width", "equal-mass"]


def equal_mass_bins(
    confidence: NDArray[Any],
    outcome: NDArray[np.bool_],
    num_bins: int,
    weights: FloatArray | None = None,
) -> tuple[FloatArray, BinTable]:
    """Return edges and sums of bins with counts as equal as ties allow."""
    # The sorted sample is cut at the ranks that make the counts differ by at most one, the larger first. A cut that
    # falls among equal values moves to the nearer end of them (the upper one if both are as near), so equal confidences
    # are never separated by their order in the file.
    values, right, share = sort_samples(confidence, outcome, weights)
    places = equal_mass_indices(values, share, num_bins)
    ends = np.concatenate(([0], places, np.full(num_bins - len(places), len(values))))
    weight = np.ones(len(values)) if share is None else share
    sums = sum_between_cuts(
        places[None], np.stack([weight, values * weight, right * weight, weight**2])
    )
    count, total, hits, squares = np.pad(sums, ((0, 0), (0, num_bins - 1 - len(places))))
    edges = np.zeros(num_bins + 1)
    edges[1:] = np.where(ends[1:] > 0, values[ends[1:] - 1], 0.0)
    edges[1 + len(places) :] = 1.0
    return edges, BinTable(count, total - hits, hits, len(values), squares)


class EqualMass(Statistic):
    """Statistic: all confidences and outcomes, as equal-mass bins need them sorted; ``O(N)`` memory."""

    # `weights (N,)` average 1 over those above 0; None if every sample counts once.

    takes_weights = True
    top_label = True
    streaming = FineGrid

    def __init__(self, predictions: AnyPredictions, num_bins: int) -> None:
        self.num_bins = num_bins
        scores = predictions.confidence if isinstance(predictions, TopLabel) else predictions.scores
        self.confidence = np.empty(predictions.num_samples, scores.dtype)
        self.correct = np.empty(predictions.num_samples, np.bool_)
        self.weights = normalized_weights(predictions)
        self._filled = 0

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        rows = slice(self._filled, self._filled + len(chunk.confidence))
        self.confidence[rows] = chunk.confidence
        self.correct[rows] = chunk.correct
        self._filled = rows.stop

    def table(self) -> SampleRuns:
        """Return the samples in runs of equal confidence."""
        return SampleRuns(self.confidence, self.correct, self.weights, self.num_bins)

    def bins(self, *, weighted: bool = False) -> Bins:
        """Return mean confidence and accuracy of equal-mass bins."""
        edges, table = equal_mass_bins(self.confidence, self.correct, self.num_bins, self.weights)
        return bins_from_table(edges, table, table.num_samples if weighted else None)


_SCHEMES: dict[str, type[EqualWidth | EqualMass]] = {
    "equal-width": EqualWidth,
    "equal-mass": EqualMass,
}


def reliability_bins(
    predictions: Predictions | TopLabel, *, num_bins: int = 15, scheme: Scheme = "equal-width"
) -> Bins:
    """Return mean confidence and accuracy in bins of confidence, as drawn in a reliability diagram.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins, at least 1.
        scheme: ``"equal-width"`` (bins of :func:`~fedlas.metrics.ece`) or ``"equal-mass"``
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
    statistic = _SCHEMES[check_choice("scheme", scheme, _SCHEMES)]
    predictions = require_top_label(predictions)
    return statistic.from_predictions(predictions, num_bins).bins(
        weighted=predictions.weights is not None
    )


def _reference_adaptive_ece(predictions: AnyPredictions, num_bins: int) -> float:
    """Return the published adaptive ECE: interpolated bin edges, with the lowest confidence in no bin."""
    check_no_weights(predictions)
    statistic = EqualMass.from_predictions(predictions, num_bins)
    confidence = statistic.confidence
    samples = len(confidence)
    edges = np.interp(
        np.linspace(0, samples, num_bins + 1), np.arange(samples), np.sort(confidence)
    )
    edges = edges.astype(confidence.dtype)
    inside = confidence > edges[0]
    gaps = (confidence.astype(np.float64) - statistic.correct)[inside]
    sums = np.bincount(np.searchsorted(edges[1:-1], confidence[inside]), gaps, num_bins)
    return float(np.abs(sums).sum()) / samples


def max_gap(bins: BinTable) -> FloatArray:
    """Return ``max_b |confidence_b - accuracy_b|`` over the non-empty bins ``(...,)``."""
    # A count of 1 leaves an empty bin out: it has no gap either.
    return (np.abs(bins.gaps) / nonzero(bins.count)).max(axis=-1)


@METRICS.register(
    "adaptive_ece",
    order=60,
    title="Adaptive ECE",
    zero_if_calibrated=True,
    paper="Nguyen & O'Connor 2015, Posterior calibration and exploratory analysis for NLP models",
    statistic=EqualMass,
    formula=equal_mass_error,
    takes_replicates=True,
    error=CellRuns.equal_mass_error_bound,
)
def adaptive_ece(
    predictions: Predictions | TopLabel, *, num_bins: int = 15, variant: Variant = "exact"
) -> float:
    """ECE over equal-mass bins of the sorted confidences, with counts that differ by at most one.

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
        :func:`~fedlas.metrics.ace`.

        Keeps the confidences: ``O(N)`` memory. Streaming cuts between the cells of a fine grid instead, which moves
        every cut by less than a cell.

    Example:
        >>> adaptive_ece(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Nguyen & O'Connor 2015; for networks Mukhoti et al. 2020, "Calibrating deep neural networks using focal loss".
    """
    if check_choice("variant", variant, VARIANTS) == "reference":
        return _reference_adaptive_ece(predictions, num_bins)
    return float(equal_mass_error(EqualMass.from_predictions(predictions, num_bins).table()))


@METRICS.register(
    "mce",
    order=70,
    title="MCE",
    zero_if_calibrated=True,
    paper="Naeini, Cooper & Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning",
    statistic=EqualWidth,
    formula=max_gap,
    takes_replicates=True,
)
def mce(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Maximum calibration error, ``max_b |accuracy_b - confidence_b|`` over the non-empty bins.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width, as in :func:`ece`.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        Usually the gap of the bin with the fewest samples, so mostly noise; read it beside the counts.

    Example:
        >>> mce(Predictions([[0.0, 0.0], [9.0, 0.0]], [1, 0]))
        0.5
    """
    return float(max_gap(EqualWidth.from_predictions(predictions, num_bins).table()))
