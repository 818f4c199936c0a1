"""Logistic recalibration: calibration slope and intercept, calibration in the large, and O/E ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError
from fedlas.binary.positive import Positive, positive_class
from fedlas.stats.degrees import critical_t, two_sided_p_value, wald_p_value
from fedlas.stats.estimates import Estimate
from fedlas.stats.intervals import Interval, check_confidence_level, normal_interval
from fedlas.stats.proportion import poisson_binomial_p_value

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions

_STEPS = 100
_ROUNDING = 1e-14
"""Relative error of a log-likelihood, a sum of many terms."""
_SINGULAR = 1e-10
"""Determinant of a correlation of two numbers below which one is taken to be a multiple of the other."""
_POINTS = 201
_KNOTS = {3: (0.1, 0.5, 0.9), 4: (0.05, 0.35, 0.65, 0.95), 5: (0.05, 0.275, 0.5, 0.725, 0.95)}
"""Quantiles at which the knots lie, by their number."""


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
    """

    slope: Interval
    intercept: Interval
    in_the_large: Interval
    observed_to_expected: Interval
    p_value: float


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
    line, fit = data.table(fit_recalibration)
    shift, shift_error, shift_degrees = _fit_shift(data)

    if not data.probability.any():
        raise InputError(
            "at least one probability must be above 0",
            "only zeros",
            "Check the logits for extreme values.",
        )
    ratio, relative, ratio_degrees = observed_to_expected(data)
    with np.errstate(over="ignore"):  # of an event of hardly any weight: no end
        reach = float(np.exp(critical_t(confidence_level, ratio_degrees) * relative))
    errors = fit.errors(np.eye(2))

    # Weights and clusters leave no likelihood to compare, so that Wald's statistic stands in.
    statistic = 2.0 * (fit.log_likelihood - log_likelihood(data, data.log_odds))
    if not data.is_iid:
        away = line - np.array([1.0, 0.0])
        # NaN of a singular covariance stays.
        statistic = float(np.min([_wald_statistic(each, away) for each in fit.covariances]))
    slope, intercept, in_the_large = (
        normal_interval(
            float(value), float(error), confidence_level=confidence_level, degrees=degrees
        )
        for value, error, degrees in (
            *zip(line, errors, fit.degrees, strict=True),
            (shift, shift_error, shift_degrees),
        )
    )
    return LogisticRecalibration(
        slope=slope,
        intercept=intercept,
        in_the_large=in_the_large,
        observed_to_expected=Interval(
            ratio,
            ratio / reach,
            ratio * reach,
            confidence_level,
            0,
            float("nan"),
            ratio * relative,
            "log-normal",
            ratio_degrees,
        ),
        p_value=wald_p_value(statistic, fit.joint_degrees),
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
    error, degrees = data.event_sum_error(gaps, data.probability)
    return ratio, error / observed, degrees


def _wald_statistic(covariance: FloatArray, away: FloatArray) -> float:
    """Return the Wald statistic of two parameters, or NaN if their covariance is singular, as with two clusters."""
    (first, mixed), (_, last) = covariance.tolist()
    determinant = first * last - mixed**2
    if not determinant > _SINGULAR * first * last:
        return math.nan
    x, y = away.tolist()
    return float((last * x * x - 2.0 * mixed * x * y + first * y * y) / determinant)


@dataclass(frozen=True)
class LogisticFit:
    """Covariances, degrees of freedom and influences of a logistic regression with ``k`` coefficients."""

    # `(k, k)`, see `EventSums.covariances`.
    covariances: list[FloatArray]
    # Degrees of freedom of each variance `(k,)`, and of the covariance.
    degrees: list[float]
    joint_degrees: float
    log_likelihood: float
    # How much each sample moves each coefficient `(N, k)`, before its weight.
    influence: FloatArray

    def errors(self, rows: FloatArray) -> FloatArray:
        """Return standard errors ``(G,)`` of the linear combinations ``rows (G, k)`` of the coefficients."""
        variances = [np.einsum("gi,ij,gj->g", rows, each, rows) for each in self.covariances]
        return np.asarray(np.sqrt(np.max(variances, axis=0)))


def fit_recalibration(data: Positive) -> tuple[FloatArray, LogisticFit]:
    """Return slope and intercept ``(2,)`` of the logistic recalibration, with their uncertainty."""
    happened = data.outcome > 0
    yes = data.log_odds[happened]
    no = data.log_odds[~happened]
    if no.max() <= yes.min() or yes.max() <= no.min():
        threshold = float(yes.min() if no.max() <= yes.min() else yes.max())
        constant = data.log_odds.min() == data.log_odds.max()
        raise InputError(
            "the log-odds of both outcomes must overlap for a calibration slope to exist",
            f"log-odds {threshold:g} for all samples"
            if constant
            else f"outcomes that the threshold {threshold:g} separates perfectly",
            "Use more test samples; AUROC and Brier score can be computed on these.",
        )
    # The unit of a column is its spread, so that no size of the logits makes the curvature singular.
    center = float(data.log_odds.mean())
    unit = float(data.log_odds.std())
    columns = np.stack([(data.log_odds - center) / unit, np.ones(data.num_samples)], axis=1)
    # From the coefficients of the standardized column to those of the log-odds: b = s / unit, a = c - s center / unit.
    back = np.array([[1.0 / unit, 0.0], [-center / unit, 1.0]])
    point, fit = fit_logistic(data, columns, back)
    return back @ point, fit


def fit_logistic(
    data: Positive, columns: FloatArray, back: FloatArray | None = None
) -> tuple[FloatArray, LogisticFit]:
    """Return logistic regression coefficients ``(k,)`` on ``columns (N, k)``, and their errors after ``back @``."""
    point = np.zeros(columns.shape[1])
    value = log_likelihood(data, np.zeros(data.num_samples))
    for _ in range(_STEPS):
        probability = _sigmoid(columns @ point)
        spread = data.counts * probability * (1.0 - probability)
        information = (columns * spread[:, None]).T @ columns
        gradient = columns.T @ (data.counts * (data.outcome - probability))
        step = np.linalg.lstsq(information, gradient, rcond=None)[0]
        # The likelihood rises by half of gradient times step. Where that is less than rounding of its sum, a comparison
        # says nothing: the step is taken whole, and its square is what is left of the distance.
        rounding = _ROUNDING * abs(value)
        is_last = float(gradient @ step) <= rounding
        # Newton's full step may pass the maximum far from it: it is halved until the likelihood does not fall.
        size = 1.0
        while (
            new := log_likelihood(data, columns @ (point + size * step))
        ) < value - rounding and not is_last:
            size /= 2.0
        point = point + size * step
        value = new
        if is_last:
            break
    covariance: FloatArray = np.asarray(np.linalg.inv(information), dtype=np.float64)
    back = np.eye(len(point)) if back is None else back
    probability = _sigmoid(columns @ point)
    factors = columns @ covariance @ back.T
    influence = factors * (data.outcome - probability)[:, None]
    if data.is_iid:
        endless = [math.inf] * len(point)
        return point, LogisticFit([back @ covariance @ back.T], endless, math.inf, value, influence)
    return point, LogisticFit(
        data.covariances(factors, probability),
        [data.degrees(column) for column in influence.T],
        data.degrees(influence),
        value,
        influence,
    )


@dataclass(frozen=True, eq=False)
class SplineCurve:
    """Spline-smoothed frequency of the positive class by its probability; float64 arrays ``(G,)``.

    Attributes:
        probability: Where the curve is given, ascending.
        frequency: The curve, in ``[0, 1]``.
        low: Lower end of its pointwise interval.
        high: Upper end.
        knots: Probabilities of the knots.
    """

    probability: FloatArray
    frequency: FloatArray
    low: FloatArray
    high: FloatArray
    knots: FloatArray


def spline_curve(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    num_knots: int = 5,
    confidence_level: float = 0.95,
) -> SplineCurve:
    """Fit a flexible calibration curve: a logistic regression of the outcomes on a spline of the log-odds.

    The spline is a restricted cubic one: cubic between the knots, a line beyond the outer ones.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.
        num_knots: 3, 4 or 5, at fixed quantiles of the log-odds; knots that coincide are one.
        confidence_level: Level of the pointwise interval, in ``(0, 1)``.

    Raises:
        InputError: If a threshold separates the outcomes, an option is out of range, or as all functions here, for
            predictions of other than two classes without ``event``.

    Note:
        It follows a step less closely than a loess. With weights or clusters the interval is that of the sandwich
        estimate.

    Example:
        >>> import torch
        >>> log_odds = torch.randn(2000, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(log_odds.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> curve = spline_curve(Predictions(torch.stack([0 * log_odds, log_odds], dim=1), happened))
        >>> bool(np.abs(curve.frequency - curve.probability).mean() < 0.03)
        True

    Source:
        Harrell, "Regression Modeling Strategies" (2015), sections 2.4.5 and 2.4.6, for the spline and its knots; Van
        Calster et al., Journal of Clinical Epidemiology 74 (2016), for the flexible curve.
    """
    if num_knots not in _KNOTS:
        raise InputError("num_knots must be 3, 4 or 5", num_knots, "Use 5, or 3 for few samples.")
    data = positive_class(predictions, event, both_outcomes=True)
    data.table(fit_recalibration)  # refuses outcomes that can be separated
    center = float(data.log_odds.mean())
    unit = float(data.log_odds.std())
    x = (data.log_odds - center) / unit
    knots = np.unique(np.quantile(x, _KNOTS[num_knots]))
    places = np.unique(np.quantile(x, np.linspace(0.0, 1.0, _POINTS)))
    point, fit = fit_logistic(data, _spline_basis(x, knots))
    columns = _spline_basis(places, knots)
    line = columns @ point
    reach = critical_t(check_confidence_level(confidence_level), fit.joint_degrees) * fit.errors(
        columns
    )
    probability, bends = (_sigmoid(center + unit * each) for each in (places, knots))
    return SplineCurve(
        probability, _sigmoid(line), _sigmoid(line - reach), _sigmoid(line + reach), bends
    )


def _spline_basis(x: FloatArray, knots: FloatArray) -> FloatArray:
    """Return the restricted cubic spline basis ``(N, K)``: constant, linear, and one term per inner knot."""
    columns = [np.ones_like(x), x]
    *bends, last_but_one, last = knots if len(knots) > 2 else (0.0, 1.0)

    def cube(knot: float) -> FloatArray:
        return np.maximum(x - knot, 0.0) ** 3

    for knot in bends:
        share = (last - knot) / (last - last_but_one)
        bend = cube(knot) - share * cube(last_but_one) + (share - 1.0) * cube(last)
        columns.append(bend / (last - knots[0]) ** 2)
    return np.stack(columns, axis=1)


def _fit_shift(data: Positive) -> tuple[float, float, float]:
    """Return the shift of all log-odds to the prevalence, its standard error and degrees of freedom."""
    prevalence = data.mean(data.outcome)
    target = math.log(prevalence) - math.log1p(-prevalence)
    low = target - float(data.log_odds.max())
    high = target - float(data.log_odds.min())
    # The mean probability rises with the shift. Newton's step is taken where it stays between shifts that are too low
    # and too high, and their middle elsewhere, as for logits of any size.
    shift = 0.5 * (low + high)
    for _ in range(_STEPS):
        probability = _sigmoid(data.log_odds + shift)
        information = data.mean(probability * (1.0 - probability))
        gap = prevalence - data.mean(probability)
        low, high = (shift, high) if gap > 0 else (low, shift)
        step = gap / information if information > 0 else math.inf
        new = shift + step if low < shift + step < high else 0.5 * (low + high)
        if new == shift or abs(gap) <= _ROUNDING * prevalence:
            break
        shift = new
    if information == 0.0:
        return shift, math.inf, math.inf
    # Where the slope is not 1 the outcomes vary otherwise than the shifted probabilities say: the sandwich estimate
    # takes their own squares, and holds for any slope.
    gaps = data.outcome - probability
    variance = float(np.max(data.covariances(np.ones(len(gaps)), probability)))
    return shift, math.sqrt(variance) / data.num_samples / information, data.degrees(gaps)


def shift_influence(data: Positive) -> FloatArray:
    """Return the influence of each sample on calibration in the large ``(N,)``, before weighting; mean 0."""
    probability = _sigmoid(data.log_odds + _fit_shift(data)[0])
    return np.asarray((data.outcome - probability) / data.mean(probability * (1.0 - probability)))


def log_likelihood(data: Positive, log_odds: FloatArray) -> float:
    """Return the log-likelihood of the outcomes, given log-odds ``(N,)``."""
    # `log(1 + exp(x))` in two steps, of which both take a sixth of the time of `logaddexp`, and neither overflows.
    signed = np.where(data.outcome > 0, -log_odds, log_odds)
    losses = np.maximum(signed, 0.0) + np.log1p(np.exp(-np.abs(signed)))
    return -float(data.counts @ losses)


def _sigmoid(log_odds: FloatArray) -> FloatArray:
    # tanh never overflows, unlike the exponential of a large negative number.
    return 0.5 * (1.0 + np.tanh(0.5 * log_odds))


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
    if data.is_iid:
        return poisson_binomial_p_value(
            data.probability, int(data.outcome.sum())
        ), "Poisson binomial"
    gaps = data.outcome - data.probability
    mean = data.mean(gaps)
    error, degrees = data.event_sum_error(gaps - mean, data.probability)
    if math.isnan(error):
        return None, ""
    away = mean * data.num_samples
    # Without an error every probability is 0 or 1, and so is every outcome what it says, or none is.
    return two_sided_p_value(
        away / error if error > 0 else math.inf if away else 0.0, degrees
    ), "Wald"
