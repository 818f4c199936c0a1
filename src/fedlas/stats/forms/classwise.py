"""Forms of metrics of every class's probability, with bins of equal width."""

from __future__ import annotations

import numpy as np

from fedlas.metrics.brier_decomposition import brier_calibration, brier_refinement
from fedlas.metrics.classwise import classwise_calibration_error
from fedlas.stats.forms.base import form_of
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats


@form_of(classwise_calibration_error, zero_if_calibrated=True)
def _classwise(replicates: Replicates) -> Floats:
    gaps = np.abs(replicates.class_probs - replicates.class_labels).sum(axis=1)
    return gaps / (replicates.rows.num_samples * replicates.rows.num_classes)


@form_of(brier_calibration, zero_if_calibrated=True)
def _calibration(replicates: Replicates) -> Floats:
    squares = (replicates.class_probs - replicates.class_labels) ** 2 / np.maximum(replicates.class_counts, 1.0)
    return np.where(replicates.class_counts > 0, squares, 0.0).sum(axis=1) / replicates.rows.num_samples


@form_of(brier_refinement)
def _refinement(replicates: Replicates) -> Floats:
    labels = replicates.class_labels
    variance = labels * (1.0 - labels / np.maximum(replicates.class_counts, 1.0))
    return variance.sum(axis=1) / replicates.rows.num_samples
