"""Debiased squared calibration error: without the bias from label noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.equal_width import BinTable, EqualWidth
from fedlas.metrics.metric import METRICS

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions, TopLabel


def debiased_square(bins: BinTable) -> FloatArray:
    """Return ``1 / N * sum_b n_b (gap_b**2 - accuracy_b (1 - accuracy_b) / (n_b - 1))`` over bins of ``n_b > 1``."""
    # With weights, the last `n_b` is the effective number of samples: `accuracy_b * (1 - accuracy_b) / (n_b - 1)` then
    # is the unbiased estimate of the variance of a weighted mean of equally probable outcomes.
    effective = bins.effective_count
    # Bins of fewer than two samples have no variance: the 2 avoids a division by 0 until they are left out below.
    enough = effective > 1.0 + _ONE
    count = np.where(enough, bins.count, 2.0)
    samples = np.where(enough, effective, 2.0)
    variance = bins.outcome * (1.0 - bins.outcome / count) / (samples - 1.0)
    squares = bins.gaps**2 / count - variance
    return np.where(enough, squares, 0.0).sum(axis=-1) / bins.num_samples


_ONE = 1e-9
"""An effective number of samples this close to 1 is one sample's."""


@METRICS.register(
    "debiased_ece2",
    order=130,
    title="Debiased ECE²",
    # unbiased, so around 0 where there is nothing to find: below 0 is no better
    higher_is_better=None,
    percent=False,
    detail=True,
    unbiased=True,
    paper="Kumar, Liang & Ma 2019, Verified uncertainty calibration",
    statistic=EqualWidth,
    formula=debiased_square,
    takes_replicates=True,
)
def debiased_ece2(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Squared calibration error minus its bias from label noise, so that a calibrated model has 0 on average.

    ``sum_b n_b / N * ((accuracy_b - confidence_b)**2 - accuracy_b * (1 - accuracy_b) / (n_b - 1))``. The second term
    estimates the variance of ``accuracy_b``, which is what the expectation of the square has too much.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width, at least 1, as in ECE.

    Returns:
        A squared fraction, at most 1; below 0 when the gaps are smaller than chance makes them on average. It is the
        square that is unbiased, so no root is taken: average squares over data sets, and then take it.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        A bin of a single sample tells nothing of its variance and counts as 0. What is estimated without bias is the
        error of the *binned* confidences, which is at most that of the confidences themselves. Where confidences
        within a bin differ, the labels vary a little less than the second term says. With weights, ``n_b - 1`` has the
        effective number of samples, so that weights of 2 are not the same as every row twice.

    Example:
        >>> from fedlas import Predictions
        >>> debiased_ece2(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.25

    Source:
        Kumar et al. 2019, the debiased estimator; https://arxiv.org/abs/1909.10155
    """
    return float(debiased_square(EqualWidth.from_predictions(predictions, num_bins).table()))
