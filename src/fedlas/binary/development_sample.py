"""Sample size of the development of a model of two classes: little shrinkage, little optimism, a precise mean risk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fedlas._core.check import Argument, InputError, check_count, check_number
from fedlas.binary.sample_size import align_columns, log_odds_from_auroc, require_share
from fedlas.stats.intervals import check_confidence_level

_NAMES = {
    "shrinkage": "little shrinkage",
    "optimism": "little optimism of R2",
    "mean_risk": "precise mean risk",
}


@dataclass(frozen=True, repr=False)
class DevelopmentSize:
    """Required sample size to develop a model; prints as a table.

    Attributes:
        samples: The most that one of the criteria needs.
        events: Events to expect among them.
        by_criterion: Samples for each criterion: ``"shrinkage"``, ``"optimism"`` and ``"mean_risk"``.
        goals: What each asks for, as text.
        parameters: Number of candidate parameters.
        prevalence: Share of events that is anticipated.
        r2: Cox and Snell's R2 that is anticipated.
        max_r2: The largest that R2 can be with this prevalence.
    """

    samples: int
    events: float
    by_criterion: Mapping[str, int]
    goals: Mapping[str, str]
    parameters: int
    prevalence: float
    r2: float
    max_r2: float

    @property
    def events_per_parameter(self) -> float:
        """Events for each candidate parameter."""
        return self.events / self.parameters

    def __str__(self) -> str:
        """Return a table with one line per criterion, and the sample size for all of them."""
        rows = [("criterion", "goal", "samples", "events")]
        for name, samples in self.by_criterion.items():
            events = f"{self.prevalence * samples:,.0f}"
            rows.append((_NAMES[name], self.goals[name], f"{samples:,}", events))
        rows.append(("all of them", "", f"{self.samples:,}", f"{self.events:,.0f}"))
        share = 100 * self.r2 / self.max_r2
        lines = align_columns(rows, left=2)
        lines.append(f"{self.parameters} parameters: {self.events_per_parameter:.1f} events each.")
        lines.append(f"R2 (Cox and Snell) is taken as {self.r2:.3f}, {share:.0f} % of its maximum.")
        return "\n".join(lines)

    __repr__ = __str__


def development_size(
    prevalence: float | None = None,
    auroc: float | None = None,
    *,
    parameters: int,
    r2: float | None = None,
    shrinkage: float = 0.9,
    optimism: float = 0.05,
    margin: float = 0.05,
    confidence_level: float = 0.95,
) -> DevelopmentSize:
    """Return the sample size with which a logistic regression can be developed without much overfitting.

    Args:
        prevalence: Share of events that is anticipated, in (0, 1).
        auroc: AUROC that is anticipated, in (0.5, 1), from which R2 follows; None if ``r2`` is passed.
        parameters: Number of candidate parameters, at least 1: a category counts one less than its levels, a spline its
            terms, an interaction its products.
        r2: Cox and Snell's R2 that is anticipated, such as that of an earlier model after adjustment for optimism.
        shrinkage: Expected factor by which coefficients must be shrunk, in (0, 1): at least this.
        optimism: Difference of Nagelkerke's R2 in the data and in others, in (0, 1): at most this.
        margin: Half the width of the interval of the mean risk, in (0, 1).
        confidence_level: Level of that interval, in (0, 1).

    Returns:
        The sizes, which print as a table.

    Raises:
        InputError: If a number is out of range, prevalence is missing, neither or both of ``auroc`` and ``r2`` are
            passed, or R2 exceeds its maximum or its share of ``shrinkage``.

    Note:
        The formulas are about a logistic regression by maximum likelihood. Trees, forests and networks need several
        times as many events; penalties, such as ridge, need less, but are themselves uncertain in small samples. R2
        of an AUROC is that of normal log-odds with one variance in events and others, summed, not simulated.

    Example:
        >>> print(development_size(0.174, parameters=24, r2=0.288))
        criterion              goal      samples  events
        little shrinkage       >= 0.9        623     108
        little optimism of R2  <= 0.05       662     115
        precise mean risk      +- 0.05       221      38
        all of them                          662     115
        24 parameters: 4.8 events each.
        R2 (Cox and Snell) is taken as 0.288, 48 % of its maximum.

    Source:
        Riley et al., "Calculating the sample size required for developing a clinical prediction model", BMJ 368 (2020);
        Riley et al., "Minimum sample size for developing a multivariable prediction model: part II", Statistics in
        Medicine 38 (2019); of an AUROC Riley, Van Calster & Collins, "A note on estimating the Cox-Snell R2 from a
        reported C statistic", Statistics in Medicine 40 (2021).
    """
    share = require_share("prevalence", prevalence, 0.0)
    count = check_count("parameters", parameters)
    check_confidence_level(confidence_level)
    least, most, half = (
        check_number(name, value, low=0, high=1, low_open=True, high_open=True)
        for name, value in (("shrinkage", shrinkage), ("optimism", optimism), ("margin", margin))
    )
    max_r2 = 1 - math.exp(2 * _mean_log_likelihood(share))
    fit = _anticipated_r2(share, auroc, r2, max_r2, least)

    score = NormalDist().inv_cdf(0.5 + confidence_level / 2)
    needed = {
        "shrinkage": _samples_for_shrinkage(count, fit, least),
        "optimism": _samples_for_shrinkage(count, fit, fit / (fit + most * max_r2)),
        "mean_risk": (score / half) ** 2 * share * (1 - share),
    }
    # There must be an event and another sample.
    fewest = 1.0 / min(share, 1.0 - share)
    sizes = {name: math.ceil(max(samples, fewest)) for name, samples in needed.items()}
    goals = {
        "shrinkage": f">= {least:g}",
        "optimism": f"<= {most:g}",
        "mean_risk": f"+- {half:g}",
    }
    samples = max(sizes.values())
    return DevelopmentSize(samples, share * samples, sizes, goals, count, share, fit, max_r2)


def _anticipated_r2(
    prevalence: float, auroc: float | None, r2: float | None, max_r2: float, shrinkage: float
) -> float:
    """Return Cox and Snell's R2 as passed, or that of an AUROC; raise InputError if it cannot be."""
    if (auroc is None) == (r2 is None):
        raise InputError(
            "exactly one of auroc and r2 is required",
            "none" if r2 is None else "both",
            ("Pass ", Argument("auroc"), ", or ", Argument("r2"), " of an earlier model."),
        )
    limit = min(max_r2, shrinkage)
    if r2 is not None:
        return check_number("r2", r2, low=0, high=limit, low_open=True, high_open=True)
    area = require_share("auroc", auroc, 0.5)
    log_odds = log_odds_from_auroc(area, prevalence)
    z = log_odds.places
    # p log p + (1 - p) log(1 - p), the log-likelihood of a calibrated model, is p z - log(1 + exp z).
    expected = log_odds.mean(log_odds.probability * z - np.logaddexp(0.0, z))
    implied = 1 - math.exp(2 * (_mean_log_likelihood(prevalence) - expected))
    return check_number("R2 of auroc", implied, low=0, high=limit, low_open=True, high_open=True)


def _mean_log_likelihood(prevalence: float) -> float:
    """Return the log-likelihood a sample of the model that knows the prevalence alone."""
    return prevalence * math.log(prevalence) + (1 - prevalence) * math.log1p(-prevalence)


def _samples_for_shrinkage(parameters: int, r2: float, shrinkage: float) -> float:
    """Return the sample size at which coefficients are expected to need this factor of shrinkage."""
    return parameters / ((shrinkage - 1) * math.log1p(-r2 / shrinkage))
