"""All scalar measures of a binary event with intervals and tests."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from math import inf, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import InputError, check_count
from fedlas.binary.curve_distances import DISTANCES, curve_and_tests
from fedlas.binary.discrimination import auroc_estimate, average_precision_estimate
from fedlas.binary.event_records import register_event_measure
from fedlas.binary.likelihood import compute_likelihood_indices
from fedlas.binary.positive import Positive, positive_class
from fedlas.binary.recalibration import (
    compute_recalibration,
    estimate_with_test,
    event_count_test,
    ratio_interval,
    wald_estimate,
)
from fedlas.metrics.metric import event_measures
from fedlas.stats.estimates import (
    CONFIDENCE_LEVEL,
    REPLICATES,
    Estimate,
    EstimateTable,
    registered_estimate,
    unit_interval_estimate,
)
from fedlas.stats.intervals import check_confidence_level, normal_interval

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions


def measures(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> EstimateTable:
    """Compute all scalar measures of an event, with intervals and tests of calibration.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.
        confidence_level: Level of the intervals, in ``(0, 1)``.
        replicates: For ICI, E50, E90, Emax and the joint test, as in :func:`~fedlas.binary.integrated_calibration`.
        seed: The same seed draws the same replicates.

    Returns:
        Estimate by name: ``observed`` and ``expected`` (share of positives, mean probability), ``brier`` (of the one
        probability), ``observed_to_expected``, ``in_the_large``, ``slope``, ``intercept``, ``ici``, ``e50``, ``e90``,
        ``emax``, ``auroc``, ``average_precision``, ``brier_skill``, ``r2``, ``d``, ``u`` and ``q`` without
        interval, and every other registered measure of an event that has an interval. Each test of calibration has its
        own p-value:
        Wald's of slope, intercept and calibration in the large, that of the number of positives given the
        probabilities, and consistency resampling. Those that these samples cannot give are missing: the line where a
        threshold separates the outcomes, and all but the first three where only one outcome occurs or there are fewer
        than 10 samples. ``joint_p`` is one p-value of all tests together.

    Raises:
        InputError: As all functions here, for predictions of other than two classes without ``event``.

    Note:
        The joint test compares the scores of shift and slope (Cox 1958), Spiegelhalter's z, ICI, E50, E90 and Emax with
        the same replicates whose outcomes are drawn from the probabilities.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.softmax(1)[:, 1], generator=torch.Generator().manual_seed(1)).long()
        >>> found = measures(Predictions(logits, happened))
        >>> found["observed_to_expected"].low < 1 < found["observed_to_expected"].high, found.joint_p > 0.05
        (True, True)
    """
    check_count("replicates", replicates, low=0)
    check_count("seed", seed, low=0)
    data = positive_class(predictions, event)
    outcome = data.outcome
    level: dict[str, Any] = {"confidence_level": check_confidence_level(confidence_level)}
    numbers = rate_estimates(data, confidence_level)
    if len(outcome) < 10 or outcome.min() == outcome.max():
        return EstimateTable(numbers)
    if data.probability.any():
        numbers["observed_to_expected"] = ratio_estimate(data, confidence_level)
    try:
        numbers |= line_estimates(data, confidence_level)
        indices = asdict(compute_likelihood_indices(data))
    except InputError:  # the outcomes can be separated; all else was checked above
        indices = {}
    curve, null = curve_and_tests(data, replicates=replicates, seed=seed, **level)
    numbers |= {name: getattr(curve, name) for name in DISTANCES}
    numbers["auroc"] = auroc_estimate(data, confidence_level)
    numbers["average_precision"] = average_precision_estimate(
        data, confidence_level, replicates, seed
    )
    numbers["brier_skill"] = _brier_skill_estimate(data, confidence_level)
    numbers |= {
        name: Estimate(value, nan, nan, left_out=data.left_out, **level)
        for name, value in indices.items()
    }
    options = {"event": event, **level, "replicates": replicates, "seed": seed}
    for name, record in event_measures().items():
        if name not in numbers and record.estimate is not None and record.has_interval:
            with suppress(InputError):  # the measure is not defined for these samples
                numbers[name] = registered_estimate(record, predictions, **options)
    return EstimateTable(numbers, null if replicates else None)


def ratio_estimate(data: Positive, confidence_level: float) -> Estimate:
    """Return observed over expected of samples with an event, with the test of the number of events."""
    return estimate_with_test(ratio_interval(data, confidence_level), *event_count_test(data))


def line_estimates(data: Positive, confidence_level: float) -> dict[str, Estimate]:
    """Return slope, intercept and calibration in the large, each with its own test."""
    line = compute_recalibration(data, confidence_level)
    numbers = {
        "in_the_large": wald_estimate(line.in_the_large, 0.0),
        "slope": wald_estimate(line.slope, 1.0),
        "intercept": wald_estimate(line.intercept, 0.0),
    }
    return {name: replace(each, left_out=data.left_out) for name, each in numbers.items()}


def rate_estimates(data: Positive, confidence_level: float) -> dict[str, Estimate]:
    """Return prevalence, mean probability and Brier score, with intervals."""
    level: dict[str, Any] = {"confidence_level": confidence_level}
    observed = data.share(data.outcome > 0, np.arange(data.num_samples), confidence_level)
    squares = (data.probability - data.outcome) ** 2
    return {
        "observed": Estimate(*observed, **level),
        "expected": _mean_estimate(data, data.probability, confidence_level),
        "brier": _mean_estimate(data, squares, confidence_level),
    }


def _mean_estimate(data: Positive, values: FloatArray, confidence_level: float) -> Estimate:
    """Return the mean of values in [0, 1] with its normal interval, or Student's t interval with few clusters."""
    value = data.mean(values)
    terms = values - value
    return unit_interval_estimate(
        value, data.error_of_mean(terms), confidence_level, degrees=data.degrees(terms)
    )


