"""Decomposition of the Brier score into calibration, refinement and within-bin terms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import check_count
from fedlas.metrics.classwise import ClassTable, ClasswiseSums
from fedlas.metrics.metric import METRICS
from fedlas.metrics.scan import scan
from fedlas.metrics.sums import RowMean, effective_count, nonzero
from fedlas.predictions.any_predictions import require_predictions

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions


@dataclass(frozen=True)
class BrierDecomposition:
    """Decomposition of the Brier score, ``brier = calibration + refinement + within_bins``.

    Attributes:
        brier: The Brier score, summed over classes; of two classes that of one, as :func:`brier`.
        calibration: Squared distance of probability and frequency, averaged over bins and summed over classes alike.
        refinement: Variance of the labels that is left in the bins: what would stay if every bin were calibrated.
        within_bins: What bins do not see: the variance of the probabilities in a bin, less twice their covariance with
            the labels. Negative where probabilities rank the samples of a bin rightly.
        calibration_bias: Estimate of how much of ``calibration`` is chance, and missing in ``refinement``.
    """

    brier: float
    calibration: float
    refinement: float
    within_bins: float
    calibration_bias: float


def calibration_part(table: ClassTable) -> FloatArray:
    """Return ``1 / N * sum_cb n_cb * (p_cb - y_cb)**2``, with mean probability ``p`` and mean label ``y`` per bin."""
    count = table.count()
    # With sums in place of means, the count divides once; empty bins are divided by 1 and left out.
    squares = (table.probs - table.labels) ** 2 / nonzero(count)
    return np.where(count > 0, squares, 0.0).sum(axis=-1) / _normalizer(table)


def refinement_part(table: ClassTable) -> FloatArray:
    """Return the refinement, ``1 / N * sum_cb n_cb * y_cb * (1 - y_cb)``, with mean label ``y`` per bin."""
    return _outcome_variance(table).sum(axis=-1) / _normalizer(table)


def calibration_bias(table: ClassTable, squares: FloatArray) -> float:
    """Return ``1 / N * sum_cb n_cb * y_cb * (1 - y_cb) / (n_cb - 1)``, skipping bins with one sample."""
    # The last `n_cb` is the effective number of samples, from the sums of their squared weights `squares`.
    samples = effective_count(table.count(), squares)
    bias = _outcome_variance(table) / nonzero(samples - 1.0, least=1e-9)
    return float(bias.sum() / _normalizer(table))


def _normalizer(table: ClassTable) -> float:
    """Return the divisor of sums over classes: ``N``, or ``2 N`` with two classes, whose terms are equal."""
    return table.num_samples * (2 if table.num_classes == 2 else 1)


def _outcome_variance(table: ClassTable) -> FloatArray:
    return table.labels * (1.0 - table.labels / nonzero(table.count()))


_SHARED_FIELDS: dict[str, Any] = {
    "percent": False,
    "between": (0, 2),
    "default": False,
    "paper": "Murphy 1973, A new vector partition of the probability score",
    "statistic": ClasswiseSums,
    "takes_replicates": True,
}
"""What the records of the parts have in common."""


def brier_decomposition(predictions: Predictions, *, num_bins: int = 15) -> BrierDecomposition:
    """Return the Brier score as the sum of calibration, refinement and within-bin terms.

    For each class the samples are put into bins of the class's probability; the terms are those of the class's own
    two-valued Brier score, summed over classes like :func:`brier` itself.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1, as in classwise ECE.

    Returns:
        The parts; ``calibration + refinement + within_bins`` is the score.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        With finite ``N`` the calibration term is biased upward and refinement downward by as much: a bin of few
        samples fits its own labels. ``calibration_bias`` estimates it as the variance of the bins' frequencies, with
        bins of one sample left out.

        Without bins the two-term form is exact when samples count as alike only if *all* their probabilities are equal
        (DeGroot & Fienberg 1983). The logits of a network hardly ever are, so every sample would be its own group,
        with a refinement of 0: that form has no content here and is not offered.

    Example:
        >>> from fedlas import Predictions
        >>> parts = brier_decomposition(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 1]))
        >>> parts.brier, parts.calibration, parts.refinement, parts.within_bins
        (0.25, 0.0, 0.25, 0.0)

    Source:
        Murphy 1973; the terms within bins are those of Stephenson, Coelho & Jolliffe 2008, "Two extra components in the
        Brier score decomposition"; the bias as in Bröcker 2012, "Estimating reliability and resolution of probability
        forecasts through decomposition of the empirical score".
    """
    predictions = require_predictions(predictions)
    sums = ClasswiseSums(predictions, check_count("num_bins", num_bins))
    errors = RowMean(lambda chunk: chunk.squared_error)
    scan(predictions, [sums, errors])
    table = sums.table()
    brier = errors.table()
    calibration = float(calibration_part(table))
    refinement = float(refinement_part(table))
    # The last part is what remains, so that the three add up to the score.
    within = brier - calibration - refinement
    squares = table.count()
    if predictions.weights is not None:
        squared = replace(predictions, weights=predictions.weights**2)
        squares = ClasswiseSums.from_predictions(squared, num_bins).table().count()
    bias = calibration_bias(table, squares)
    return BrierDecomposition(brier, calibration, refinement, within, bias)


@METRICS.register(
    "brier_calibration",
    order=180,
    title="Brier calibration",
    formula=calibration_part,
    squares=True,
    zero_if_calibrated=True,
    **_SHARED_FIELDS,
)
def brier_calibration(predictions: Predictions, *, num_bins: int = 15) -> float:
    """Calibration part of the Brier score: see :func:`brier_decomposition`.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width, at least 1.

    Returns:
        A number in ``[0, 2]``, biased upward.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        With few samples in most cells nearly all of it is chance. Both ends of its interval take off what is chance,
        so the number itself lies above its own interval then.

    Example:
        >>> from fedlas import Predictions
        >>> brier_calibration(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.25
    """
    return float(calibration_part(ClasswiseSums.from_predictions(predictions, num_bins).table()))


@METRICS.register(
    "brier_refinement",
    order=190,
    title="Brier refinement",
    formula=refinement_part,
    **_SHARED_FIELDS,
)
def brier_refinement(predictions: Predictions, *, num_bins: int = 15) -> float:
    """Refinement part of the Brier score: see :func:`brier_decomposition`.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width, at least 1.

    Returns:
        A number in ``[0, 1]``, biased downward.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Example:
        >>> from fedlas import Predictions
        >>> brier_refinement(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 1]))
        0.25
    """
    return float(refinement_part(ClasswiseSums.from_predictions(predictions, num_bins).table()))
