"""Comparison of two models on the same samples: paired bootstrap, DeLong and McNemar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, truncated_list
from fedlas._core.threads import run_single_threaded
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics, resolve_metrics
from fedlas.metrics.metric import Metric, lacks_inputs, num_classes_or_zero, resolve_metric
from fedlas.predictions import MultiLabel, Predictions, TopLabel
from fedlas.predictions.any_predictions import AnyPredictions, PredictionTable, require_top_label
from fedlas.stats.compare import apply_holm
from fedlas.stats.degrees import cluster_widening_factor, degrees_of_freedom, two_sided_p_value
from fedlas.stats.difference import Difference
from fedlas.stats.draws import iter_unit_draws, prepare_rows
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES
from fedlas.stats.intervals import (
    check_bootstrap_options,
    interval_from_replicates,
    metric_influence,
    normal_interval,
    standard_error,
)
from fedlas.stats.noise_floor import monte_carlo_p_value
from fedlas.stats.proportion import paired_share_interval
from fedlas.stats.replicates import BootstrapReplicates
from fedlas.stats.result_table import ResultTable
from fedlas.stats.tables import evaluate_block, row_hits

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas._core.types import FloatArray
    from fedlas.stats.rows import Rows

COMPARED = ("accuracy", "nll", "brier", "ece")
"""Metrics that are compared where nothing else is asked for."""
COMPARED_EVENTS = ("auroc", "nll", "brier", "ece")
"""Those of two classes: of the probability of the event."""


def paired_bootstrap(
    a: Predictions | TopLabel,
    b: Predictions | TopLabel,
    *,
    metric: str | None = None,
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    num_bins: int = 15,
    method: str = "auto",
) -> Difference:
    """Compute a bootstrap interval and p-value of a metric's difference ``a - b`` between two models.

    Each replicate draws ``N`` samples and computes the metric of both models on them, so what makes a sample easy or
    hard for both cancels. For the p-value the replicates are moved so that their mean is 0, as if there were no
    difference: it is ``(1 + k) / (R + 1)``, where ``k`` of them are then at least as far from 0 as the difference is.

    Args:
        a: Predictions of the first model, or a ``TopLabel``.
        b: Those of the second for the same samples in the same order.
        metric: Name of a registered metric; None: ``"nll"``, or ``"ece"`` of a ``TopLabel``, which has no NLL.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Number of replicates; at least 39 for level 0.95.
        seed: The same seed draws the same samples.
        num_bins: Bins of the metrics that have any.
        method: ``"percentile"``, ``"basic"`` or ``"auto"``, which is the basic interval where the bootstrap finds a
            bias of the difference of more than a quarter of a standard error, else the percentile interval. For shares
            of samples, such as accuracy, it is Newcombe's interval with every method; with weights or clusters that of
            their effective number.

    Returns:
        The difference, with its interval and p-value; Holm's correction and the better model are left to
        :func:`fedlas.compare`.

    Raises:
        InputError: For different targets or weights, an unknown metric, options out of range, or fewer than 2 samples.

    Note:
        Two models, not two methods: whether another training would give the same order only seeds can tell. With more
        than two models correct the p-values with :func:`~fedlas.stats.holm`.

        ``results/coverage.md`` has how often intervals hold the true difference. **The difference of a calibrated model
        from another comes out too small**, because chance adds more to the smaller of two calibration errors. See
        :func:`~fedlas.stats.noise_floor` of each model beside it. **Equal ECE of models that err in opposite
        directions** is called different in 8 to 12 % of sets at 0.05, with weights and without: compare NLL first.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> result = paired_bootstrap(Predictions(2 * logits, target), Predictions(logits, target))
        >>> result.low > 0.05, result.p_value < 0.01
        (True, True)

    Source:
        Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 15.
    """
    if metric is None:
        metric = "ece" if isinstance(_prefer_top_label(a, b), TopLabel) else "nll"
    entry = resolve_metric(metric, _prefer_top_label(a, b))
    return bootstrap_differences(
        a,
        b,
        [entry],
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
        num_bins=num_bins,
        method=method,
    )[entry.name]


@run_single_threaded
def bootstrap_differences(
    a: AnyPredictions,
    b: AnyPredictions,
    entries: Sequence[Metric],
    *,
    confidence_level: float,
    replicates: int,
    seed: int,
    num_bins: int,
    method: str,
) -> dict[str, Difference]:
    """Compute :func:`paired_bootstrap` of several metrics from the same draws, by name."""
    check_bootstrap_options(
        confidence_level=confidence_level, replicates=replicates, seed=seed, method=method
    )
    without_interval = [entry.name for entry in entries if not entry.has_interval]
    if without_interval:
        raise InputError(
            "metrics to compare must have an interval of their difference",
            f"{', '.join(without_interval)}, without an interval",
            "Choose others, such as brier_skill, or compute both values: fedlas.binary.measures(predictions).",
        )
    both = prepare_rows(a, num_bins), prepare_rows(b, num_bins)
    check_same_samples(a, b)
    first, second = (compute_metrics(each, entries, num_bins) for each in (a, b))
    pairs = _differences_by_influence(entries, both, first, second, confidence_level)
    entries = [entry for entry in entries if entry.name not in pairs]
    parts: dict[str, list[FloatArray]] = {entry.name: [] for entry in entries}
    for times in iter_unit_draws(*both, replicates=replicates, seed=seed) if entries else ():
        blocks = [BootstrapReplicates(rows, times) for rows in both]
        one, other = (evaluate_block(entries, block) for block in blocks)
        for name, values in one.items():
            parts[name].append(values - other[name])
        for block in blocks:
            block.release()
    for entry in entries:
        name = entry.name
        pairs[name] = difference_from_replicates(
            name,
            first[name],
            second[name],
            np.concatenate(parts[name]),
            confidence_level=confidence_level,
            method=method,
            degrees=both[0].degrees,
        )
        hits, other_hits = (row_hits(entry, rows) for rows in both)
        # Equal outcomes of different models may differ on other samples; equal scores cannot.
        if (
            hits is not None
            and other_hits is not None
            and not np.array_equal(_confidence_or_logits(both[0]), _confidence_or_logits(both[1]))
        ):
            # Of rare events all replicates may have a difference of 0.
            low, high = paired_share_interval(
                hits,
                other_hits,
                both[0].weights if both[0].is_weighted else None,
                both[0].clusters,
                confidence_level=confidence_level,
            )
            pairs[name] = replace(pairs[name], low=low, high=high)
    count = count_used_samples(a)
    return {name: replace(each, count=count) for name, each in pairs.items()}


def difference_from_replicates(
    metric: str,
    a: float,
    b: float,
    replicates: FloatArray,
    *,
    confidence_level: float,
    method: str,
    degrees: float,
) -> Difference:
    """Return the difference ``a - b`` of a metric, with interval and test from its replicates ``(R,)`` if any."""
    if not len(replicates):
        return Difference(metric, a, b)
    ends = interval_from_replicates(
        a - b, replicates, confidence_level=confidence_level, method=method, degrees=degrees
    )
    # Replicates are centered at their own mean, so that the bias that all share is not taken for a difference.
    away = abs((a - b) / cluster_widening_factor(confidence_level, degrees))
    p_value = monte_carlo_p_value(np.abs(replicates - replicates.mean()), away)
    return Difference(metric, a, b, ends.low, ends.high, p_value)


def difference_from_influences(
    metric: str,
    a: tuple[float, FloatArray],
    b: tuple[float, FloatArray],
    predictions: AnyPredictions | MultiLabel,
    *,
    confidence_level: float,
    degrees: float,
) -> Difference:
    """Return the difference of a metric, with interval and test from its influences (of AUROC DeLong's test).

    Args:
        metric: Registry name.
        a: The metric of the first model, and the influence of each sample on it ``(N,)``.
        b: Those of the second.
        predictions: The samples, for their clusters.
        confidence_level: Level of the interval.
        degrees: Degrees of freedom of the standard error.
    """
    value = a[0] - b[0]
    one_sample = predictions.num_samples < 2
    error = math.nan if one_sample else standard_error(a[1] - b[1], predictions)
    ends = normal_interval(value, error, confidence_level=confidence_level, degrees=degrees)
    p_value = None if math.isnan(error) else float(value == 0)
    if error > 0:
        p_value = two_sided_p_value(value / error, degrees)
    return Difference(metric, a[0], b[0], ends.low, ends.high, p_value)


def _differences_by_influence(
    entries: Sequence[Metric],
    rows_pair: tuple[Rows, Rows],
    values_a: Mapping[str, float],
    values_b: Mapping[str, float],
    confidence_level: float,
) -> dict[str, Difference]:
    """Return the differences of metrics that define influences, such as AUROC."""
    first = rows_pair[0]
    pairs = {}
    for entry in entries:
        one, other = (metric_influence(entry, rows.predictions) for rows in rows_pair)
        if one is None or other is None:
            continue
        pairs[entry.name] = difference_from_influences(
            entry.name,
            (values_a[entry.name], one),
            (values_b[entry.name], other),
            first.predictions,
            confidence_level=confidence_level,
            degrees=degrees_of_freedom(one - other, first.clusters),
        )
    return pairs


def _confidence_or_logits(rows: Rows) -> NDArray[Any]:
    return (
        rows.confidence
        if isinstance(rows.predictions, TopLabel)
        else rows.multiclass_predictions.logits
    )


def check_same_samples(
    a: AnyPredictions | MultiLabel,
    b: AnyPredictions | MultiLabel,
    *,
    names: tuple[str, str] = ("a", "b"),
) -> None:
    """Raise InputError if two predictions differ in samples, labels, weights or clusters."""
    got = describe_sample_mismatch(a, b)
    if got:
        raise InputError(
            f"{names[0]} and {names[1]} must be predictions for the same samples, in the same order",
            got,
            "Predict one test set with both models, without shuffling.",
        )
    for column in ("weights", "clusters"):
        one, other = (getattr(each, column) for each in (a, b))
        if one is not other and (one is None or other is None or not np.array_equal(one, other)):
            raise InputError(
                f"{names[0]} and {names[1]} must have the same {column}, because they predict the same samples",
                f"different {column}",
                f"Pass both with {column}={column}, or none.",
            )


def describe_sample_mismatch(a: AnyPredictions | MultiLabel, b: AnyPredictions | MultiLabel) -> str:
    """Return how the samples of two predictions differ, by number and labels, or an empty string."""
    if a.num_samples != b.num_samples:
        return f"{a.num_samples:,} and {b.num_samples:,} samples"
    if isinstance(a, MultiLabel) and isinstance(b, MultiLabel) and a.names != b.names:
        return f"labels {' and '.join(truncated_list(list(each.names or ())) for each in (a, b))}"
    if isinstance(a, TopLabel) or isinstance(b, TopLabel):
        return ""
    # Of multi-label predictions a row has several targets.
    rows = (a.tensors().target != b.tensors().target).nonzero()[:, 0].unique()
    if not len(rows):
        return ""
    return f"different targets in {len(rows):,} of {a.num_samples:,} rows, first in row {int(rows[0]) + 1:,}"


def compare(
    a: AnyPredictions | PredictionTable,
    b: AnyPredictions | PredictionTable,
    metrics: Sequence[str] | None = None,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
    top_label: bool = False,
) -> ResultTable[str, Difference]:
    """Return the differences of two models on the same samples, by metric; see :func:`fedlas.compare`.

    Two classes are about the event that the predictions name; groups, and another event, are that function's.
    """
    both = [require_top_label(each) for each in (a, b)]
    a, b = both
    check_same_samples(a, b)
    entries = metrics_to_compare(a, b, metrics, top_label=top_label)
    pairs = bootstrap_differences(
        a,
        b,
        entries,
        method="auto",
        num_bins=num_bins,
        confidence_level=confidence_level,
        replicates=replicates,
        seed=seed,
    )
    if "accuracy" in pairs and a.weights is None and a.clusters is None:
        p_value = mcnemar_p_value(*(each.correct for each in both))
        pairs["accuracy"] = replace(pairs["accuracy"], p_value=p_value)
    return ResultTable({each.metric: each for each in apply_holm(pairs.values())})


def count_used_samples(predictions: AnyPredictions | MultiLabel) -> int:
    """Return the number of samples with positive weight."""
    weights: Tensor | None = predictions.tensors().weights
    return predictions.num_samples if weights is None else int((weights > 0).sum())


def metrics_to_compare(
    a: AnyPredictions, b: AnyPredictions, metrics: Sequence[str] | None, *, top_label: bool
) -> list[Metric]:
    """Return the records of the named metrics, or of the default ones that both predictions support."""
    both = (a, b)
    if metrics is None:
        event = not top_label and all(map(_has_both_outcomes, both))
        names = COMPARED_EVENTS if event else COMPARED
        if top_label and num_classes_or_zero(_prefer_top_label(a, b)) == 2:
            names = (*COMPARED[:-1], "top_label_ece")
        metrics = [
            name for name in names if not any(lacks_inputs(METRICS[name], each) for each in both)
        ]
    return resolve_metrics(metrics, _prefer_top_label(a, b))


def untested_differences(
    a: AnyPredictions, b: AnyPredictions, metrics: Sequence[str], num_bins: int
) -> dict[str, Difference]:
    """Return untested differences of two models with too few samples for an interval, by metric."""
    entries = resolve_metrics(metrics, _prefer_top_label(a, b))
    first, second = (compute_metrics(each, entries, num_bins) for each in (a, b))
    return {name: untested_difference(name, first[name], second[name]) for name in first}


def untested_difference(metric: str, a: float, b: float) -> Difference:
    """Return a :class:`Difference` with p-value 1, as for too few samples."""
    return Difference(metric, a, b, p_value=1.0, p=1.0)


def _prefer_top_label(a: AnyPredictions, b: AnyPredictions) -> AnyPredictions:
    """Return ``b`` if it is a top label, else ``a``: the predictions that limit which metrics exist."""
    return require_top_label(b if isinstance(b, TopLabel) else a)


def _has_both_outcomes(predictions: AnyPredictions) -> bool:
    """Return whether the predictions have two classes and both occur as labels."""
    import torch

    if not isinstance(predictions, Predictions) or predictions.num_classes != 2:
        return False
    return len(torch.unique(predictions.tensors().target)) == 2


def mcnemar_p_value(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the exact two-sided McNemar p-value that two models are right equally often ``(N,)``.

    Example:
        >>> round(mcnemar_p_value(np.array([True] * 6), np.array([False] * 6)), 5)
        0.03125
    """
    alone = int((a & ~b).sum())
    other = int((b & ~a).sum())
    discordant = alone + other
    fewer = min(alone, other)
    # Under the hypothesis each is right in half of them: twice the lower tail of a fair coin, from log-binomials.
    counts = np.arange(1, fewer + 1, dtype=np.float64)
    terms = np.concatenate(([0.0], np.cumsum(np.log(discordant - counts + 1) - np.log(counts))))
    return min(1.0, 2.0 * float(np.exp(terms - discordant * math.log(2.0)).sum()))
