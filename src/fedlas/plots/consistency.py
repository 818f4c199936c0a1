"""The consistency band of a reliability diagram: the range of its bins if the model were calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, check_number
from fedlas.metrics import reliability_bins
from fedlas.predictions import Predictions, TopLabel
from fedlas.stats.weights import effective_samples

__all__ = ["ConsistencyBand", "consistency_band"]


@dataclass(frozen=True, eq=False)
class ConsistencyBand:
    """Range of each bin's accuracy for a calibrated model.

    Attributes:
        low: Lower ends ``(B,)``, NaN where the bin is empty.
        high: Upper ends ``(B,)``.
        confidence_level: Share of calibrated models that lie within the range, one bin at a time.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    confidence_level: float


def consistency_band(
    predictions: Predictions | TopLabel,
    *,
    num_bins: int = 15,
    confidence_level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> ConsistencyBand:
    """Quantiles of each bin's accuracy over resampled forecasts whose outcomes are drawn from the forecasts.

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
    owner = "consistency_band"
    check_count(owner, "replicates", replicates, low=2)
    check_count(owner, "seed", seed, low=0)
    if check_number(owner, "confidence_level", confidence_level, low=0.0, high=1.0, low_open=True) == 1.0:
        raise InputError(owner, "confidence_level must be below 1", confidence_level, "Choose a level such as 0.95.")
    bins = reliability_bins(predictions, num_bins=num_bins)
    count, confidence = bins.count.double().numpy(), bins.confidence.numpy()
    filled = np.flatnonzero(count)
    random = np.random.default_rng(seed)
    weights = predictions.weights
    samples = int(count.sum()) if weights is None else round(effective_samples(weights))
    drawn = random.multinomial(samples, count[filled] / count.sum(), size=replicates)
    right = random.binomial(drawn, np.clip(confidence[filled], 0.0, 1.0))
    accuracy = np.where(drawn > 0, right / np.maximum(drawn, 1), np.nan)
    low, high = np.full(num_bins, np.nan), np.full(num_bins, np.nan)
    low[filled], high[filled] = np.nanquantile(
        accuracy, (0.5 - confidence_level / 2, 0.5 + confidence_level / 2), axis=0
    )
    return ConsistencyBand(low, high, confidence_level)
