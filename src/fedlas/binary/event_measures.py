"""Measures of an event, each a function and a registered metric.

A new one is a call of a factory here, or a function under its record: lists, tables, gates and cards ask the records.
"""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas.binary.event_records import (
    IntervalMeasure,
    PointMeasure,
    Terms,
    register_class_measure,
    register_event_measure,
    register_named_measure,
)
from fedlas.binary.likelihood import compute_likelihood_indices
from fedlas.binary.measure_table import line_estimates, rate_estimates, ratio_estimate
from fedlas.binary.positive import Positive, positive_class
from fedlas.binary.recalibration import line_influence, shift_influence
from fedlas.metrics.metric import EVENT, METRICS
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import require_predictions
from fedlas.predictions.probabilities import binary_logits
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, estimates
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.spiegelhalter import spiegelhalter_test

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

_UNIT_RANGE = (0.0, 1.0)


def _ratio_influence(data: Positive) -> FloatArray:
    expected = data.mean(data.probability)
    ratio = data.mean(data.outcome) / expected
    return np.asarray((data.outcome - ratio * data.probability) / expected)


def _coefficient_influence(index: int) -> Terms:
    return lambda data: line_influence(data, index)


def _register_mean(name: str, text: str, *record: Any, **fields: Any) -> IntervalMeasure:
    """Register a measure that is a mean over samples."""

    def measure(
        predictions: Predictions,
        *,
        event: int | str | None = None,
        confidence_level: float = CONFIDENCE_LEVEL,
    ) -> Estimate:
        return rate_estimates(
            positive_class(predictions, event), check_confidence_level(confidence_level)
        )[name]

    return register_named_measure(name, text, measure, *record, **fields)


def _register_recalibration(name: str, text: str, *record: Any, **fields: Any) -> IntervalMeasure:
    """Register a measure that is a number of the logistic recalibration."""

    def measure(
        predictions: Predictions,
        *,
        event: int | str | None = None,
        confidence_level: float = CONFIDENCE_LEVEL,
    ) -> Estimate:
        data = positive_class(predictions, event, both_outcomes=True)
        check_confidence_level(confidence_level)
        if name == "observed_to_expected":
            return ratio_estimate(data, confidence_level)
        return line_estimates(data, confidence_level)[name]

    return register_named_measure(name, text, measure, *record, **fields)


def _register_likelihood_index(name: str, text: str, *record: Any, **fields: Any) -> PointMeasure:
    """Register a likelihood index as a measure."""

    def measure(predictions: Predictions, *, event: int | str | None = None) -> Estimate:
        data = positive_class(predictions, event, both_outcomes=True)
        value = asdict(compute_likelihood_indices(data))[name]
        return Estimate(value, np.nan, np.nan, left_out=data.left_out)

    options: dict[str, Any] = {"detail": True, "has_interval": False, "paper": "Harrell 2015"}
    return register_named_measure(name, text, measure, *record, **options, **fields)


observed = _register_mean(
    "observed",
    """Prevalence: share of samples with the event.

    Returns:
        In ``[0, 1]``, with the interval of a share.

    Example:
        >>> from fedlas import Predictions
        >>> observed(Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, 0.0]], [1, 0, 0])).value
        0.333...
    """,
    "observed",
    0,
    percent=True,
    places=4,
    between=_UNIT_RANGE,
    several_labels=False,
    terms=lambda data: data.outcome - data.mean(data.outcome),
)

expected = _register_mean(
    "expected",
    """Mean probability of the event.

    Returns:
        In ``[0, 1]``, with its normal interval.

    Example:
        >>> from fedlas import Predictions
        >>> expected(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 0])).value
        0.5
    """,
    "expected",
    10,
    percent=True,
    places=4,
    between=_UNIT_RANGE,
    several_labels=False,
    terms=lambda data: data.probability - data.mean(data.probability),
)

observed_to_expected = _register_recalibration(
    "observed_to_expected",
    """Observed over expected events: above 1 the event occurs more often than expected.

    Returns:
        Above 0, with the interval and test of :func:`~fedlas.binary.logistic_recalibration`.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]], [0, 0, 1, 1])
        >>> round(observed_to_expected(p).value, 3)
        0.812
    """,
    "observed / expected",
    20,
    ideal=1.0,
    between=(0.0, inf),
    terms=_ratio_influence,
)

in_the_large = _register_recalibration(
    "in_the_large",
    """Calibration in the large: shift of all log-odds that makes the mean probability equal the prevalence.

    Returns:
        In log-odds, above 0 if the event occurs more often than expected; with Wald's test of 0.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]], [0, 0, 1, 1])
        >>> round(in_the_large(p).value, 3)
        -0.5
    """,
    "in the large",
    30,
    ideal=0.0,
    detail=True,
    terms=shift_influence,
)

slope = _register_recalibration(
    "slope",
    """Calibration slope: below 1 the probabilities are too extreme.

    Returns:
        The factor by which a logistic regression of the outcomes corrects the log-odds, with Wald's test of 1.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 0, 1, 1])
        >>> round(slope(p).value, 3)
        0.693
    """,
    "calibration slope",
    40,
    ideal=1.0,
    terms=_coefficient_influence(0),
    paper="Cox 1958",
)

intercept = _register_recalibration(
    "intercept",
    """Calibration intercept: correction of the log-odds at a probability of 1/2, fitted with :func:`slope`.

    Returns:
        In log-odds, with Wald's test of 0.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 1, 0, 1])
        >>> round(intercept(p).value, 3)
        -0.693
    """,
    "intercept",
    50,
    ideal=0.0,
    detail=True,
    terms=_coefficient_influence(1),
    paper="Cox 1958",
)

