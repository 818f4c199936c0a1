"""Logistic recalibration: calibration slope and intercept, calibration in the large, and O/E ratio, of many groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError
from fedlas.binary.grouped_samples import GroupedSamples
from fedlas.binary.logistic import LogisticFit, Shifts, fit_logistic, fit_shifts
from fedlas.binary.positive import Positive, positive_class
from fedlas.stats.degrees import (
    critical_t,
    critical_t_values,
    two_sided_p_value,
    two_sided_p_values,
    wald_p_value,
)
from fedlas.stats.estimates import Estimate
from fedlas.stats.intervals import Interval, check_confidence_level, normal_interval
from fedlas.stats.proportion import clopper_pearson_intervals, poisson_binomial_p_values

if TYPE_CHECKING:
    from fedlas._core.types import BoolArray, FloatArray, IntArray
    from fedlas.predictions import Predictions

_SINGULAR = 1e-10
"""Determinant of a correlation of two numbers below which one is taken to be a multiple of the other."""


@dataclass(frozen=True)
class LogisticRecalibration:
    """Coefficients of a logistic regression of the outcomes on the log-odds, and O/E ratio.

    Attributes:
        slope: ``b`` of ``log-odds(y) = a + b log-odds(p)``. 1 if calibrated; below 1 the probabilities are too extreme,
            above 1 too close to each other.
        intercept: ``a`` of the same regression; 0 if calibrated. It is the correction at a probability of one half.
        in_the_large: The intercept if the slope is fixed at 1: by how much the log-odds are too low on the whole.
        observed_to_expected: Number of positives over the sum of their probabilities. 1 if calibrated; above 1 the
            model expects too few. Its interval is symmetric on the logarithm, and takes the probabilities as given.
        p_value: P-value of the likelihood-ratio test of ``a = 0`` and ``b = 1`` together, with two degrees of freedom;
            with weights or clusters of Wald's; NaN with fewer than three clusters, whose covariance is singular.
        left_out: Samples of a probability of exactly 0 or 1, which have no log-odds: all but the ratio leave them out.
    """

    slope: Interval
    intercept: Interval
    in_the_large: Interval
    observed_to_expected: Interval
    p_value: float
    left_out: int = 0


def logistic_recalibration(
    predictions: Predictions, *, event: int | str | None = None, confidence_level: float = 0.95
) -> LogisticRecalibration:
    """Compute calibration slope and intercept, calibration in the large, and the observed-to-expected ratio.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.

    Returns:
        The four numbers, each with standard error and interval. Those of slope and intercept are Wald's, from the
        curvature of the likelihood; that of calibration in the large is White's, which holds for any slope. With
        weights or clusters all are robust (sandwich) intervals, of sums over clusters, with
        Student's degrees of freedom for the effective number of clusters; with weights alone no variance is below that
        of independent events of the fitted probabilities. With a single cluster, which shows nothing of others, their
        ends are NaN.

    Raises:
        InputError: If only one outcome occurs, or if a threshold separates the outcomes, so that the likelihood rises
            with the slope without end; or as all functions here, for predictions of other than two classes without
            ``event``.

    Note:
        Assumes that samples are independent, or clusters of them are, and that the relation of the log-odds is a
        straight line. A slope of 1 and an intercept of 0 do not show that a model is calibrated: a curve can have the
        right line. See :func:`~fedlas.binary.integrated_calibration`.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> too_extreme = Predictions(torch.stack([torch.zeros(4000), 2 * logits], dim=1), happened)
        >>> found = logistic_recalibration(too_extreme)
        >>> round(found.slope.value, 2), found.slope.low < 0.5 < found.slope.high
        (0.49, True)

    Source:
        Cox, "Two further applications of a model for binary regression", Biometrika 45 (1958), for slope and intercept;
        Miller, Hui, Tierney, "Validation techniques for logistic regression models" (1991), for the test; Van Calster
        et al., "Calibration: the Achilles heel of predictive analytics", BMC Medicine 17 (2019); Debray et al., "A
        guide to systematic review and meta-analysis of prediction model performance", BMJ 356 (2017), for the standard
        error of the ratio.
    """
    data = positive_class(predictions, event, both_outcomes=True)
    return compute_recalibration(data, check_confidence_level(confidence_level))


def compute_recalibration(data: Positive, confidence_level: float) -> LogisticRecalibration:
    """Return the logistic recalibration of samples with both outcomes."""
    fit = data.table(fit_recalibration)
    shift = data.table(_fit_shift)
    # Weights and clusters leave no likelihood to compare, so that Wald's statistic stands in.
    line = fit.coefficients[0]
    unchanged = fit.samples.log_likelihood(fit.samples.log_odds)
    statistic = float(2.0 * (fit.log_likelihood - unchanged)[0])
    if not data.is_iid:
        away = line - np.array([1.0, 0.0])
        # NaN of a singular covariance stays.
        statistic = float(np.min([_wald_statistic(each[0], away) for each in fit.covariances]))
    slope, intercept, in_the_large = (
        normal_interval(
            float(value), float(error), confidence_level=confidence_level, degrees=float(degrees)
        )
        for value, error, degrees in (
            *zip(line, fit.errors(np.eye(2))[0], fit.degrees[0], strict=True),
            (*shift.value, *shift.error, *shift.degrees),
        )
    )
    return LogisticRecalibration(
        slope=slope,
        intercept=intercept,
        in_the_large=in_the_large,
        observed_to_expected=ratio_interval(data, confidence_level),
        p_value=wald_p_value(statistic, float(fit.joint_degrees[0])),
        left_out=data.left_out or 0,
    )


def ratio_interval(data: Positive, confidence_level: float) -> Interval:
    """Return the O/E ratio of samples with an event, with its log-normal interval.

    Raises:
        InputError: If all probabilities are 0.
    """
    if not data.probability.any():
        raise InputError(
            "at least one probability must be above 0",
            "only zeros",
            "Check the logits for extreme values.",
        )
    ratio, relative, degrees = observed_to_expected(data)
    with np.errstate(over="ignore"):  # of an event of hardly any weight: no end
        reach = float(np.exp(critical_t(confidence_level, degrees) * relative))
    return Interval(
        ratio,
        ratio / reach,
        ratio * reach,
        confidence_level,
        0,
        float("nan"),
        ratio * relative,
        "log-normal",
        degrees,
    )


def observed_to_expected(
    data: Positive, continuity_correction: float = 0.0
) -> tuple[float, float, float]:
    """Return the O/E ratio, the standard error of its logarithm, and the degrees of freedom of the error.

    ``continuity_correction`` events are observed and expected beside those of the samples.
    """
    observed = float(data.counts @ data.outcome) + continuity_correction
    ratio = observed / (float(data.counts @ data.probability) + continuity_correction)
    if data.is_iid or continuity_correction:
        # The logarithm is nearly normal; the variance is that of a binomial count of positives.
        share = min(observed / data.num_samples, 1.0)
        return ratio, math.sqrt((1.0 - share) / observed), math.inf
    gaps = data.outcome - ratio * data.probability
    error, degrees = data.table(GroupedSamples.from_positive).event_sum_error(gaps)
    return ratio, float(error[0]) / observed, float(degrees[0])


def _wald_statistic(covariance: FloatArray, away: FloatArray) -> float:
    """Return the Wald statistic of two parameters, or NaN if their covariance is singular, as with two clusters."""
    (first, mixed), (_, last) = covariance.tolist()
    determinant = first * last - mixed**2
    if not determinant > _SINGULAR * first * last:
        return math.nan
    x, y = away.tolist()
    return float((last * x * x - 2.0 * mixed * x * y + first * y * y) / determinant)


def fit_recalibration(data: Positive) -> LogisticFit:
    """Return the fit of slope and intercept of the logistic recalibration, of one group.

    Raises:
        InputError: If the samples have none.
    """
    samples = data.table(_finite_samples)
    overlap = _outcomes_overlap(samples)
    if overlap.all() and (fit := _fit_lines(samples)).exists.all():
        return fit
    raise _missing_line_error(data.finite, is_separated=not overlap.all())


def _finite_samples(data: Positive) -> GroupedSamples:
    """Return the samples of one group whose log-odds are finite.

    Raises:
        InputError: If there are none.
    """
    if data.is_certain is not None and data.is_certain.all():
        raise InputError(
            "some probabilities must be neither 0 nor 1 for a calibration slope to exist",
            f"0 or 1 for all {data.num_samples:,} samples",
            "Pass probabilities in place of predicted classes.",
        )
    return GroupedSamples.from_positive(data.finite)


def _missing_line_error(data: Positive, *, is_separated: bool) -> InputError:
    """Return the error of samples without a calibration slope."""
    fix = "Use more test samples; AUROC and Brier score can be computed on these."
    if not is_separated:
        return InputError(
            "the log-odds must differ beyond rounding where both outcomes occur, for a calibration slope to exist",
            "log-odds that do not",
            fix,
        )
    yes, no = (data.log_odds[data.outcome == each] for each in (1.0, 0.0))
    if not len(yes) or not len(no):
        return InputError(
            "both outcomes must occur at probabilities other than 0 and 1 for a calibration slope to exist",
            f"{len(yes):,} events and {len(no):,} others there",
            fix,
        )
    threshold = float(yes.min() if no.max() <= yes.min() else yes.max())
    got = (
        f"log-odds {threshold:g} for all samples"
        if data.log_odds.min() == data.log_odds.max()
        else f"outcomes that the threshold {threshold:g} separates perfectly"
    )
    return InputError(
        "the log-odds of both outcomes must overlap for a calibration slope to exist", got, fix
    )


def _outcomes_overlap(samples: GroupedSamples) -> BoolArray:
    """Return whether the log-odds of both outcomes overlap in each group ``(G,)``."""
    happened = samples.outcome > 0
    most_yes, least_yes, most_no, least_no = (
        samples.sum_by_group(np.where(side, samples.log_odds, -sign * np.inf), function)
        for side in (happened, ~happened)
        for sign, function in ((1.0, np.maximum), (-1.0, np.minimum))
    )
    both = np.isfinite(most_yes) & np.isfinite(most_no)
    return both & (most_no > least_yes) & (most_yes > least_no)


def _fit_lines(samples: GroupedSamples) -> LogisticFit:
    """Return the fit of each group's slope and intercept; outcomes must overlap in each."""
    # The unit of a column is its spread, by the weights, so that neither the size of the logits nor that of a weight
    # makes the curvature singular.
    center = samples.mean(samples.log_odds)
    away = samples.log_odds - samples.broadcast(center)
    unit = np.sqrt(samples.mean(away**2))
    columns = np.stack([away / samples.broadcast(unit), np.ones(len(away))])
    # From the coefficients of the standardized column to those of the log-odds: b = s / unit, a = c - s center / unit.
    back = np.zeros((len(unit), 2, 2))
    back[:, 0, 0], back[:, 1, 0], back[:, 1, 1] = 1.0 / unit, -center / unit, 1.0
    # The line of a calibrated model is where most fits end nearby.
    return fit_logistic(samples, columns, back, start=np.stack([unit, center], axis=1))


