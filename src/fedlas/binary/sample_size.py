"""Sample size of a validation study for given interval widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedlas._core.check import Argument, InputError, check_number
from fedlas.binary.discrimination import auroc_estimate
from fedlas.binary.positive import positive_class
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions

_NODES = 40_001
"""Places of the log-odds at which expectations are summed."""
_MOST = 10**12
"""Samples that no study has: a width that takes more is refused."""
_NAMES = {
    "observed_to_expected": "observed / expected",
    "slope": "calibration slope",
    "auroc": "AUROC",
    "net_benefit": "net benefit, standardized",
}


class LogOddsDistribution(NamedTuple):
    """Discrete distribution of log-odds: values ``(G,)`` with weights that add up to 1."""

    places: FloatArray
    weights: FloatArray

    @property
    def probability(self) -> FloatArray:
        """Probabilities ``(G,)`` of the log-odds."""
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * self.places)))

    def mean(self, values: FloatArray) -> float:
        """Return the weighted mean of ``values (G,)``."""
        return float(self.weights @ values)


@dataclass(frozen=True, repr=False)
class ValidationSize:
    """Required sample size of a validation study; prints as a table.

    Attributes:
        samples: The most that one of the measures needs.
        events: Events to expect among them.
        by_measure: Samples for each measure, by name.
        values: Anticipated value of each measure.
        widths: Width of its interval that is wanted.
        prevalence: Share of events that is anticipated.
        mean_risk: Mean probability of the distribution of the log-odds.
        confidence_level: Level of the intervals.
    """

    samples: int
    events: float
    by_measure: Mapping[str, int]
    values: Mapping[str, float]
    widths: Mapping[str, float]
    prevalence: float
    mean_risk: float
    confidence_level: float = 0.95

    def __str__(self) -> str:
        """Return a table with one line per measure, and the sample size for all of them."""
        rows = [("measure", "expected", "width", "samples", "events")]
        for name, samples in self.by_measure.items():
            events = f"{self.prevalence * samples:,.0f}"
            value, width = f"{self.values[name]:.3g}", f"{self.widths[name]:.3g}"
            rows.append((_NAMES[name], value, width, f"{samples:,}", events))
        rows.append(("all of them", "", "", f"{self.samples:,}", f"{self.events:,.0f}"))
        lines = align_columns(rows)
        lines.append(f"Width: of the {100 * self.confidence_level:g} % interval.")
        if abs(math.log(self.mean_risk / self.prevalence)) > math.log(1.1):
            risk, share = (f"{100 * each:.2g} %" for each in (self.mean_risk, self.prevalence))
            text = f"The mean risk of the distribution is {risk}, not {share}: check it, as the slope depends on it."
            lines.append(text)
        return "\n".join(lines)

    __repr__ = __str__


def validation_size(
    prevalence: float | None = None,
    auroc: float | None = None,
    *,
    lp_normal: Sequence[float] | None = None,
    risk_beta: Sequence[float] | None = None,
    predictions: Predictions | None = None,
    event: int | str | None = None,
    width_observed_to_expected: float = 0.2,
    width_slope: float = 0.2,
    width_auroc: float = 0.1,
    threshold: float | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    width_net_benefit: float | None = None,
    confidence_level: float = 0.95,
) -> ValidationSize:
    """Return the sample size with which a validation study measures a calibrated model precisely.

    The measures are observed over expected, calibration slope, AUROC (C statistic), and with a threshold the
    standardized net benefit. Each needs as many samples as make its interval as narrow as asked for.

    Args:
        prevalence: Share of events that is anticipated, in (0, 1); None: the mean risk of ``predictions``.
        auroc: AUROC that is anticipated, in (0.5, 1); None: that of ``predictions``.
        lp_normal: Mean and standard deviation of the log-odds (linear predictor), if they are normal.
        risk_beta: Both parameters of the distribution of the probabilities, if it is a beta distribution.
        predictions: Predictions whose log-odds are like those of the study, such as those of the development; without
            these three, events and others have normal log-odds of one variance, which ``auroc`` and ``prevalence`` fix.
        event: Class of the predictions to set against the rest, its name or number; None: the event of two.
        width_observed_to_expected: Width of the interval of observed over expected.
        width_slope: The same of the slope.
        width_auroc: The same of AUROC.
        threshold: Probability from which on one acts; None leaves net benefit out.
        sensitivity: Share of events above the threshold; None: by the distribution of the log-odds.
        specificity: Share of others below it; None likewise.
        width_net_benefit: Width of the interval of the net benefit over the prevalence; None: 0.2.
        confidence_level: Level of the intervals, in (0, 1).

    Returns:
        The sizes, which print as a table.

    Raises:
        InputError: If a number is out of range, more than one distribution is named, prevalence or AUROC is neither
            passed nor known, an option has no effect, or an interval takes more than 10^12 samples.

    Note:
        For a rare event an interval of O/E of width 0.2 takes many samples: Riley et al. choose 1 for a prevalence of
        1.8 %, which is an interval of 0.62 to 1.62. Expectations are sums over the distribution, not simulated, so that
        numbers differ from ``pmvalsampsize`` by its chance (below 1 % with a million draws).

    Example:
        >>> print(validation_size(0.018, 0.8, lp_normal=(-5, 2.5), width_observed_to_expected=1))
        measure              expected  width  samples  events
        observed / expected         1      1      906      16
        calibration slope           1    0.2    4,554      82
        AUROC                     0.8    0.1    4,252      77
        all of them                             4,554      82
        Width: of the 95 % interval.
        The mean risk of the distribution is 5.2 %, not 1.8 %: check it, as the slope depends on it.

    Source:
        Riley et al., "Minimum sample size for external validation of a clinical prediction model with a binary
        outcome", Statistics in Medicine 40 (2021); Riley et al., "Evaluation of clinical prediction models (part 3)",
        BMJ 384 (2024); Newcombe, Statistics in Medicine 25 (2006), for the variance of AUROC.
    """
    check_confidence_level(confidence_level)
    widths = {
        "observed_to_expected": width_observed_to_expected,
        "slope": width_slope,
        "auroc": width_auroc,
        "net_benefit": 0.2 if width_net_benefit is None else width_net_benefit,
    }
    for name, width in widths.items():
        check_number(f"width_{name}", width, low=0.0, low_open=True)
    _check_option_used(
        "threshold",
        threshold,
        sensitivity=sensitivity,
        specificity=specificity,
        width_net_benefit=width_net_benefit,
    )
    _check_option_used("predictions", predictions, event=event)
    log_odds = _chosen_distribution(lp_normal, risk_beta, predictions, event)
    if predictions is not None and log_odds is not None:
        data = positive_class(predictions, event, both_outcomes=True)
        prevalence = log_odds.mean(log_odds.probability) if prevalence is None else prevalence
        auroc = auroc_estimate(data, confidence_level).value if auroc is None else auroc
    share = require_share("prevalence", prevalence, 0.0)
    area = require_share("auroc", auroc, 0.5)
    log_odds = log_odds or log_odds_from_auroc(area, share)

    score = NormalDist().inv_cdf(0.5 + confidence_level / 2)
    needed = {
        "observed_to_expected": _samples_for_ratio(
            share, math.asinh(width_observed_to_expected / 2) / score
        ),
        "slope": _samples_for_slope(log_odds, width_slope / (2 * score)),
        "auroc": _samples_for_auroc(area, share, width_auroc / (2 * score)),
    }
    # No measure has a value without an event and another sample.
    fewest = 1.0 / min(share, 1.0 - share)
    sizes = {
        name: _round_up_samples(name, max(samples, fewest)) for name, samples in needed.items()
    }
    values = {"observed_to_expected": 1.0, "slope": 1.0, "auroc": area}
    if threshold is not None:
        limit = check_number("threshold", threshold, low=0, high=1, low_open=True, high_open=True)
        hits, passes = _sensitivity_and_specificity(log_odds, limit, sensitivity, specificity)
        weight = (1 - share) / share * limit / (1 - limit)
        values["net_benefit"] = hits - weight * (1 - passes)
        variance = (
            hits * (1 - hits) / share
            + weight**2 * passes * (1 - passes) / (1 - share)
            + weight**2 * (1 - passes) ** 2 / (share * (1 - share))
        )
        error = widths["net_benefit"] / (2 * score)
        sizes["net_benefit"] = _round_up_samples(
            "net_benefit", max(variance / error / error, fewest)
        )
    samples = max(sizes.values())
    return ValidationSize(
        samples, share * samples, sizes, values, {name: widths[name] for name in sizes}, share,
        log_odds.mean(log_odds.probability), confidence_level,
    )  # fmt: skip


def align_columns(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the rows of a table as lines; the first ``left`` columns start, the others end at one place."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{'<' if column < left else '>'}{wide[column]}}"
            for column, cell in enumerate(row)
        )
        for row in rows
    ]


def _check_option_used(needed: str, value: object, **options: Any) -> None:
    """Raise InputError for options that require ``needed`` when it is missing."""
    for name, option in options.items():
        if option is not None and value is None:
            raise InputError(
                f"requires {needed}",
                "none",
                ("Pass ", Argument(needed), ", or leave it out."),
                argument=name,
            )


def _round_up_samples(name: str, samples: float) -> int:
    """Return a required sample size rounded up, or raise InputError if it is too large."""
    if samples > _MOST:
        raise InputError(
            f"must be attainable with at most {_MOST:,} samples",
            f"{samples:.2g} for {_NAMES[name]}",
            "Ask for a wider interval, or check the distribution of the log-odds.",
            argument=f"width_{name}",
        )
    return math.ceil(samples)


def require_share(name: str, value: float | None, low: float) -> float:
    """Return ``value`` in ``(low, 1)``; raise InputError if it is missing, or a percentage."""
    if value is None:
        fixes = {
            "command": ("Pass ", Argument(name), ": the value expected in the study population."),
            "python": ("Pass ", Argument(name), ", or ", Argument("predictions"), "."),
        }
        raise InputError(
            "is required: the value that you expect",
            "none",
            fixes["python"],
            argument=name,
            fixes=fixes,
        )
    if isinstance(value, int | float) and 1 < value < 100 and low < value / 100:
        fix = f"Pass {value / 100:g} for {value:g} %."
        raise InputError(f"must be a proportion in ({low:g}, 1)", f"{value:g}", fix, argument=name)
    return check_number(name, value, low=low, high=1.0, low_open=True, high_open=True)


def _chosen_distribution(
    lp_normal: Sequence[float] | None,
    risk_beta: Sequence[float] | None,
    predictions: Predictions | None,
    event: int | str | None,
) -> LogOddsDistribution | None:
    """Return the distribution of log-odds that was passed, or None."""
    named = {"lp_normal": lp_normal, "risk_beta": risk_beta, "predictions": predictions}
    chosen = [name for name, value in named.items() if value is not None]
    if len(chosen) > 1:
        fix = "Pass one of them."
        raise InputError(
            "at most one of lp_normal, risk_beta and predictions can be passed",
            ", ".join(chosen),
            fix,
        )
    if predictions is not None:
        data = positive_class(predictions, event)
        return LogOddsDistribution(data.log_odds, data.counts / data.num_samples)
    if lp_normal is not None:
        mean, deviation = _check_pair("lp_normal", lp_normal, "mean and standard deviation")
        return _normal_mixture(
            [(1.0, mean)], check_number("lp_normal", deviation, low=0, low_open=True)
        )
    if risk_beta is None:
        return None
    a, b = (
        check_number("risk_beta", value, low=0, low_open=True)
        for value in _check_pair("risk_beta", risk_beta, "two parameters")
    )
    # Steps are small about the mode, where a and b are large, and about 0, where they are small, and grow outward.
    mode = math.log(a) - math.log(b) if min(a, b) > 1.0 else 0.0
    unit = min(1.0, math.sqrt(1.0 / a + 1.0 / b))
    low, high = (math.asinh(40.0 / min(each, 1.0) / unit) for each in (a, b))
    steps = np.linspace(-low, high, _NODES)
    places = mode + unit * np.sinh(steps)
    logs = -a * np.logaddexp(0, -places) - b * np.logaddexp(0, places) + np.log(np.cosh(steps))
    weights = np.exp(logs - logs.max())
    return LogOddsDistribution(places, weights / weights.sum())


def _check_pair(name: str, values: Sequence[float], expected: str) -> tuple[float, float]:
    if len(values) != 2:
        raise InputError(
            f"must be {expected}", f"{len(values)} numbers", "Pass two numbers.", argument=name
        )
    first, second = (check_number(name, value) for value in values)
    return first, second


def _normal_mixture(parts: Sequence[tuple[float, float]], deviation: float) -> LogOddsDistribution:
    """Return a mixture of normal distributions with one deviation, from (weight, mean) ``parts``."""
    means = [mean for _, mean in parts]
    places = np.linspace(min(means) - 10 * deviation, max(means) + 10 * deviation, _NODES)
    densities = [w * np.exp(-0.5 * ((places - mean) / deviation) ** 2) for w, mean in parts]
    weights = np.sum(densities, axis=0)
    return LogOddsDistribution(places, weights / weights.sum())


def log_odds_from_auroc(auroc: float, prevalence: float) -> LogOddsDistribution:
    """Return the calibrated binormal distribution of log-odds with this AUROC and prevalence."""
    variance = 2 * NormalDist().inv_cdf(auroc) ** 2
    others = math.log(prevalence / (1 - prevalence)) - variance / 2
    parts = [(prevalence, others + variance), (1 - prevalence, others)]
    return _normal_mixture(parts, math.sqrt(variance))


def _samples_for_ratio(prevalence: float, error: float) -> float:
    """Return the sample size at which log(O/E) has this standard error."""
    return (1 - prevalence) / prevalence / error / error


def _samples_for_slope(log_odds: LogOddsDistribution, error: float) -> float:
    """Return the sample size at which the slope has this standard error, from the Fisher information per sample."""
    spread = log_odds.probability * (1 - log_odds.probability)
    total = log_odds.mean(spread)
    if total == 0.0:
        return math.inf
    center = log_odds.mean(spread * log_odds.places) / total
    information = log_odds.mean(spread * (log_odds.places - center) ** 2)
    return 1.0 / information / error / error if information > 0.0 else math.inf


def _samples_for_auroc(auroc: float, prevalence: float, error: float) -> float:
    """Return the smallest sample size at which Newcombe's standard error of AUROC is at most ``error``."""

    def variance(samples: float) -> float:
        others = samples / 2 - 1
        factor = 1 + others * (1 - auroc) / (2 - auroc) + others * auroc / (1 + auroc)
        return auroc * (1 - auroc) * factor / (samples**2 * prevalence * (1 - prevalence))

    low, high = 1, _MOST
    if variance(high) > error**2:
        return math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if variance(middle) <= error**2 else (middle + 1, high)
    return low


def _sensitivity_and_specificity(
    log_odds: LogOddsDistribution,
    threshold: float,
    sensitivity: float | None,
    specificity: float | None,
) -> tuple[float, float]:
    """Return sensitivity and specificity at a threshold, as passed or from the log-odds distribution."""
    risk = log_odds.probability
    above = (risk >= threshold).astype(np.float64)
    hits = log_odds.mean(risk * above) / log_odds.mean(risk)
    passes = log_odds.mean((1 - risk) * (1 - above)) / log_odds.mean(1 - risk)
    if sensitivity is not None:
        hits = check_number("sensitivity", sensitivity, low=0, high=1)
    if specificity is not None:
        passes = check_number("specificity", specificity, low=0, high=1)
    return hits, passes
