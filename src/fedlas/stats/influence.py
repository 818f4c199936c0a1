"""Intervals and paired tests of metrics that know how much each sample moves them, such as AUROC (DeLong)."""

from __future__ import annotations

import math

import numpy as np

from fedlas.metrics.scan import Metric
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions
from fedlas.stats.rows import Floats


def influence_of(entry: Metric, predictions: AnyPredictions) -> Floats | None:
    """Return how much each sample moves a metric ``(N,)``; None if the metric does not know."""
    influence = entry.influence
    if influence is None or not isinstance(predictions, Predictions):
        return None
    values: Floats | None = influence(predictions)
    return values


def standard_error(influence: Floats, predictions: AnyPredictions) -> float:
    """Return the standard error of a metric from the influence of each sample, summed over clusters."""
    if predictions.clusters is None:
        return math.sqrt(float(influence @ influence))
    number = np.unique(predictions.clusters.numpy(), return_inverse=True)[1]
    sums = np.bincount(number, influence)
    return math.sqrt(float(sums @ sums) * len(sums) / max(len(sums) - 1, 1))