def _fit_shift(data: Positive) -> Shifts:
    """Return calibration in the large of one group."""
    return fit_shifts(data.table(_finite_samples))


def shift_influence(data: Positive) -> FloatArray:
    """Return the influence of each sample on calibration in the large ``(N,)``, before weighting; mean 0."""
    return _over_all_samples(data, data.table(_fit_shift).influence)


def line_influence(data: Positive, index: int) -> FloatArray:
    """Return the influence of each sample on slope (0) or intercept (1) ``(N,)``, before weighting; mean 0."""
    fit = data.table(fit_recalibration)
    return _over_all_samples(data, fit.samples.size * fit.influence[index])


def _over_all_samples(data: Positive, influence: FloatArray) -> FloatArray:
    """Return influences on a mean of the samples with finite log-odds as those of all samples ``(N,)``."""
    if data.is_certain is None:
        return influence
    whole = np.zeros(data.num_samples)
    inside = ~data.is_certain
    whole[inside] = influence * data.num_samples / data.counts[inside].sum()
    return whole


def wald_estimate(interval: Interval, ideal: float) -> Estimate:
    """Return an estimate with Wald's test against ``ideal``, or untested without a standard error."""
    p = None
    if 0.0 < interval.standard_error < math.inf:
        p = two_sided_p_value(
            (interval.value - ideal) / interval.standard_error,
            math.inf if interval.degrees is None else interval.degrees,
        )
    return estimate_with_test(interval, p, "Wald")


