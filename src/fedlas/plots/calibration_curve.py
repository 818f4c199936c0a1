"""Accuracy as a curve over confidence, without bins: smoothed, or isotonic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import check_choice, check_count
from fedlas._core.extras import require
from fedlas.metrics import reliability_bins, smooth_ece
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import check_measurable
from fedlas.resample.effective import effective_samples
from fedlas.stats.intervals import check_level

Floats = NDArray[np.float64]
Curve = Literal["smooth", "isotonic"]
_CELLS = 512
_POINTS = 201
_NARROWEST = 0.005
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

    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats


def calibration_curve(
    predictions: Predictions | TopLabel,
    estimator: Curve = "smooth",
    *,
    replicates: int = 199,
    seed: int = 0,
) -> CalibrationCurve:
    """Estimate the accuracy at each confidence without bins.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        estimator: ``"smooth"``: the gap between outcome and confidence, smoothed over confidence by a reflected
            Gaussian on the scale that equals the smooth calibration error (at least 0.005). ``"isotonic"``: the best
            curve that never falls (pool adjacent violators), which has nothing to choose; needs scipy.
        replicates: Number for the band, at least 39.
        seed: The same seed draws the same replicates.

    Raises:
        InputError: For options out of range.
        MissingExtraError: For ``"isotonic"`` without scipy.

    Example:
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
    predictions = check_measurable(predictions)
    confidence = predictions.confidence.cpu().double().numpy()
    correct = predictions.correct.cpu().numpy()
    weights = (
        np.ones(len(confidence)) if predictions.weights is None else predictions.weights.numpy()
    )
    worth = (
        len(confidence)
        if predictions.weights is None
        else max(1, round(effective_samples(predictions.weights)))
    )
    # Cells of neighbors hold what the replicates need: sums of weights, of confidences and of right predictions.
    cell = np.minimum((confidence * _CELLS).astype(np.int64), _CELLS - 1)
    count = np.bincount(cell, weights, _CELLS)
    hits = np.bincount(cell, weights * correct, _CELLS)
    filled = count > 0
    mean = np.bincount(cell, weights * confidence, _CELLS)[filled] / count[filled]
    count, hits = count[filled] / count.sum(), hits[filled] / count.sum()
    random = np.random.default_rng(seed)
    if estimator == "smooth":
        scale = max(smooth_ece(predictions), _NARROWEST)
        points = np.linspace(mean[0], mean[-1], _POINTS)
        kernel = _reflected(mean[:, None], points, scale)
        resampled = random.multinomial(
            worth, _shares(np.concatenate([hits, count - hits])), replicates
        ).astype(np.float64)
        right, wrong = np.split(resampled, 2, axis=1)
        # The gaps are smoothed and added to the diagonal: smoothed outcomes would be flatter than they are.
        curve = points + ((hits - count * mean) @ kernel) / (count @ kernel)
        with np.errstate(invalid="ignore"):  # a replicate may leave a stretch empty
            curves = points + ((right - (right + wrong) * mean) @ kernel) / (
                (right + wrong) @ kernel
            )
        low, high = np.nanquantile(curves, (0.025, 0.975), axis=0)
        return CalibrationCurve(points, curve, low, high)
    order = np.argsort(confidence, kind="stable")
    values, starts = np.unique(confidence[order], return_index=True)
    total = np.add.reduceat(weights[order], starts)
    curve = _isotonic(np.add.reduceat((weights * correct)[order], starts) / total, total)
    numbers = random.multinomial(worth, _shares(count), replicates)
    labels = random.binomial(numbers, np.clip(mean, 0.0, 1.0))
    curves = np.stack(
        [
            np.interp(
                values, mean[n > 0], _isotonic(k[n > 0] / n[n > 0], n[n > 0].astype(np.float64))
            )
            for n, k in zip(numbers, labels, strict=True)
        ]
    )
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    return CalibrationCurve(values, curve, low, high)


def _shares(probs: Floats) -> Floats:
    """Return probabilities that add up to 1 for a multinomial draw."""
    probs = np.maximum(probs, 0.0)
    shares: Floats = probs / probs.sum()
    return shares


def _reflected(position: Floats, points: Floats, scale: float) -> Floats:
    """Return the Gaussian kernel reflected at 0 and 1, unscaled: of each position at each point."""
    images = (position, -position, 2.0 - position)
    # The exponent is bounded, so that no point is without weight: far from all samples the nearest decides.
    exponents = [np.minimum((points - each) ** 2 / (2.0 * scale**2), 700.0) for each in images]
    return np.asarray(sum(np.exp(-each) for each in exponents), dtype=np.float64)


def _isotonic(values: Floats, weights: Floats) -> Floats:
    fitted = require("scipy.optimize", extra="tables").isotonic_regression(values, weights=weights)
    return np.asarray(fitted.x, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ConsistencyBand:
    """Range of each bin's accuracy for a calibrated model.

    Attributes:
        low: Lower ends ``(B,)``, NaN where the bin is empty.
        high: Upper ends ``(B,)``.
        confidence_level: Share of calibrated models that lie within the range, one bin at a time.
    """

    low: Floats
    high: Floats
    confidence_level: float


def consistency_band(
    predictions: Predictions | TopLabel,
    *,
    num_bins: int = 15,
    confidence_level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> ConsistencyBand:
    """Return quantiles of each bin's accuracy over resampled forecasts whose outcomes are drawn from the forecasts.

    As in the paper, a replicate draws ``N`` confidences with replacement, and an outcome for each with that probability
    of being right. A sample of a bin is then right with probability equal to the mean confidence of the bin, so the
    numbers of samples in the bins are multinomial and the numbers of right ones binomial. They are drawn as such,
    without a loop.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; the target is not used. With weights, as
            many confidences are drawn as the weights are worth, see :func:`~fedlas.stats.effective_samples`.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        confidence_level: In ``(0, 1)``. With 15 bins, about every second diagram of a calibrated model has a bin
            outside a band of level 0.95.
        replicates: Number of replicates; a bin ignores those that leave it empty.
        seed: Seed of the draws.

    Raises:
        InputError: If an argument is out of range.

    Example:
        >>> band = consistency_band(Predictions([[0.0, 0.0]] * 100, [0] * 100), num_bins=2)
        >>> bool(0.35 < band.low[0] < 0.45), bool(0.55 < band.high[0] < 0.65), bool(np.isnan(band.low[1]))
        (True, True, True)

    Source:
        Bröcker & Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting 22 (2007).
    """
    check_count("replicates", replicates, low=2)
    check_count("seed", seed, low=0)
    check_level(confidence_level)
    bins = reliability_bins(predictions, num_bins=num_bins)
    count = bins.count.double().numpy()
    confidence = bins.confidence.numpy()
    filled = np.flatnonzero(count)
    random = np.random.default_rng(seed)
    weights = predictions.weights
    samples = int(count.sum()) if weights is None else round(effective_samples(weights))
    counts = random.multinomial(samples, count[filled] / count.sum(), size=replicates)
    right = random.binomial(counts, np.clip(confidence[filled], 0.0, 1.0))
    accuracy = np.where(counts > 0, right / np.maximum(counts, 1), np.nan)
    low = np.full(num_bins, np.nan)
    high = np.full(num_bins, np.nan)
    low[filled], high[filled] = np.nanquantile(
        accuracy, (0.5 - confidence_level / 2, 0.5 + confidence_level / 2), axis=0
    )
    return ConsistencyBand(low, high, confidence_level)
