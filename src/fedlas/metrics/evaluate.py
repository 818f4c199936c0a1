"""All default metrics in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedlas._core.check import check_count
from fedlas.metrics.base import METRICS, AnyEstimator
from fedlas.metrics.scan import Statistic, check_predictions, scan
from fedlas.predictions import Predictions


def evaluate(predictions: Predictions, *, num_bins: int = 15) -> dict[str, float]:
    """Every default metric of ``predictions``, in one pass over chunks of the logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``; with ``label_probs`` the true calibration error is added.
        num_bins: Number of bins of the calibration errors, at least 1.

    Returns:
        Metric by registry name, in the order of :data:`METRICS`; fractions in ``[0, 1]`` but for NLL, Brier score and
        the debiased square, which can be below 0. Each equals what its own function returns, to the last bit.

    Raises:
        InputError: If ``predictions`` are no :class:`Predictions`, or ``num_bins`` is not a count.

    Note:
        Memory beside the logits: two chunks of at most 4 MiB, nine bytes a sample, 1 MiB for the smooth error, and
        ``4 * C * num_bins`` int64. Sums are exact, so neither the order of samples nor the size of chunks changes a
        bit. A metric that was registered without an ``estimator`` is called after the pass with ``predictions`` alone.

    Example:
        >>> scores = evaluate(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]))
        >>> list(scores)
        ['accuracy', 'top5', 'nll', 'brier', 'ece', 'adaptive_ece', 'mce', 'classwise_ece', 'smooth_ece', 'o_ece',
         'u_ece', 'debiased_ece2']
        >>> scores["accuracy"]
        0.5
    """
    check_predictions("evaluate", predictions)
    check_count("evaluate", "num_bins", num_bins)
    entries = [
        entry
        for entry in METRICS.entries()
        if entry.metadata.get("default", True)
        and all(getattr(predictions, name) is not None for name in entry.metadata.get("needs", ()))
    ]
    estimators: dict[str, AnyEstimator] = {
        entry.name: entry.metadata["estimator"] for entry in entries if "estimator" in entry.metadata
    }
    statistics: dict[Callable[[Predictions, int], Any], Statistic] = {}
    for estimator in estimators.values():
        if estimator.statistic not in statistics:
            statistics[estimator.statistic] = estimator.statistic(predictions, num_bins)
    scan(predictions, statistics.values())
    return {
        entry.name: (
            estimators[entry.name].value(statistics[estimators[entry.name].statistic])
            if entry.name in estimators
            else float(entry.value(predictions))
        )
        for entry in entries
    }