r2 = _register_likelihood_index(
    "r2",
    """Nagelkerke's R2: share of the likelihood explained beyond the prevalence.

    Returns:
        At most 1, without an interval.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 0, 1, 1])
        >>> round(r2(p).value, 3)
        0.021
    """,
    "R2 (Nagelkerke)",
    140,
    between=(-inf, 1.0),
    higher_is_better=True,
)

d = _register_likelihood_index(
    "d",
    """Discrimination index D: likelihood ratio statistic of the probabilities minus 1, per sample.

    Returns:
        The number, without an interval.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 0, 1, 1])
        >>> round(d(p).value, 3)
        -0.184
    """,
    "D",
    150,
    places=4,
    higher_is_better=True,
)

u = _register_likelihood_index(
    "u",
    """Unreliability index U: likelihood ratio statistic of a recalibration minus 2, per sample.

    Returns:
        The number, without an interval; about 0 if calibrated.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 0, 1, 1])
        >>> round(u(p).value, 3)
        -0.388
    """,
    "U",
    160,
    places=4,
    ideal=0.0,
)

q = _register_likelihood_index(
    "q",
    """Quality index, D - U.

    Returns:
        The number, without an interval.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 0, 1, 1])
        >>> round(q(p).value, 3)
        0.203
    """,
    "Q",
    170,
    places=4,
    higher_is_better=True,
)


def _to_two_classes(predictions: Predictions, event: int | str | None) -> Predictions:
    """Return two-class predictions whose last class is the event; other classes are merged into the first."""
    if event is None and predictions.num_classes == 2:
        return predictions
    data = positive_class(predictions, event)
    logits, target = binary_logits(data.log_odds), data.outcome.astype(np.int64)
    return Predictions(logits, target, weights=data.weights, clusters=data.clusters)


@register_event_measure("Spiegelhalter's z", 110, places=2, ideal=0.0, detail=True, has_interval=False,
    several_labels=False, paper="Spiegelhalter 1986")  # fmt: skip
def spiegelhalter_z(predictions: Predictions, *, event: int | str | None = None) -> Estimate:
    """Spiegelhalter's z: standard normal if calibrated.

    Args:
        predictions: As in :func:`observed`.
        event: As in :func:`observed`.

    Returns:
        The statistic of :func:`~fedlas.stats.spiegelhalter_test`, without an interval, with its p-value.

    Raises:
        InputError: As in :func:`observed`.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [0, 1, 0, 1, 1])
        >>> round(spiegelhalter_z(p).value, 3)
        0.252
    """
    z, p = spiegelhalter_test(_to_two_classes(require_predictions(predictions), event))
    return Estimate(z, np.nan, np.nan, p=p, test="Spiegelhalter")


def _estimate_event_metric(
    name: str, predictions: Predictions, event: int | str | None, **options: Any
) -> Estimate:
    """Return a measure that is also a multi-class metric, with its interval from :func:`fedlas.estimates`."""
    two = _to_two_classes(require_predictions(predictions), event)
    return estimates(two, [EVENT + name], **options)[EVENT + name]


@register_class_measure(METRICS["classwise_ece"], "ECE", 65,
    "Classwise ECE of the event's probability over equal-width bins.")  # fmt: skip
def ece(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Classwise ECE of the event's probability over equal-width bins.

    Args:
        predictions: As in :func:`observed`.
        event: As in :func:`observed`.
        num_bins: Number of bins over ``[0, 1]``, at least 1.
        confidence_level: Level of the interval, in ``(0, 1)``.
        replicates: As in :func:`fedlas.estimates`, which computes the interval; at least 39 for level 0.95.
        seed: As in :func:`fedlas.estimates`.

    Returns:
        In ``[0, 1]``, with a bootstrap interval.

    Raises:
        InputError: For too few replicates, or as :func:`observed`.

    Example:
        >>> ece([0.75, 0.75, 0.25, 0.25], [1, 1, 0, 1], replicates=39).value
        0.25
    """
    options: dict[str, Any] = {"num_bins": num_bins, "confidence_level": confidence_level}
    return _estimate_event_metric(
        "ece", predictions, event, replicates=replicates, seed=seed, **options
    )


@register_class_measure(METRICS["nll"], "NLL", 120, "Mean negative log-likelihood of the outcome.",
    percent=False, between=(0.0, inf))  # fmt: skip
def nll(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Mean negative log-likelihood of the outcome.

    Args:
        predictions: As in :func:`ece`.
        event: As in :func:`ece`.
        confidence_level: As in :func:`ece`.
        replicates: As in :func:`ece`.
        seed: As in :func:`ece`.

    Returns:
        Nats per sample, in ``[0, inf)``, with a bootstrap interval.

    Raises:
        InputError: As :func:`ece`.

    Example:
        >>> round(nll([0.5, 0.5], [1, 0], replicates=39).value, 4)
        0.6931
    """
    options: dict[str, Any] = {"confidence_level": confidence_level}
    return _estimate_event_metric(
        "nll", predictions, event, replicates=replicates, seed=seed, **options
    )


@register_class_measure(METRICS["brier"], "Brier score", 130, "Mean squared error of the event's probability.",
    percent=False)  # fmt: skip
def brier(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """Brier score of the event: mean squared difference between probability and outcome.

    Args:
        predictions: As in :func:`observed`.
        event: As in :func:`observed`.
        confidence_level: As in :func:`observed`.

    Returns:
        In ``[0, 1]``, with its normal interval.

    Example:
        >>> brier([0.5, 0.5], [1, 0]).value
        0.25
    """
    return rate_estimates(
        positive_class(predictions, event), check_confidence_level(confidence_level)
    )["brier"]
