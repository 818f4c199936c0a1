"""Calibration curves without bins (smooth or isotonic), and the consistency band of binned diagrams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedlas._core.check import check_choice, check_count
from fedlas.metrics import smooth_ece
from fedlas.metrics.equal_width import equal_width_index
from fedlas.metrics.sums import normalized_weights
from fedlas.predictions.any_predictions import drop_zero_weights, require_top_label
from fedlas.resample.effective import effective_sample_size
from fedlas.stats.cell_sums import CellResampler, OutcomeCells
from fedlas.stats.degrees import pointwise_interval
from fedlas.stats.estimates import CONFIDENCE_LEVEL
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.predictions import Predictions, TopLabel

Curve = Literal["smooth", "isotonic"]
_NUM_CELLS = 512
_NUM_POINTS = 201
_MIN_SCALE = 0.005
"""Least scale of the smoothing: below it the curve of a calibrated model shows single samples."""


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Accuracy as a function of confidence, with a 95 % band; float64 arrays ``(G,)``.

    Attributes:
        confidence: Ascending.
        accuracy: The curve.
        low: Lower end of the band: of the smooth curve's bootstrap interval; of the isotonic curve for a calibrated
            model (a consistency band, about the diagonal).
        high: Upper end.
    """

    confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray


def calibration_curve(
    predictions: Predictions | TopLabel,
    estimator: Curve = "smooth",
    *,
    replicates: int = 199,
    seed: int = 0,
) -> CalibrationCurve:
    """Estimate accuracy as a function of confidence, without bins.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        estimator: ``"smooth"``: the gap between outcome and confidence, smoothed over confidence by a reflected
            Gaussian on the scale that equals the smooth calibration error (at least 0.005). ``"isotonic"``: the best
            curve that never falls (pool adjacent violators), which has nothing to choose.
        replicates: Number for the band, at least 39.
        seed: The same seed draws the same replicates.

    Raises:
        InputError: For options out of range.

    Example:
        >>> from fedlas import TopLabel
        >>> top = TopLabel([0.6, 0.7, 0.8, 0.9] * 50, [False, True, True, True] * 50)
        >>> calibration_curve(top, "isotonic").accuracy.tolist()
        [0.0, 1.0, 1.0, 1.0]

    Source:
        Błasiok & Nakkiran 2024, "Smooth ECE" (arXiv 2309.12236), for the smooth diagram; Dimitriadis, Gneiting & Jordan
        2021, "Stable reliability diagrams for probabilistic classifiers" (PNAS 118), for the isotonic one (CORP).
    """
    check_choice("estimator", estimator, ("smooth", "isotonic"))
    check_count("replicates", replicates, low=39)
    check_count("seed", seed, low=0)
    predictions = require_top_label(predictions)
    cells, _ = _confidence_cells(predictions)
    draws = CellResampler(cells, replicates, seed)
    mean = cells.expected / cells.count
    if estimator == "smooth":
        scale = max(smooth_ece(predictions), _MIN_SCALE)
        points = np.linspace(mean[0], mean[-1], _NUM_POINTS)
        kernel = _reflected_kernel(mean[:, None], points, scale)
        counts, right = draws.draw_bootstrap()
        # The gaps are smoothed and added to the diagonal: smoothed outcomes would be flatter than they are.
        gaps = cells.positives - cells.expected
        curve = points + (gaps @ kernel) / (cells.count @ kernel)
        with np.errstate(invalid="ignore"):  # a replicate may leave a stretch empty
            curves = points + ((right - counts * mean) @ kernel) / (counts @ kernel)
        low, high = pointwise_interval(curves, CONFIDENCE_LEVEL, cells.degrees)
        return CalibrationCurve(points, curve, low, high)
    order = np.argsort(cells.probability, kind="stable")
    values, starts = np.unique(cells.probability[order], return_index=True)
    total, hits = (
        np.add.reduceat(each[order], starts)
        for each in (cells.weights, cells.weights * cells.outcome)
    )
    curve = _isotonic_regression(hits / total, total)
    curves = np.stack(
        [
            np.interp(values, mean[n > 0], _isotonic_regression(k[n > 0] / n[n > 0], n[n > 0]))
            for n, k in zip(*draws.draw_calibrated_bootstrap(), strict=True)
        ]
    )
    low, high = pointwise_interval(curves, CONFIDENCE_LEVEL, cells.degrees)
    return CalibrationCurve(values, curve, low, high)


