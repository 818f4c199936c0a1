"""Which way confidence errs: the parts of ECE from over- and from under-confidence, and their difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedlas.metrics.base import METRICS, OnePass
from fedlas.metrics.binning import BinTable, EqualWidth
from fedlas.metrics.ranking import Floats
from fedlas.metrics.scan import Chunk
from fedlas.metrics.sums import CellSums
from fedlas.metrics.weighted import has_weights, nonzero
from fedlas.predictions import Predictions, TopLabel


def over_gap(bins: BinTable) -> Floats:
    """The part of :func:`~fedlas.metrics.binning.mean_gap` from bins whose confidence exceeds the accuracy."""
    return np.maximum(bins.gaps, 0.0).sum(axis=-1) / bins.num_samples


def under_gap(bins: BinTable) -> Floats:
    """The part from the other bins."""
    return np.maximum(-bins.gaps, 0.0).sum(axis=-1) / bins.num_samples


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Sums over wrong and right predictions: numbers, or arrays ``(R,)`` for as many replicates.

    Attributes:
        wrong: Number of wrong predictions.
        right: Number of right ones.
        wrong_confidence: Sum of the confidences of the wrong ones.
        right_doubt: Sum of ``1 - confidence`` of the right ones.
        num_samples: ``N``.

    With weights these are weighted sums, and ``num_samples`` is the sum of the weights.
    """

    wrong: Floats
    right: Floats
    wrong_confidence: Floats
    right_doubt: Floats
    num_samples: float


def mean_signed_gap(outcomes: Outcomes) -> Floats:
    """Mean confidence minus accuracy."""
    return (outcomes.wrong_confidence - outcomes.right_doubt) / outcomes.num_samples


def confidence_when_wrong(outcomes: Outcomes) -> Floats:
    """Mean confidence of wrong predictions; 0 if there is none."""
    return outcomes.wrong_confidence / nonzero(outcomes.wrong)


def doubt_when_right(outcomes: Outcomes) -> Floats:
    """Mean of ``1 - confidence`` of right predictions; 0 if there is none."""
    return outcomes.right_doubt / nonzero(outcomes.right)


class ConfidenceByOutcome:
    """Statistic: number and sum of confidences of wrong and of right predictions, in this order."""

    top_label = True
    takes_weights = True

    def __init__(self, predictions: Predictions | TopLabel, _num_bins: int) -> None:
        self._weighted = has_weights(predictions)
        self._count, self._confidence = CellSums(2, self._weighted, bits=0), CellSums(2, self._weighted)

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        outcome, weights = chunk.correct.long(), chunk.weights if self._weighted else None
        self._count.add(outcome, weights=weights)
        self._confidence.add(outcome, chunk.confidence, weights)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, see :class:`~fedlas.metrics.scan.Sums`."""
        return {"count": self._count.values, "confidence": self._confidence.values}

    def table(self) -> Outcomes:
        """The sums as formulas take them."""
        (wrong, right), confidence = self._count.floats().numpy(), self._confidence.floats().numpy()
        return Outcomes(wrong, right, confidence[0], right - confidence[1], float(wrong + right))


_OVER_ECE = OnePass("overconfident_calibration_error", EqualWidth, lambda bins: over_gap(bins.table()))
_UNDER_ECE = OnePass("underconfident_calibration_error", EqualWidth, lambda bins: under_gap(bins.table()))
_GAP = OnePass("confidence_gap", ConfidenceByOutcome, lambda sums: mean_signed_gap(sums.table()))
_OVER = OnePass("overconfidence", ConfidenceByOutcome, lambda sums: confidence_when_wrong(sums.table()))
_UNDER = OnePass("underconfidence", ConfidenceByOutcome, lambda sums: doubt_when_right(sums.table()))
_FEDLAS = "FedLAS 2026, Feature-modulated bidirectional label smoothing for neural network calibration"


@METRICS.register(
    "o_ece",
    title="O-ECE",
    higher_is_better=False,
    ranked=False,
    percent=True,
    detail=True,
    zero_if_calibrated=True,
    paper=_FEDLAS,
    one_pass=_OVER_ECE,
)
def overconfident_calibration_error(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Part of ECE from bins that are too confident, ``sum_b n_b / N * max(0, confidence_b - accuracy_b)``.

    With :func:`underconfident_calibration_error` it adds up to :func:`expected_calibration_error`; the difference of
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
        >>> overconfident_calibration_error(Predictions([[0.0, 0.0], [9.0, 0.0]], [1, 0]))  # 1/2 is wrong, 1 is right
        0.25

    Source:
        FedLAS 2026, where ECE is split into the two; https://arxiv.org/abs/2606.28654
    """
    return _OVER_ECE(predictions, num_bins=num_bins)


@METRICS.register(
    "u_ece",
    title="U-ECE",
    higher_is_better=False,
    ranked=False,
    percent=True,
    detail=True,
    zero_if_calibrated=True,
    paper=_FEDLAS,
    one_pass=_UNDER_ECE,
)
def underconfident_calibration_error(predictions: Predictions | TopLabel, *, num_bins: int = 15) -> float:
    """Part of ECE from bins that are not confident enough, ``sum_b n_b / N * max(0, accuracy_b - confidence_b)``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1, as in ECE.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Example:
        >>> underconfident_calibration_error(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 0]))
        0.5

    Source:
        FedLAS 2026; https://arxiv.org/abs/2606.28654
    """
    return _UNDER_ECE(predictions, num_bins=num_bins)


@METRICS.register(
    "confidence_gap",
    title="Confidence gap",
    higher_is_better=None,
    percent=True,
    default=False,
    paper="Yates 1982, External correspondence: decompositions of the mean probability score",
    one_pass=_GAP,
)
def confidence_gap(predictions: Predictions | TopLabel) -> float:
    """Mean confidence minus accuracy: positive if the model is too confident on the whole, negative if too little.

    Equal to O-ECE minus U-ECE for any bins, and not biased.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[-1, 1]``.

    Note:
        Zero does not mean calibrated: what is too much here may be too little there.

    Example:
        >>> confidence_gap(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 0]))
        -0.5

    Source:
        Yates 1982, who calls it bias.
    """
    return _GAP(predictions)


@METRICS.register(
    "overconfidence",
    title="Overconfidence",
    higher_is_better=False,
    ranked=False,
    percent=True,
    default=False,
    paper="folklore",
    one_pass=_OVER,
)
def overconfidence(predictions: Predictions | TopLabel) -> float:
    """Mean confidence of the wrong predictions.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[0, 1]``; 0 if all predictions are right.

    Note:
        Not a calibration error: a calibrated model has one too, since even a confidence of 0.9 is wrong one time in
        ten.

    Example:
        >>> overconfidence(Predictions([[0.0, 0.0], [9.0, 0.0]], [1, 0]))
        0.5
    """
    return _OVER(predictions)


@METRICS.register(
    "underconfidence",
    title="Underconfidence",
    higher_is_better=False,
    ranked=False,
    percent=True,
    default=False,
    paper="folklore",
    one_pass=_UNDER,
)
def underconfidence(predictions: Predictions | TopLabel) -> float:
    """Mean of ``1 - confidence`` over the right predictions.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[0, 1]``; 0 if no prediction is right. Not a calibration error: see :func:`overconfidence`.

    Example:
        >>> underconfidence(Predictions([[0.0, 0.0], [0.0, 0.0]], [0, 1]))
        0.5
    """
    return _UNDER(predictions)
