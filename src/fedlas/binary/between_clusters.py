"""Heterogeneity of calibration and discrimination of an event between clusters, such as hospitals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import Argument, InputError
from fedlas.binary.many_groups import GroupedSamples, iter_group_rows
from fedlas.binary.positive import Positive, positive_class
from fedlas.binary.recalibration import observed_to_expected
from fedlas.metrics.ranking_scores import auroc_and_influence
from fedlas.predictions.any_predictions import require_labels
from fedlas.stats.degrees import critical_t
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.meta_analysis import RandomEffects, random_effects
from fedlas.stats.result_table import ResultTable

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

SCALES = {"observed_to_expected": "log", "slope": "identity", "auroc": "logit"}
"""Scale on which each measure is nearly normal over clusters."""


@dataclass(frozen=True)
class ClusterMeasures:
    """Measures of the event in one cluster; None if they cannot be estimated.

    Attributes:
        num_samples: Samples in the cluster.
        events: Number of them in which the event occurred.
        observed_to_expected: Observed over expected events, with a log-normal interval.
        slope: Calibration slope, with Wald's interval.
        auroc: Area under the ROC curve, with DeLong's interval in log-odds.

    Example:
        >>> ClusterMeasures(num_samples=12, events=0).slope is None
        True
    """

    num_samples: int
    events: int
    observed_to_expected: Estimate | None = None
    slope: Estimate | None = None
    auroc: Estimate | None = None


@dataclass(frozen=True)
class Heterogeneity:
    """Measures of each cluster, and their random-effects means.

    Attributes:
        clusters: Measures by cluster.
        summary: Mean, intervals, tau and I-squared by the name of the measure. Means and ends are those of the measure;
            ``tau`` is the standard deviation of its logarithm for ``observed_to_expected``, of its log-odds for
            ``auroc``. A measure that fewer than two clusters have is missing.
    """

    clusters: ResultTable[Any, ClusterMeasures]
    summary: ResultTable[str, RandomEffects]


def heterogeneity(
    predictions: Predictions,
    names: Sequence[Any] | None = None,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> Heterogeneity:
    """Compare O/E ratio, calibration slope and AUROC between clusters, as in TRIPOD-Cluster.

    Args:
        predictions: Logits ``(N, C)``, target ``(N,)`` and clusters ``(N,)``; at least two clusters.
        names: Name of each cluster, in ascending order of their numbers; None for the numbers.
        event: The class that is the event, its name or number; None: the event of two.
        confidence_level: Level of all intervals, in ``(0, 1)``.

    Raises:
        InputError: If there are no clusters or fewer than two, names do not fit them, or as all functions here, for
            predictions of other than two classes without ``event``.

    Note:
        Samples of one cluster count as independent given the cluster. A cluster without events gets half an event
        more, observed and expected; one that a threshold separates has no slope, one of a perfect ranking no AUROC, and
        these are not in the mean of that measure. See :func:`~fedlas.stats.random_effects` for mean and intervals.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> hospital = torch.arange(3000) % 10
        >>> log_odds = torch.randn(3000, generator=draw) - 1
        >>> shift = 0.5 * torch.randn(10, generator=draw)[hospital]
        >>> happened = torch.bernoulli((log_odds + shift).sigmoid(), generator=draw).long()
        >>> logits = torch.stack([torch.zeros(3000), log_odds], dim=1)
        >>> found = heterogeneity(Predictions(logits, happened, clusters=hospital)).summary["observed_to_expected"]
        >>> found.count, found.i_squared > 0.5, found.prediction_low < found.low < found.mean
        (10, True, True)

    Source:
        Debray et al., "Transparent reporting of multivariable prediction models developed or validated using clustered
        data: TRIPOD-Cluster checklist", BMJ 380 (2023); Debray et al., "A guide to systematic review and meta-analysis
        of prediction model performance", BMJ 356 (2017), for standard errors; Snell et al., "Meta-analysis of
        prediction model performance across multiple studies: Which scale helps ensure between-study normality for the
        C-statistic and calibration measures?", Statistical Methods in Medical Research 27 (2018), for the scales.
    """
    check_confidence_level(confidence_level)
    require_labels(predictions)
    data = positive_class(predictions, event)
    clusters = predictions.clusters
    if clusters is None or data.clusters is None or not data.clusters.any():
        raise InputError(
            "samples must come from at least two clusters",
            "no clusters" if clusters is None else "one cluster",
            ("Name the cluster of each sample: ", Argument("clusters"), "."),
        )
    present = np.unique(clusters.numpy())
    if names is not None and len(names) != len(present):
        raise InputError(
            f"names must hold {len(present)} names, one per cluster",
            f"{len(names)}",
            "Pass the names in ascending order of the cluster ids.",
        )
    numbers_present = (
        present if predictions.weights is None else np.unique(clusters[predictions.weights > 0])
    )
    titles = dict(zip(present.tolist(), present.tolist() if names is None else names, strict=True))
    alone = replace(data, clusters=None)
    rows = iter_group_rows(
        GroupedSamples.from_positive(alone, data.clusters),
        confidence_level,
        is_iid=data.weights is None,
    )
    order = np.argsort(data.clusters, kind="stable")
    parts = np.split(order, np.bincount(data.clusters).cumsum()[:-1])
    by_cluster: ResultTable[Any, ClusterMeasures] = ResultTable()
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in SCALES}
    for number, row, part in zip(numbers_present.tolist(), rows, parts, strict=True):
        samples = alone.rows(part)
        numbers = {
            "observed_to_expected": _log_ratio_and_error(samples),
            "auroc": _logit_auroc_and_error(samples),
        }
        if row.slope is not None:
            score = critical_t(confidence_level, math.inf)
            numbers["slope"] = row.slope.value, (row.slope.high - row.slope.low) / (2.0 * score)
        estimates = {}
        for name, pair in numbers.items():
            if pair is not None:
                pairs[name].append(pair)
                estimates[name] = _estimate_on_scale(name, *pair, confidence_level)
        by_cluster[titles[number]] = ClusterMeasures(row.num_samples, row.events, **estimates)
    summary: ResultTable[str, RandomEffects] = ResultTable()
    ends = ("mean", "low", "high", "prediction_low", "prediction_high")
    for name, of_measure in pairs.items():
        if len(of_measure) > 1:
            values, errors = np.array(of_measure).T
            effects = random_effects(values, errors, confidence_level=confidence_level)
            numbers_back: dict[str, Any] = {
                end: _inverse_scale(name, getattr(effects, end)) for end in ends
            }
            summary[name] = replace(effects, **numbers_back)
    return Heterogeneity(by_cluster, summary)


def _log_ratio_and_error(data: Positive) -> tuple[float, float] | None:
    """Return the logarithm of the O/E ratio and its standard error, or None if undefined."""
    added = 0.0 if data.outcome.any() else 0.5
    if not (added or data.probability.any()):
        return None
    ratio, error, _ = observed_to_expected(data, added)
    return (math.log(ratio), error) if error > 0.0 else None


def _logit_auroc_and_error(data: Positive) -> tuple[float, float] | None:
    """Return the log-odds of AUROC and its standard error (DeLong), or None if undefined."""
    if data.outcome.min() == data.outcome.max():
        return None
    area, influence = auroc_and_influence(data.log_odds, data.outcome > 0, data.counts)
    error = math.sqrt(float(influence @ influence))
    if not 0.0 < area < 1.0 or not error > 0.0:
        return None
    return math.log(area / (1.0 - area)), error / (area * (1.0 - area))


def _estimate_on_scale(name: str, value: float, error: float, confidence_level: float) -> Estimate:
    reach = critical_t(confidence_level, math.inf) * error
    low, high = (_inverse_scale(name, end) for end in (value - reach, value + reach))
    return Estimate(_inverse_scale(name, value), low, high, confidence_level=confidence_level)


def _inverse_scale(name: str, value: float) -> float:
    """Transform a value from the scale of the mean (log, logit or identity) to the measure's own scale."""
    if SCALES[name] == "identity":
        return value
    with np.errstate(over="ignore"):
        return float(np.exp(value)) if SCALES[name] == "log" else 0.5 + 0.5 * math.tanh(0.5 * value)
