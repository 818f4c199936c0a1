"""Form of the adaptive calibration error of all classes: one class after another, all replicates at a time."""

from __future__ import annotations

import numpy as np

from fedlas.metrics.ace import classwise_adaptive_calibration_error
from fedlas.stats.forms.base import form_of
from fedlas.stats.forms.ranked import equal_mass_gaps
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Integers, Rows, starts_of_runs


@form_of(classwise_adaptive_calibration_error, zero_if_calibrated=True)
def _adaptive_of_all_classes(replicates: Replicates) -> Floats:
    rows = replicates.rows
    total = np.zeros(1)
    for label, (order, probs) in enumerate(zip(*rows.table(_sorted_columns), strict=True)):
        weights = replicates.weights.take(order, axis=1)
        gaps = weights * (probs - (replicates.labels.take(order, axis=1) == label))
        total = total + np.abs(equal_mass_gaps(weights, gaps, starts_of_runs(probs), rows.num_bins)).sum(axis=1)
    return total / (rows.num_samples * rows.num_classes)


def _sorted_columns(rows: Rows) -> tuple[Integers, Floats]:
    """For each class the rows by ascending probability, and the probabilities in that order; ``(C, N)`` both.

    In double precision and step by step as the metric has them: what is equal decides where bins may be cut.
    """
    logits = rows.predictions.logits.cpu().double()
    logits = logits - logits.amax(dim=1, keepdim=True)
    probs = (logits - logits.logsumexp(dim=1, keepdim=True)).exp_().T.contiguous().numpy()
    order = np.argsort(probs, axis=1, kind="stable")
    return order, np.take_along_axis(probs, order, axis=1)
