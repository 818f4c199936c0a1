"""Evaluation of all default metrics in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.registry import Registry
from fedlas.metrics.metric import (
    METRICS,
    Metric,
    call_metric,
    lacks_inputs,
    make_statistic,
    metric_value,
    num_classes_or_zero,
    resolve_metric,
)
from fedlas.metrics.scan import scan
from fedlas.metrics.sums import Statistic, check_weights_supported
from fedlas.predictions import TopLabel
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    PredictionTable,
    require_top_label,
    unwrap_table,
)
from fedlas.predictions.top_label import needs_all_classes_error
from fedlas.predictions.two_arrays import predictions_from_arrays

EVALUATIONS: Registry[Callable[[Any, int], dict[str, float]]] = Registry(
    "kind of predictions", lazy_modules=["fedlas.binary.labels"]
)
"""Functions of predictions without one class a sample and a number of bins, by kind: their default metrics."""


def evaluate(predictions: object, target: object = None, *, num_bins: int = 15) -> dict[str, float]:
    """Compute every default metric of ``predictions``, in one pass over chunks of the logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``, which decides only some of the metrics;
            with ``label_probs`` the true calibration error is added, and with ``weights`` every sample counts by its
            weight. Or the first of two arrays, in either order: labels ``(N,)``, and probabilities or logits
            ``(N, C)``, of two classes also ``(N,)`` for class 1.
        target: The second of two arrays.
        num_bins: Number of bins of the calibration errors, at least 1.

    Returns:
        Metric by registry name, in the order of :data:`METRICS`, ``"top5"`` from ten classes on; fractions in
        ``[0, 1]`` but for NLL, Brier score and the debiased square, which can be below 0. Each equals what its own
        function returns. For two classes ``"ece"`` and ``"brier"`` are those of the event's probability, and
        ``"top_label_ece"`` is the ECE of the predicted class.

    Raises:
        InputError: If ``predictions`` are no :class:`Predictions`, two arrays do not show which one holds the labels,
            weights are there that a registered metric knows nothing of, or ``num_bins`` is not a count.

    Note:
        Memory in addition to the logits: two chunks of at most 4 MiB, five bytes a sample while the logits are read and
        some fifty when they are ranked, 1 MiB for the smooth error, and ``4 * C * num_bins`` float64. Sums are float64,
        so the order of samples changes metrics by less than 1e-12. A metric that was registered without statistic and
        quantity is called after the pass, with ``num_bins`` if it takes it.

    Example:
        >>> from fedlas import Predictions
        >>> scores = evaluate(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]))
        >>> scores["accuracy"], round(scores["ece"], 3)
        (0.5, 0.425)
        >>> evaluate([1, 0, 0, 1], [0.9, 0.2, 0.6, 0.8])["accuracy"]  # y_true, y_prob
        0.75
    """
    names_metrics = isinstance(target, str) or (
        isinstance(target, list | tuple) and target and isinstance(target[0], str)
    )
    if names_metrics and isinstance(predictions, AnyPredictions | PredictionTable):
        names = [target] if isinstance(target, str) else list(target)  # type: ignore[call-overload]
        raise InputError(
            "evaluate() takes no metric names: it computes all default metrics",
            f"the names {', '.join(names)}",
            f"Select them from the result, or call fedlas.estimates(predictions, metrics={names}).",
        )
    if target is not None:
        predictions = predictions_from_arrays(predictions, target)
    check_count("num_bins", num_bins)
    several = unwrap_table(predictions)
    if hasattr(several, "num_labels"):  # several labels, whose class nothing else here needs
        return EVALUATIONS["several labels"].value(several, num_bins)
    predictions = require_top_label(predictions)
    return compute_metrics(predictions, default_metrics(predictions), num_bins)


def default_metrics(predictions: AnyPredictions) -> list[Metric]:
    """Return the metrics that ``evaluate`` computes for these predictions."""
    num_classes = num_classes_or_zero(predictions)
    has_two = num_classes == 2
    names = [
        each.name
        for each in (METRICS.entries() if has_two else METRICS.prediction_entries())
        if (each.default_of_two if has_two and each.default_of_two is not None else each.default)
        and num_classes >= each.fewest_classes
    ]
    return [
        each for each in resolve_metrics(names, predictions) if not lacks_inputs(each, predictions)
    ]


def resolve_metrics(metrics: Iterable[str], predictions: AnyPredictions) -> list[Metric]:
    """Return the metric records for these names, without duplicates, as they apply to the predictions."""
    return list(
        {METRICS[name].name: resolve_metric(name, predictions) for name in metrics}.values()
    )


def compute_metrics(
    predictions: AnyPredictions, metrics: Sequence[Metric], num_bins: int
) -> dict[str, float]:
    """Compute ``metrics`` in one pass; each value equals that of the metric's own function."""
    statistics: dict[object, Statistic] = {}
    for metric in metrics:
        if isinstance(predictions, TopLabel) and lacks_inputs(metric, predictions):
            raise needs_all_classes_error(f"{metric.name!r}")
        source = metric.quantity or metric.statistic
        if source not in statistics:
            statistic = make_statistic(metric, predictions, num_bins)
            takes_weights = metric.weighted if statistic is None else statistic.takes_weights
            check_weights_supported(predictions, takes_weights=takes_weights)
            if statistic is not None:
                statistics[source] = statistic
    scan(predictions, statistics.values())
    values = {}
    for metric in metrics:
        source = metric.quantity or metric.statistic
        if source is None:
            values[metric.name] = call_metric(metric, predictions, num_bins)
        else:
            values[metric.name] = metric_value(metric, statistics[source])
    return values
