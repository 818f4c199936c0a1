"""Metrics of accuracy and calibration: pure functions on :class:`~fedlas.Predictions`; ``evaluate`` computes all."""

# The order in which these modules register their metrics is the order of columns in tables.
# isort: off
from fedlas.metrics.accuracy import accuracy, top_k_accuracy
from fedlas.metrics.proper import brier_score, negative_log_likelihood
from fedlas.metrics.calibration_error import (
    adaptive_ece,
    expected_calibration_error,
    maximum_calibration_error,
)
from fedlas.metrics.classwise import classwise_calibration_error
from fedlas.metrics.smooth import smooth_calibration_error
from fedlas.metrics.signed import (
    confidence_gap,
    overconfidence,
    overconfident_calibration_error,
    underconfidence,
    underconfident_calibration_error,
)
from fedlas.metrics.debiased import debiased_squared_calibration_error
from fedlas.metrics.true_error import true_calibration_error
from fedlas.metrics.rmsce import root_mean_square_calibration_error
from fedlas.metrics.ks import ks_calibration_error
from fedlas.metrics.ace import classwise_adaptive_calibration_error
from fedlas.metrics.brier_decomposition import (
    BrierDecomposition,
    brier_calibration,
    brier_decomposition,
    brier_refinement,
)
from fedlas.metrics.selective import (
    area_under_generalized_risk_coverage,
    area_under_risk_coverage,
    excess_area_under_risk_coverage,
)
from fedlas.metrics.soft import soft_accuracy, soft_brier_score, soft_negative_log_likelihood

# isort: on
from fedlas.metrics.base import METRICS, Approximation, OnePass
from fedlas.metrics.binning import Bins, reliability_bins
from fedlas.metrics.evaluate import evaluate
from fedlas.metrics.groups import ClassCalibration, GroupCalibration, calibration_by_class, calibration_by_group
from fedlas.metrics.scan import Chunk, Statistic, Sums
from fedlas.metrics.streaming import StreamingMetrics
from fedlas.metrics.streaming_tables import StreamingClasses, StreamingGroups

__all__ = [
    "METRICS",
    "Approximation",
    "Bins",
    "BrierDecomposition",
    "Chunk",
    "ClassCalibration",
    "GroupCalibration",
    "OnePass",
    "Statistic",
    "StreamingClasses",
    "StreamingGroups",
    "StreamingMetrics",
    "Sums",
    "accuracy",
    "adaptive_ece",
    "area_under_generalized_risk_coverage",
    "area_under_risk_coverage",
    "brier_calibration",
    "brier_decomposition",
    "brier_refinement",
    "brier_score",
    "calibration_by_class",
    "calibration_by_group",
    "classwise_adaptive_calibration_error",
    "classwise_calibration_error",
    "confidence_gap",
    "debiased_squared_calibration_error",
    "evaluate",
    "excess_area_under_risk_coverage",
    "expected_calibration_error",
    "ks_calibration_error",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "overconfidence",
    "overconfident_calibration_error",
    "reliability_bins",
    "root_mean_square_calibration_error",
    "smooth_calibration_error",
    "soft_accuracy",
    "soft_brier_score",
    "soft_negative_log_likelihood",
    "top_k_accuracy",
    "true_calibration_error",
    "underconfidence",
    "underconfident_calibration_error",
]
