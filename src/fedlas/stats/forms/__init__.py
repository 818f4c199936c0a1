"""Metrics of many replicates at a time. Each form is its metric once more, over ``(R, N)`` arrays and without a loop.

A metric without a form here still has one if it is a mean over rows (:func:`fedlas.metrics.base.row_mean`). Any other
is called on the :class:`~fedlas.Predictions` of one replicate after another: right, but as slow as the metric is.
"""

# Importing a module registers its forms.
from fedlas.stats.forms import binned, classwise, every_class, ranked, smooth  # noqa: F401
from fedlas.stats.forms.base import FORMS, ZERO_IF_CALIBRATED, MetricEntry, form_of, metric_value, replicate_values

__all__ = ["FORMS", "ZERO_IF_CALIBRATED", "MetricEntry", "form_of", "metric_value", "replicate_values"]
