"""How a metric of many replicates is found: by its form, as a mean over rows, or one replicate after another."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from fedlas._core.registry import Entry
from fedlas.metrics.base import mean_of_rows
from fedlas.metrics.scan import RowMean
from fedlas.predictions import Predictions
from fedlas.stats.replicates import Replicates
from fedlas.stats.rows import Floats, Rows

MetricEntry = Entry[Callable[..., float]]
Form = Callable[[Replicates], Floats]
FORMS: dict[Callable[..., float], Form] = {}
"""From a metric's function to its form; keyed by the function, so that another metric of the same name has none."""
ZERO_IF_CALIBRATED: set[Callable[..., float]] = set()
"""Metrics that are never negative, and go to 0 with growing ``N`` if the model is calibrated."""


def form_of(metric: Callable[..., float], *, zero_if_calibrated: bool = False) -> Callable[[Form], Form]:
    """Make the decorated function the form of ``metric``.

    Args:
        metric: The metric's function, as registered.
        zero_if_calibrated: Whether it is one of :data:`ZERO_IF_CALIBRATED`.
    """

    def keep(form: Form) -> Form:
        FORMS[metric] = form
        if zero_if_calibrated:
            ZERO_IF_CALIBRATED.add(metric)
        return form

    return keep


def replicate_values(entry: MetricEntry, replicates: Replicates) -> Floats:
    """The metric of every replicate ``(R,)``.

    Args:
        entry: The metric's entry in ``METRICS``.
        replicates: The replicates; their rows hold the number of bins.
    """
    form = FORMS.get(entry.value) or _row_mean_form(entry, replicates.rows)
    if form is not None:
        return np.broadcast_to(form(replicates), (replicates.size,))
    return np.array([metric_value(entry, one, replicates.rows.num_bins) for one in replicates.predictions()])


def metric_value(entry: MetricEntry, predictions: Predictions, num_bins: int) -> float:
    """The metric of ``predictions``, with ``num_bins`` if it has bins."""
    options = {"num_bins": num_bins} if "num_bins" in inspect.signature(entry.value).parameters else {}
    return float(entry.value(predictions, **options))


def _row_mean_form(entry: MetricEntry, rows: Rows) -> Form | None:
    estimator = entry.metadata.get("estimator")
    if estimator is None or estimator.value is not mean_of_rows:
        return None
    statistic: RowMean = estimator.statistic(rows.predictions, rows.num_bins)
    return lambda replicates: replicates.mean(statistic.quantity)