def brier_skill_influence(data: Positive) -> FloatArray:
    """Return the influence of each sample on the scaled Brier score ``(N,)``, before weighting; mean 0."""
    squares = (data.probability - data.outcome) ** 2
    prevalence = data.mean(data.outcome)
    spread = prevalence * (1.0 - prevalence)
    # Through its own square, and through the prevalence.
    influence = -(squares - data.mean(squares)) / spread + data.mean(squares) * (
        1.0 - 2.0 * prevalence
    ) / spread**2 * (data.outcome - prevalence)
    return np.asarray(influence - data.mean(influence))


@register_event_measure(
    "Brier scaled",
    135,
    higher_is_better=True,
    between=(-inf, 1.0),
    terms=brier_skill_influence,
    paper="Brier 1950",
)
def brier_skill(
    predictions: Predictions, *, event: int | str | None = None, confidence_level: float = 0.95
) -> Estimate:
    """Brier skill score ``1 - B / (q (1 - q))``, with ``B = mean (p - y)**2`` and prevalence ``q``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.
        confidence_level: Confidence level of the interval, in ``(0, 1)``.

    Returns:
        At most 1, which only a perfect model has; 0 is as good as the prevalence, below 0 is worse. The interval is
        that of the delta method, which counts the chance in ``q`` too.

    Raises:
        InputError: If only one outcome occurs, or as all functions here, for predictions of other than two classes
            without ``event``.

    Note:
        From :func:`~fedlas.metrics.brier`, which of two classes is that of the event. Also known as the
        index of prediction accuracy. The prevalence is that of these samples: after a change of prevalence the same
        model has another skill.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 2.0], [0.0, 2.0], [0.0, -2.0], [0.0, -2.0], [0.0, 2.0]], [1, 1, 0, 0, 0])
        >>> round(brier_skill(p).value, 2)
        0.31

    Source:
        Brier 1950; Murphy, "Skill scores based on the mean square error", Monthly Weather Review 116 (1988); Kattan and
        Gerds, "The index of prediction accuracy", Diagnostic and Prognostic Research 2 (2018).
    """
    return _brier_skill_estimate(
        positive_class(predictions, event, both_outcomes=True), confidence_level
    )


def _brier_skill_estimate(data: Positive, confidence_level: float) -> Estimate:
    """Return the Brier skill score of samples with both outcomes, with its interval."""
    brier = data.mean((data.probability - data.outcome) ** 2)
    prevalence = data.mean(data.outcome)
    spread = prevalence * (1.0 - prevalence)
    terms = brier_skill_influence(data)
    interval = normal_interval(
        1.0 - brier / spread,
        data.error_of_mean(terms),
        confidence_level=confidence_level,
        degrees=data.degrees(terms),
    )
    # No skill is above 1, so to cut the end off there loses no coverage.
    high = min(interval.high, 1.0)
    return Estimate(interval.value, interval.low, high, confidence_level=confidence_level)
