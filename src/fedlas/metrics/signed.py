"""ECE split into over- and underconfidence, and the signed confidence gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.equal_width import BinTable, EqualWidth
from fedlas.metrics.metric import METRICS

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions, TopLabel


def overconfident_gap(bins: BinTable) -> FloatArray:
    """Return the part of ``mean_gap`` from bins where confidence exceeds accuracy."""
    return np.maximum(bins.gaps, 0.0).sum(axis=-1) / bins.num_samples


def underconfident_gap(bins: BinTable) -> FloatArray:
    """Return the part of ``mean_gap`` from bins where accuracy exceeds confidence."""
    return np.maximum(-bins.gaps, 0.0).sum(axis=-1) / bins.num_samples


def mean_signed_gap(bins: BinTable) -> FloatArray:
    """Return mean confidence minus accuracy, independent of the bins."""
    return bins.gaps.sum(axis=-1) / bins.num_samples


_FEDLAS = (
    "FedLAS 2026, Feature-modulated bidirectional label smoothing for neural network calibration"
)


@METRICS.register(
    "o_ece",
    order=100,
    title="O-ECE",
    ranked=False,
    detail=True,
    zero_if_calibrated=True,
    paper=_FEDLAS,
    statistic=EqualWidth,
    formula=overconfident_gap,
    takes_replicates=True,
)
def o_ece(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Part of ECE from overconfident bins, ``sum_b n_b / N * max(0, confidence_b - accuracy_b)``.

    With :func:`u_ece` it adds up to :func:`ece`; the difference of
    the two is :func:`confidence_gap`.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1, as in ECE.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        Biased upward like ECE: in small bins the labels' chance takes one sign here and the other there.

        Reports mark no best: a model that is less confident throughout has less of it and more of the other part.

    Example:
        >>> from fedlas import Predictions
        >>> o_ece(Predictions([[0.0, 0.0], [9.0, 0.0]], [1, 0]))  # 1/2 is wrong, 1 is right
        0.25

    Source:
        FedLAS 2026, where ECE is split into the two; https://arxiv.org/abs/2606.28654
    """
    return float(overconfident_gap(EqualWidth.from_predictions(predictions, num_bins).table()))


@METRICS.register(
    "u_ece",
    order=110,
    title="U-ECE",
    ranked=False,
    detail=True,
    zero_if_calibrated=True,
    paper=_FEDLAS,
    statistic=EqualWidth,
    formula=underconfident_gap,
    takes_replicates=True,
)
def u_ece(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Part of ECE from underconfident bins, ``sum_b n_b / N * max(0, accuracy_b - confidence_b)``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1, as in ECE.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Example:
        >>> from fedlas import Predictions
        >>> u_ece(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 0]))
        0.5

    Source:
        FedLAS 2026; https://arxiv.org/abs/2606.28654
    """
    return float(underconfident_gap(EqualWidth.from_predictions(predictions, num_bins).table()))


@METRICS.register(
    "confidence_gap",
    order=120,
    title="Confidence gap",
    higher_is_better=None,
    default=False,
    paper="Yates 1982, External correspondence: decompositions of the mean probability score",
    statistic=EqualWidth,
    formula=mean_signed_gap,
    takes_replicates=True,
)
def confidence_gap(predictions: Predictions | TopLabel) -> float:
    """Mean confidence minus accuracy: positive if the model is overconfident on average, negative if underconfident.

    Equal to O-ECE minus U-ECE for any bins, and not biased.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[-1, 1]``.

    Note:
        Zero does not mean calibrated: what is too much here may be too little there.

    Example:
        >>> from fedlas import Predictions
        >>> confidence_gap(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 0]))
        -0.5

    Source:
        Yates 1982, who calls it bias.
    """
    return float(mean_signed_gap(EqualWidth.from_predictions(predictions).table()))
