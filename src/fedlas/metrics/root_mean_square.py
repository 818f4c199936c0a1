"""Root mean square calibration error, which weights large gaps more than ECE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.equal_width import BinTable, EqualWidth
from fedlas.metrics.metric import METRICS
from fedlas.metrics.sums import nonzero

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions, TopLabel


def root_mean_square_gap(bins: BinTable) -> FloatArray:
    """Return the root mean square gap, ``sqrt(sum_b n_b / N * (confidence_b - accuracy_b)**2)``."""
    squares = bins.gaps**2 / nonzero(bins.count)
    return np.sqrt(squares.sum(axis=-1) / bins.num_samples)


@METRICS.register(
    "rmsce",
    order=150,
    title="RMSCE",
    default=False,
    zero_if_calibrated=True,
    paper="Hendrycks, Mazeika & Dietterich 2019, Deep anomaly detection with outlier exposure",
    statistic=EqualWidth,
    formula=root_mean_square_gap,
    takes_replicates=True,
)
def rmsce(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Root mean square calibration error, ``sqrt(sum_b n_b / N * (accuracy_b - confidence_b)**2)``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1, as in ECE.

    Returns:
        A fraction in ``[0, 1]``, between ECE and MCE.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        Bins of equal width, as most libraries have it; the paper's bins hold 100 samples each. Biased upward, more
        than ECE: see :func:`debiased_ece2`.

    Example:
        >>> from fedlas import Predictions
        >>> rmsce(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        0.5

    Source:
        Hendrycks et al. 2019, https://arxiv.org/abs/1812.04606; called l2 calibration error by Kumar, Liang & Ma 2019.
    """
    return float(root_mean_square_gap(EqualWidth.from_predictions(predictions, num_bins).table()))