def estimate_with_test(interval: Interval, p: float | None, test: str) -> Estimate:
    """Return an interval as an estimate, with the p-value of a test."""
    ends = (interval.low, interval.high)
    level = interval.confidence_level
    return Estimate(interval.value, *ends, p=p, confidence_level=level, test=test)


def event_count_test(data: Positive) -> tuple[float | None, str]:
    """Return the p-value and name of the test of the number of events; None for one cluster."""
    p_values, test = _event_count_tests(data.table(GroupedSamples.from_positive))
    p = float(p_values[0])
    return (None, "") if math.isnan(p) else (p, test)


def _event_count_tests(samples: GroupedSamples) -> tuple[FloatArray, str]:
    """Return the p-value of the number of events in each group ``(G,)``, NaN for one cluster, and the test's name."""
    if samples.is_iid:
        return poisson_binomial_p_values(
            samples.probability, samples.size, samples.events
        ), "Poisson binomial"
    gaps = samples.outcome - samples.probability
    mean = samples.mean(gaps)
    error, degrees = samples.event_sum_error(gaps - samples.broadcast(mean))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Without an error every probability is 0 or 1, and so is every outcome what it says, or none is.
        scores = np.where((error == 0.0) & (mean == 0.0), 0.0, mean * samples.size / error)
    return two_sided_p_values(scores, degrees), "Wald"


