"""Heterogeneity of calibration and discrimination of an event between clusters, such as hospitals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedlas._core.check import Argument, InputError
from fedlas._core.kinds import check_argument_types
from fedlas.binary.discrimination import auroc_with_influence
from fedlas.binary.grouped_samples import GroupedSamples
from fedlas.binary.positive import Positive, positive_class
from fedlas.binary.recalibration import iter_group_rows
from fedlas.predictions.any_predictions import require_labels
from fedlas.resample.effective import effective_sample_size
from fedlas.stats.degrees import critical_t
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.meta_analysis import (
    RandomEffects,
    chi_squared_p_value,
    cochran_q,
    random_effects,
)
from fedlas.stats.poisson_meta_analysis import poisson_random_effects
from fedlas.stats.result_table import ResultTable

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.predictions import Predictions

SCALES = {"observed_to_expected": "log", "slope": "identity", "auroc": "logit"}
"""Scale on which each measure is nearly normal over clusters."""
MIN_EVENTS = 10
"""Events, and non-events, from which on a cluster's slope and AUROC are in the mean."""


@dataclass(frozen=True)
class ClusterMeasures:
    """Measures of the event in one cluster; None if they cannot be estimated.

    Attributes:
        num_samples: Samples in the cluster.
        events: Number of them in which the event occurred.
        observed_to_expected: Observed over expected events, with the interval of :func:`group_measures`.
        slope: Calibration slope, with Wald's interval.
        auroc: Area under the ROC curve, with the interval of :func:`auroc`.

    Example:
        >>> ClusterMeasures(num_samples=12, events=0).slope is None
        True
    """

    num_samples: int
    events: int
    observed_to_expected: Estimate | None = None
    slope: Estimate | None = None
    auroc: Estimate | None = None

    @property
    def has_enough_events(self) -> bool:
        """Whether it has ten events and ten non-events, so that its slope and AUROC are in the mean."""
        return min(self.events, self.num_samples - self.events) >= MIN_EVENTS


@dataclass(frozen=True)
class Heterogeneity:
    """Measures of each cluster, and their random-effects means.

    Attributes:
        clusters: Measures by cluster.
        summary: Mean, intervals, tau and I-squared by the name of the measure. Means and ends are those of the measure;
            ``tau`` is the standard deviation of its logarithm for ``observed_to_expected``, of its log-odds for
            ``auroc``. A measure is missing where fewer than two clusters have it, or, of slope and AUROC, ten events
            and ten non-events.
    """

    clusters: ResultTable[Any, ClusterMeasures]
    summary: ResultTable[str, RandomEffects]


@check_argument_types
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
        Samples of one cluster count as independent given the cluster. The mean of the ratio is that of a Poisson model,
        see :func:`~fedlas.stats.poisson_random_effects`: clusters without an event, or where all have one, are in it as
        any other. It is the mean of clusters, where the ratio of all samples together is that of the samples. Slope and
        AUROC are estimated by a normal model, see :func:`~fedlas.stats.random_effects`, from clusters with at least
        ten events and ten non-events; others would bias it, and are listed only. ``results/coverage.md`` has how often
        intervals hold the truth, by the number of events and of clusters.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
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
    titles, codes = _clusters(predictions, data, names)
    alone = replace(data, clusters=None)
    rows = iter_group_rows(GroupedSamples.from_positive(alone, codes), confidence_level)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.bincount(codes).cumsum()[:-1])
    by_cluster: ResultTable[Any, ClusterMeasures] = ResultTable()
    lines: list[tuple[float, float]] = []
    areas: list[_Area] = []
    for title, row, part in zip(titles, rows, parts, strict=True):
        samples = alone.rows(part)
        has_both = 0 < row.events < row.num_samples
        area = auroc_with_influence(samples, confidence_level) if has_both else None
        by_cluster[title] = cluster = ClusterMeasures(
            row.num_samples,
            row.events,
            row.ratio if row.expected > 0.0 else None,
            row.slope,
            None if area is None else area[0],
        )
        if not cluster.has_enough_events:
            continue
        if row.slope is not None:
            z = critical_t(confidence_level, math.inf)
            lines.append((row.slope.value, (row.slope.high - row.slope.low) / (2.0 * z)))
        if area is not None and 0.0 < area[0].value < 1.0:
            areas.append(_Area.from_influence(samples, area[0].value, area[1]))
    effects_by_name = {
        "observed_to_expected": _ratio_effects(data, codes, confidence_level),
        "slope": _normal_effects(lines, confidence_level),
        "auroc": _area_effects(areas, confidence_level),
    }
    return Heterogeneity(
        by_cluster,
        ResultTable({name: each for name, each in effects_by_name.items() if each is not None}),
    )


