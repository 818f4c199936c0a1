"""Spiegelhalter's z: a calibration test without bins and without replicates."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedlas._core.check import InputError
from fedlas.predictions.any_predictions import require_top_label
from fedlas.stats.degrees import degrees_of_freedom, two_sided_p_value

if TYPE_CHECKING:
    from fedlas.predictions import Predictions, TopLabel


class SpiegelhalterTest(NamedTuple):
    """Result of :func:`spiegelhalter_test`.

    Attributes:
        z: Standard normal if the confidences are calibrated; above 0 where they are worse than they claim.
        p_value: Two-sided, in ``[0, 1]``.
    """

    z: float
    p_value: float


def spiegelhalter_test(predictions: Predictions | TopLabel) -> SpiegelhalterTest:
    """Test whether the Brier score of the confidences equals its expectation under calibration.

    ``z = sum (y - p) (1 - 2 p) / sqrt(sum (1 - 2 p)**2 p (1 - p))`` with the confidence ``p`` of the predicted class
    and ``y`` 1 where it is right.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``. Weights ``w`` make it
            ``sum w (y - p) (1 - 2 p) / sqrt(sum w**2 (1 - 2 p)**2 p (1 - p))``: a row counts as one observation. With
            clusters the variance is the sum of the squared sums of the clusters, and the p-value Student's.

    Returns:
        ``z`` and its two-sided p-value.

    Raises:
        InputError: If all confidences are 0, 1/2 or 1: then the score has no spread.

    Note:
        Sensitive to confidences that are too extreme or too moderate, blind to errors that cancel over confidence: a
        large p-value does not show that the model is calibrated. See :func:`~fedlas.stats.noise_floor` of ECE too.

    Example:
        >>> import torch
        >>> from fedlas import TopLabel
        >>> confidence = torch.linspace(0.55, 0.95, 400)
        >>> right = torch.rand(400, generator=torch.Generator().manual_seed(0)) < confidence
        >>> spiegelhalter_test(TopLabel(confidence, right)).p_value > 0.05
        True
        >>> spiegelhalter_test(TopLabel(0.5 * confidence + 0.5, right)).p_value < 0.001
        True

    Source:
        Spiegelhalter, "Probabilistic prediction in patient management and clinical trials", Statistics in Medicine 5
        (1986).
    """
    predictions = require_top_label(predictions)
    p = predictions.confidence.astype(np.float64)
    terms = (predictions.correct - p) * (1 - 2 * p)
    variances = (1 - 2 * p) ** 2 * p * (1 - p)
    if predictions.weights is not None:
        # squares of large and small ones stay numbers
        weights = predictions.weights / predictions.weights.max()
        terms = weights * terms
        variances = weights**2 * variances
    variance = float(variances.sum())
    degrees = math.inf
    if variance > 0.0 and predictions.clusters is not None:
        codes = np.unique(predictions.clusters, return_inverse=True)[1]
        if not codes.any():
            raise InputError(
                "samples must come from at least 2 clusters",
                f"{len(codes):,} samples from one cluster",
                "Use samples from more clusters: one cluster shows no variance between clusters.",
            )
        sums = np.bincount(codes, terms)
        squares = float(np.square(sums).sum())
        degrees = degrees_of_freedom(terms, codes) if squares > 0.0 else math.inf
        variance = squares or variance
    if variance <= 0.0:
        raise InputError(
            "at least one confidence must differ from 0, 1/2 and 1",
            "only such confidences",
            "Use noise_floor, or a model with other confidences.",
        )
    z = float(terms.sum()) / math.sqrt(variance)
    if not math.isinf(degrees):
        # Student's score has the variance about the mean.
        count = len(sums)
        about_mean = (count - 1) / max(count - z**2, 1e-300)
        return SpiegelhalterTest(z, two_sided_p_value(z * math.sqrt(about_mean), degrees))
    return SpiegelhalterTest(z, 2.0 * NormalDist().cdf(-abs(z)))
