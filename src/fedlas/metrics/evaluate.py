"""All default metrics in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas.metrics.scan import (
    METRICS,
    AnyOnePass,
    Metric,
    Statistic,
    scan,
    top_label_is_enough,
)
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import TopLabel
from fedlas.predictions.arguments import labels_apart
from fedlas.predictions.predictions import AnyPredictions, PredictionTable, check_measurable
from fedlas.predictions.top_label import needs_all_classes


def evaluate(
    predictions: AnyPredictions | PredictionTable, target: object = None, *, num_bins: int = 15
) -> dict[str, float]:
    """Compute every default metric of ``predictions``, in one pass over chunks of the logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``, which decides only some of the metrics;
            with ``label_probs`` the true calibration error is added, and with ``weights`` every sample counts by its
            weight.
        target: None: labels belong to the predictions, and an error says how to pass them.
        num_bins: Number of bins of the calibration errors, at least 1.

    Returns:
        Metric by registry name, in the order of :data:`METRICS`; fractions in ``[0, 1]`` but for NLL, Brier score and
        the debiased square, which can be below 0. Each equals what its own function returns, to the last bit.

    Raises:
        InputError: If ``predictions`` are no :class:`Predictions`, or have weights and a registered metric knows of
            none, or ``num_bins`` is not a count.

    Note:
        Memory in addition to the logits: two chunks of at most 4 MiB, five bytes a sample while the logits are read and
        some fifty when they are ranked, 1 MiB for the smooth error, and ``4 * C * num_bins`` int64. Sums are exact, so
        neither the order of samples nor the size of chunks changes a bit; weighted sums are plain float64 sums. A
        metric that was registered without an ``one_pass`` is called after the pass, with ``num_bins`` if it takes it.

    Example:
        >>> from fedlas import Predictions
        >>> scores = evaluate(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]))
        >>> list(scores)
        ['accuracy', 'top5', 'nll', 'brier', 'ece', 'adaptive_ece', 'mce', 'classwise_ece', 'smooth_ece', 'o_ece',
         'u_ece', 'debiased_ece2']
        >>> scores["accuracy"]
        0.5
    """
    if isinstance(target, str) or (
        isinstance(target, list | tuple) and target and isinstance(target[0], str)
    ):
        names = [target] if isinstance(target, str) else list(target)
        fix = f"For some, call fedlas.estimates(predictions, metrics={names}), or take them from the result."
        raise InputError("it computes every default metric", f"the names {', '.join(names)}", fix)
    if target is not None:
        raise labels_apart(predictions)
    predictions = check_measurable(predictions)
    check_count("num_bins", num_bins)
    return values_of(predictions, default_metrics(predictions), num_bins)


def default_metrics(predictions: AnyPredictions) -> list[Metric]:
    """Return the metrics that ``evaluate`` computes of these predictions."""
    return [e for e in METRICS.entries() if e.default and not lacking(e, predictions)]


def entries_of(metrics: Iterable[str]) -> list[Metric]:
    """Return the entries of metrics by name, each once.

    Raises:
        InputError: For an unknown name; the message names the nearest one.
    """
    return list({METRICS[name].name: METRICS[name] for name in metrics}.values())


def lacking(entry: Metric, predictions: AnyPredictions) -> bool:
    """Return whether a metric needs what ``predictions`` do not hold: the other classes, or an optional array."""
    if isinstance(predictions, TopLabel):
        return not top_label_is_enough(entry)
    return any(getattr(predictions, name) is None for name in entry.needs)


def values_of(
    predictions: AnyPredictions, entries: Sequence[Metric], num_bins: int
) -> dict[str, float]:
    """Return the metrics of ``entries``, from one pass; each equals what its own function returns, to the last bit.

    Raises:
        InputError: If one of them needs the probabilities of all classes, and only the top label is known.
    """
    if isinstance(predictions, TopLabel):
        for entry in entries:
            if not top_label_is_enough(entry):
                raise needs_all_classes(f"{entry.name!r}")
    statistics: dict[Callable[[Any, int], Any], Statistic] = {}
    for entry in entries:
        takes_weights = entry.weighted
        if (one_pass := entry.one_pass) is not None:
            if one_pass.statistic not in statistics:
                statistics[one_pass.statistic] = one_pass.statistic(predictions, num_bins)
            takes_weights = getattr(statistics[one_pass.statistic], "takes_weights", False)
        check_takes_weights(predictions, takes_weights=takes_weights)
    scan(predictions, statistics.values())

    def value(entry: Metric) -> float:
        one_pass: AnyOnePass | None = entry.one_pass
        if one_pass is not None:
            return float(one_pass.value(statistics[one_pass.statistic]))
        options = (
            {"num_bins": num_bins}
            if "num_bins" in inspect.signature(entry.value).parameters
            else {}
        )
        return float(entry.value(predictions, **options))

    return {entry.name: value(entry) for entry in entries}