def _clusters(
    predictions: Predictions, data: Positive, names: Sequence[Any] | None
) -> tuple[list[Any], IntArray]:
    """Return the name, else the number, of each cluster with a weight, and the cluster of each sample ``(N,)``."""
    clusters, weights = predictions.clusters, predictions.weights
    if clusters is None or data.clusters is None or not data.clusters.any():
        raise InputError(
            "samples must come from at least two clusters",
            "no clusters" if clusters is None else "one cluster",
            ("Name the cluster of each sample: ", Argument("clusters"), "."),
        )
    present = np.unique(clusters)
    if names is not None and len(names) != len(present):
        raise InputError(
            f"names must hold {len(present)} names, one per cluster",
            f"{len(names)}",
            "Pass the names in ascending order of the cluster ids.",
        )
    weighted = present if weights is None else np.unique(clusters[weights > 0])
    titles = dict(zip(present.tolist(), present.tolist() if names is None else names, strict=True))
    return [titles[number] for number in weighted.tolist()], data.clusters


def _ratio_effects(
    data: Positive, codes: IntArray, confidence_level: float
) -> RandomEffects | None:
    """Return the random-effects mean of the O/E ratio; None for fewer than two clusters, or without an event."""
    expected, observed = (
        np.bincount(codes, data.counts * values) for values in (data.probability, data.outcome)
    )
    chosen = expected > 0.0
    if chosen.sum() < 2 or not observed[chosen].any():
        return None
    # The number of events of known probabilities varies less than Poisson's, by as much as they are large, and weights
    # make it vary more. Counts in units of their variance over their mean have the variance of Poisson's.
    ratio = float(observed[chosen].sum() / expected[chosen].sum())
    size = np.bincount(codes)[codes]
    # A cluster whose events all occurred still varies by half an event.
    occurs = np.minimum(ratio * data.probability, 1.0 - 0.5 / size)
    spread = np.bincount(codes, data.counts**2 * data.probability * (1.0 - occurs))
    unit = spread[chosen] / expected[chosen]
    effects = poisson_random_effects(
        observed[chosen] / unit, expected[chosen] / unit, confidence_level=confidence_level
    )
    return _transform_ends(effects, np.exp)


def _normal_effects(
    pairs: Sequence[tuple[float, float]], confidence_level: float
) -> RandomEffects | None:
    """Return the random-effects mean of values with their standard errors; None of fewer than two."""
    if len(pairs) < 2:
        return None
    values, errors = np.array(pairs).T
    return random_effects(values, errors, confidence_level=confidence_level)


class _Area(NamedTuple):
    """AUROC of a cluster, with the parts of its variance (DeLong) of events and of non-events.

    Attributes:
        value: In (0, 1).
        variances: The two parts of its variance, whose sum it is.
        sizes: How many events and non-events they are of, with weights their effective numbers (Kish).
    """

    value: float
    variances: tuple[float, float]
    sizes: tuple[float, float]

    @classmethod
    def from_influence(cls, data: Positive, value: float, influence: FloatArray) -> _Area:
        """Return the area of samples, from the influence of each on it ``(N,)``."""
        happened = data.outcome > 0
        kinds = (happened, ~happened)
        parts = [float(influence[kind] @ influence[kind]) for kind in kinds]
        sizes = [effective_sample_size(data.counts[kind]) for kind in kinds]
        return cls(value, (parts[0], parts[1]), (sizes[0], sizes[1]))


def _area_effects(areas: Sequence[_Area], confidence_level: float) -> RandomEffects | None:
    """Return the random-effects mean of AUROC, by its log-odds; None of fewer than two clusters."""
    pairs = [
        (math.log(each.value / (1.0 - each.value)), error / (each.value * (1.0 - each.value)))
        for each in areas
        if (error := math.sqrt(sum(each.variances))) > 0.0
    ]
    effects = _normal_effects(pairs, confidence_level)
    if effects is None:
        return None
    # Variances of few events depend on the areas themselves, and Cochran's Q takes them as known: with 10 to 20 events
    # a cluster it rejected equal areas in 10 to 20 % of sets. If areas are equal, so are the variances of the shares of
    # non-events that an event is above, which all clusters together tell well: 3 to 8 %.
    values = np.array([each.value for each in areas])
    variances, sizes = (
        np.array([getattr(each, name) for each in areas]) for name in ("variances", "sizes")
    )
    degrees = np.maximum(sizes - 1.0, 0.0)
    pooled = (degrees * variances * sizes).sum(axis=0) / degrees.sum(axis=0)
    q = cochran_q(values, (pooled / sizes).sum(axis=1))
    return _transform_ends(
        replace(effects, p=chi_squared_p_value(q, len(values) - 1.0)),
        lambda value: 0.5 + 0.5 * np.tanh(0.5 * value),
    )


def _transform_ends(effects: RandomEffects, transform: Callable[[Any], Any]) -> RandomEffects:
    """Return mean and ends of intervals on the scale of the measure."""
    with np.errstate(over="ignore"):
        ends: dict[str, Any] = {
            name: float(transform(getattr(effects, name)))
            for name in ("mean", "low", "high", "prediction_low", "prediction_high")
        }
    return replace(effects, **ends)