@dataclass(frozen=True)
class GroupRow:
    """Sample and event counts of a group, and its estimates; None if undefined."""

    num_samples: int
    events: int
    expected: float
    observed: float
    ratio: Estimate
    slope: Estimate | None
    shift: Estimate | None


def iter_group_rows(samples: GroupedSamples, confidence_level: float) -> Iterator[GroupRow]:
    """Yield the measures of each group in order."""
    events = samples.events
    expected = samples.mean(samples.probability)
    observed = samples.mean(samples.outcome)
    ratio = observed / np.maximum(expected, 1e-300)
    low, high = _ratio_intervals(samples, confidence_level)
    p_values, test = _event_count_tests(samples)

    # Lines only where both outcomes occur and no threshold separates them.
    finite, num_finite = samples.finite()
    chosen = (num_finite > 0) & (expected > 0.0)
    if chosen.any():
        chosen[num_finite > 0] &= _outcomes_overlap(finite)
    lines: Iterator[tuple[Estimate | None, Estimate | None]] = iter(())
    if chosen.any():
        left_out = (samples.size - num_finite)[chosen]
        lines = _recalibration_estimates(
            finite.select(chosen[num_finite > 0]), left_out, confidence_level
        )
    arrays = (samples.size, events, expected, observed, ratio, low, high, p_values, chosen)
    for row in zip(*(each.tolist() for each in arrays), strict=True):
        count, happened, mean_probability, share, value, low_end, high_end, p, has_line = row
        slope, shift = next(lines) if has_line else (None, None)
        is_tested = not math.isnan(p)
        estimate = Estimate(
            value,
            low_end,
            high_end,
            p=p if is_tested else None,
            confidence_level=confidence_level,
            test=test if is_tested else "",
        )
        yield GroupRow(count, happened, mean_probability, share, estimate, slope, shift)


def _ratio_intervals(
    samples: GroupedSamples, confidence_level: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of intervals of the O/E ratio ``(G,)``: exact ones of the share, or log-normal ones."""
    observed = samples.mean(samples.outcome)
    mean = np.maximum(samples.mean(samples.probability), 1e-300)
    if samples.is_iid:
        low, high = clopper_pearson_intervals(
            samples.events, samples.size, confidence_level=confidence_level
        )
        return low / mean, high / mean
    ratio = observed / mean
    gaps = samples.outcome - samples.broadcast(ratio) * samples.probability
    error, degrees = samples.event_sum_error(gaps)
    score = critical_t_values(confidence_level, degrees)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        reach = np.exp(score * error / (observed * samples.size))
        # The logarithm of no event has no interval: of as many samples as the weights, or clusters, are worth the share
        # of events is below this end (Clopper and Pearson).
        worth = samples.effective_samples()
        end = -np.expm1(np.log((1.0 - confidence_level) / 2.0) / worth) / mean
        high = np.where(observed > 0, ratio * reach, np.where(degrees > 0.0, end, math.nan))
        return np.where(observed > 0, ratio / reach, high * 0.0), high


def _recalibration_estimates(
    samples: GroupedSamples, left_out: IntArray, confidence_level: float
) -> Iterator[tuple[Estimate | None, Estimate | None]]:
    """Yield slope and calibration in the large of each group, in which outcomes must overlap."""
    fit = _fit_lines(samples)
    error = np.where(fit.exists, fit.errors(np.eye(2)[:1])[:, 0], math.inf)
    slope = fit.coefficients[:, 0], error, samples.degrees(fit.influence[0])
    shift = fit_shifts(samples)
    yield from zip(
        _wald_estimates(*slope, 1.0, left_out, confidence_level),
        _wald_estimates(shift.value, shift.error, shift.degrees, 0.0, left_out, confidence_level),
        strict=True,
    )


def _wald_estimates(
    value: FloatArray,
    error: FloatArray,
    degrees: FloatArray,
    ideal: float,
    left_out: IntArray,
    confidence_level: float,
) -> Iterator[Estimate | None]:
    """Yield estimates of values ``(G,)`` with Wald tests against ``ideal``; None without a standard error."""
    has_error = (error > 0.0) & (error < math.inf)
    error = np.where(has_error, error, 1.0)
    reach = critical_t_values(confidence_level, degrees) * error
    p_values = two_sided_p_values((value - ideal) / error, degrees)
    arrays = (has_error, left_out, value, value - reach, value + reach, p_values)
    for is_measured, count, number, low, high, p in zip(
        *(each.tolist() for each in arrays), strict=True
    ):
        if not is_measured:
            yield None
            continue
        yield Estimate(
            number,
            low,
            high,
            p=p,
            confidence_level=confidence_level,
            test="Wald",
            left_out=count or None,
        )