def _confidence_cells(
    predictions: Predictions | TopLabel, num_bins: int | None = None
) -> tuple[OutcomeCells, IntArray]:
    """Group samples into cells of similar confidence, or bins, and return the indices of filled cells."""
    predictions = drop_zero_weights(predictions)[0]
    confidence = predictions.tensors().confidence
    values = confidence.double().numpy()
    cell = np.minimum((values * _NUM_CELLS).astype(np.int64), _NUM_CELLS - 1)
    if num_bins is not None:
        cell = equal_width_index(confidence, num_bins).numpy()
    filled, number = np.unique(cell, return_inverse=True)
    weights = normalized_weights(predictions)
    clusters = predictions.clusters
    cells = OutcomeCells(
        number,
        len(filled),
        values,
        predictions.correct.astype(np.float64),
        weights,
        None if clusters is None else np.unique(clusters, return_inverse=True)[1],
        effective_samples=None
        if weights is None
        else max(1, round(effective_sample_size(weights))),
    )
    return cells, filled


def _reflected_kernel(position: FloatArray, points: FloatArray, scale: float) -> FloatArray:
    """Return the unnormalized Gaussian kernel, reflected at 0 and 1, between positions and points."""
    images = (position, -position, 2.0 - position)
    # The exponent is bounded, so that no point is without weight: far from all samples the nearest decides.
    exponents = [np.minimum((points - each) ** 2 / (2.0 * scale**2), 700.0) for each in images]
    return np.asarray(sum(np.exp(-each) for each in exponents), dtype=np.float64)


def _isotonic_regression(values: FloatArray, weights: FloatArray) -> FloatArray:
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values, weights=weights).x, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ConsistencyBand:
    """Range of each bin's accuracy that is expected of a calibrated model.

    Attributes:
        low: Lower ends ``(B,)``, NaN where the bin is empty.
        high: Upper ends ``(B,)``.
        confidence_level: Share of calibrated models that lie within the range, one bin at a time.
    """

    low: FloatArray
    high: FloatArray
    confidence_level: float


def consistency_band(
    predictions: Predictions | TopLabel,
    *,
    num_bins: int = 15,
    confidence_level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> ConsistencyBand:
    """Return the consistency band of a reliability diagram: quantiles of each bin's accuracy under calibration.

    As in the paper, a replicate draws ``N`` confidences with replacement, and an outcome for each with that probability
    of being right. A sample of a bin is then right with probability equal to the mean confidence of the bin, so the
    numbers of samples in the bins are multinomial and the numbers of right ones binomial. They are drawn as such,
    without a loop. With clusters whole clusters are drawn, and the gaps of each keep or change their sign, see
    :mod:`fedlas.stats.cell_sums`.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; the target is used with
            clusters alone. Without clusters as many confidences are drawn as the weights are worth, see
            :func:`~fedlas.stats.effective_sample_size`.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        confidence_level: In ``(0, 1)``. With 15 bins, about every second diagram of a calibrated model has a bin
            outside a band of level 0.95.
        replicates: Number of replicates; a bin ignores those that leave it empty.
        seed: Seed of the draws.

    Raises:
        InputError: If an argument is out of range.

    Example:
        >>> from fedlas import Predictions
        >>> band = consistency_band(Predictions([[0.0, 0.0]] * 100, [0] * 100), num_bins=2)
        >>> bool(0.35 < band.low[0] < 0.45), bool(0.55 < band.high[0] < 0.65), bool(np.isnan(band.low[1]))
        (True, True, True)

    Source:
        Bröcker & Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting 22 (2007).
    """
    check_count("replicates", replicates, low=2)
    check_count("seed", seed, low=0)
    check_confidence_level(confidence_level)
    cells, filled = _confidence_cells(
        require_top_label(predictions), check_count("num_bins", num_bins)
    )
    counts, right = CellResampler(cells, replicates, seed).draw_calibrated_bootstrap()
    accuracy = np.where(counts > 0, right / np.where(counts > 0, counts, 1.0), np.nan)
    low = np.full(num_bins, np.nan)
    high = np.full(num_bins, np.nan)
    ends = pointwise_interval(accuracy, confidence_level, cells.degrees)
    low[filled], high[filled] = np.clip(ends, 0.0, 1.0)
    return ConsistencyBand(low, high, confidence_level)
