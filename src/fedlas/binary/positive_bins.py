"""What a reliability diagram of the positive class draws: probability and frequency in bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from fedlas._core.check import check_choice, check_count
from fedlas.binary.positive import Floats, Integers, Positive, positive_class
from fedlas.metrics.calibration_error import equal_mass_bins
from fedlas.metrics.ece import BinSums, bins_of
from fedlas.predictions import Predictions
from fedlas.stats.intervals import check_level
from fedlas.stats.proportion import weighted_share, wilson

_SCHEMES = ("equal-width", "equal-mass")


@dataclass(frozen=True, eq=False)
class PositiveBins:
    """Bins of the probability of the positive class; float64 arrays, NaN where a bin is empty.

    Attributes:
        edges: ``(B + 1,)`` from 0 to 1, ascending; bin ``b`` is ``(edges[b], edges[b + 1]]``, and 0 is in the first.
        count: Samples in each bin ``(B,)``, by their weights.
        probability: Mean probability ``(B,)``.
        frequency: Share of positives ``(B,)``.
        low: Lower end of Wilson's interval of the frequency ``(B,)``; with weights or clusters that of an effective
            number of samples.
        high: Upper end.
    """

    edges: Floats
    count: Floats
    probability: Floats
    frequency: Floats
    low: Floats
    high: Floats


def positive_bins(
    predictions: Predictions,
    *,
    positive: int | None = None,
    num_bins: int = 10,
    scheme: str = "equal-width",
    confidence_level: float = 0.95,
) -> PositiveBins:
    """Return the probability and frequency of the positive class in bins of its probability.

    :func:`~fedlas.metrics.reliability_bins` has the confidence of the *predicted* class, which is never below one half
    for two classes, and hides on which side a model errs. Here 0.1 stays 0.1.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        positive: The class to set against the rest; None: class 1 of two.
        num_bins: At least 1.
        scheme: ``"equal-width"``, or ``"equal-mass"``: as many samples in each, as in tables of deciles of risk.
        confidence_level: Of the interval of each frequency, in ``(0, 1)``.

    Returns:
        The bins, those without samples included.

    Raises:
        InputError: For another scheme or a ``num_bins`` below 1, or as all functions here, for predictions of other
            than two classes without ``positive``.

    Example:
        >>> bins = positive_bins(Predictions([[0.0, -3.0], [0.0, -2.0], [0.0, 2.0]], [0, 1, 1]), num_bins=2)
        >>> bins.count.tolist(), bins.frequency.tolist(), bins.probability.round(3).tolist()
        ([2.0, 1.0], [0.5, 1.0], [0.083, 0.881])

    Source:
        Murphy and Winkler, "Reliability of subjective probability forecasts of precipitation and temperature" (1977);
        Wilson 1927 for the interval.
    """
    check_count("num_bins", num_bins)
    check_choice("scheme", scheme, _SCHEMES)
    check_level(confidence_level)
    data = positive_class(predictions, positive)
    # In the precision of the scores, because what counts as equal to an edge depends on it.
    probability = torch.from_numpy(data.probability).to(predictions.scores.dtype)
    outcome = torch.from_numpy(data.outcome)
    if scheme == "equal-mass":
        bins = bins_of(*equal_mass_bins(probability, outcome > 0, num_bins))
    else:
        sums = BinSums(num_bins)
        sums.add(probability, outcome, torch.ones_like(outcome))
        bins = sums.bins()
    edges = bins.edges.numpy()
    if data.is_plain:
        count = bins.count.double().numpy()
        frequency = bins.accuracy.numpy()
        with np.errstate(invalid="ignore", divide="ignore"):  # empty bins
            low, high = wilson(frequency, count, confidence_level=confidence_level)
        return PositiveBins(edges, count, bins.confidence.numpy(), frequency, low, high)
    place = np.clip(np.searchsorted(edges, probability.numpy(), side="left") - 1, 0, len(edges) - 2)
    rows = [np.flatnonzero(place == number) for number in range(len(edges) - 1)]
    return PositiveBins(
        edges, *np.array([_weighted_bin(data, each, confidence_level) for each in rows]).T
    )


def _weighted_bin(data: Positive, rows: Integers, confidence_level: float) -> tuple[float, ...]:
    """Return count, probability, frequency and the interval's ends of one bin; NaN without samples."""
    if not len(rows):
        return 0.0, *[math.nan] * 4
    weights = data.counts[rows]
    hits = data.outcome[rows] > 0
    clusters = (
        None if data.clusters is None else np.unique(data.clusters[rows], return_inverse=True)[1]
    )
    ends = weighted_share(hits, weights, clusters, confidence_level=confidence_level)
    return (
        float(weights.sum()),
        float(np.average(data.probability[rows], weights=weights)),
        float(np.average(hits, weights=weights)),
        *map(float, ends),
    )
