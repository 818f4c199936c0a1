"""Kolmogorov-Smirnov calibration error: the largest gap between cumulative confidence and cumulative accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.calibration_error import EqualMass
from fedlas.metrics.metric import METRICS

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.ranking import CellRuns, Runs
    from fedlas.predictions import Predictions, TopLabel


def max_cumulative_gap(runs: Runs) -> FloatArray:
    """Return the largest cumulative gap, ``max_k |sum of the gaps of the k lowest runs| / N``."""
    return np.abs(np.cumsum(runs.gaps, axis=-1)).max(axis=-1) / runs.num_samples


def _error_bound(runs: CellRuns) -> float:
    """Return an upper bound of the discretization error: a cell's samples may all be wrong or all right first."""
    before = np.cumsum(runs.gaps) - runs.gaps
    highest = before + runs.wrong_confidence
    lowest = before - (runs.right - runs.right_confidence)
    largest = np.maximum(highest, -lowest).max() / runs.num_samples
    return float(largest - max_cumulative_gap(runs))


@METRICS.register(
    "ks",
    order=160,
    title="KS error",
    default=False,
    zero_if_calibrated=True,
    paper="Gupta et al. 2021, Calibration of neural networks using splines",
    statistic=EqualMass,
    formula=max_cumulative_gap,
    takes_replicates=True,
    error=_error_bound,
)
def ks(predictions: Predictions | TopLabel) -> float:
    """Largest cumulative gap, ``max_t |1 / N * sum_{i: confidence_i <= t} (correct_i - confidence_i)|``.

    No bins, and no kernel: the Kolmogorov-Smirnov distance between the distribution of the confidences as they are and
    as the outcomes weigh them.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[0, 1]``, at least ``|mean confidence - accuracy|``.

    Note:
        Equal confidences enter together, so the order of samples does not matter. This is the error of the predicted
        class; the paper also has it for the r-th most probable one. Errors of opposite sign at different confidences
        cancel in part, those of one sign do not: for an everywhere overconfident model it is the confidence gap. Keeps
        the confidences: ``O(N)`` memory. Streaming looks only between the cells of a fine grid.

    Example:
        >>> from fedlas import Predictions
        >>> ks(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Gupta et al. 2021 (ICLR); https://arxiv.org/abs/2006.12800
    """
    return float(max_cumulative_gap(EqualMass.from_predictions(predictions).table()))
