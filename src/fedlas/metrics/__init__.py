"""Metrics of accuracy and calibration: pure functions on :class:`~fedlas.Predictions`; ``evaluate`` computes all."""

# The order in which these modules register their metrics is the order of columns in tables.
# isort: off
from fedlas.metrics.accuracy import accuracy, top_k_accuracy
from fedlas.metrics.proper import brier_score, negative_log_likelihood
from fedlas.metrics.calibration_error import (
    adaptive_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)
from fedlas.metrics.classwise import classwise_calibration_error
from fedlas.metrics.true_error import true_calibration_error

# isort: on
from fedlas.metrics.base import METRICS, Estimator
from fedlas.metrics.binning import Bins, reliability_bins
from fedlas.metrics.evaluate import evaluate
from fedlas.metrics.scan import Chunk, Statistic

__all__ = [
    "METRICS",
    "Bins",
    "Chunk",
    "Estimator",
    "Statistic",
    "accuracy",
    "adaptive_calibration_error",
    "brier_score",
    "classwise_calibration_error",
    "evaluate",
    "expected_calibration_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability_bins",
    "top_k_accuracy",
    "true_calibration_error",
]
