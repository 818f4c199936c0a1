"""Metrics of accuracy and calibration: pure functions on :class:`~fedlas.Predictions`; ``evaluate`` computes all.

How a metric streams:

1. :func:`~fedlas.metrics.scan.chunks` cuts the predictions into chunks that fit the processor's cache. A
   :class:`Chunk` computes softmax, confidence, outcome and other quantities when a metric first asks for them.
2. A :class:`Statistic` takes chunk after chunk in (``update``) and keeps weighted float64 sums (:class:`Sums`): of
   confidences and outcomes in bins (``EqualWidth``), of a number of each row (``RowMean``), of probabilities in bins of
   each class (``ClasswiseSums``), on a fine grid (``FineGrid``); or all confidences, where they must be sorted
   (``EqualMass``).
3. A metric is a formula of the statistic's ``table()``: :func:`expected_calibration_error` is ``mean_gap`` of the table
   that ``EqualWidth`` gathered. Metrics with the same statistic share it.
4. The registry :data:`METRICS` holds a record (:class:`Metric`) for each; ``evaluate`` fills the statistics of all in
   one pass over the rows, and a metric's own function is a pass of its own.
5. Chunks, batches, shards and ranks add up within 1e-12. So :class:`StreamingMetrics` keeps the same statistics from
   batch to batch. What must be sorted is replaced by the fine grid there, with a bound on the error.
6. The bootstrap (:mod:`fedlas.stats`) builds the same tables for many replicates at a time and calls the same formula.
"""

from fedlas.metrics.calibration_error import (
    adaptive_ece,
    maximum_calibration_error,
    reliability_bins,
)
from fedlas.metrics.classwise import classwise_calibration_error
from fedlas.metrics.classwise_adaptive import classwise_adaptive_calibration_error
from fedlas.metrics.debiased import debiased_squared_calibration_error
from fedlas.metrics.decomposition import (
    BrierDecomposition,
    brier_calibration,
    brier_decomposition,
    brier_refinement,
)
from fedlas.metrics.equal_width import Bins, expected_calibration_error, top_label_calibration_error
from fedlas.metrics.evaluation import evaluate
from fedlas.metrics.groups import (
    ClassCalibration,
    GroupCalibration,
    StreamingGroups,
    calibration_by_class,
    calibration_by_group,
)
from fedlas.metrics.kolmogorov_smirnov import ks_calibration_error
from fedlas.metrics.metric import METRICS, Metric
from fedlas.metrics.ranking_scores import auroc, average_precision
from fedlas.metrics.root_mean_square import root_mean_square_calibration_error
from fedlas.metrics.row_mean import accuracy, brier_score, negative_log_likelihood, top_k_accuracy
from fedlas.metrics.scan import Chunk
from fedlas.metrics.selective import (
    area_under_generalized_risk_coverage,
    area_under_risk_coverage,
    excess_area_under_risk_coverage,
)
from fedlas.metrics.signed import (
    confidence_gap,
    overconfident_calibration_error,
    underconfident_calibration_error,
)
from fedlas.metrics.smooth import smooth_calibration_error
from fedlas.metrics.soft import soft_accuracy, soft_brier_score, soft_negative_log_likelihood
from fedlas.metrics.streaming import StreamingClasses, StreamingMetrics
from fedlas.metrics.sums import Statistic, Sums
from fedlas.metrics.true_error import true_calibration_error

__all__ = [
    "METRICS",
    "Bins",
    "BrierDecomposition",
    "Chunk",
    "ClassCalibration",
    "GroupCalibration",
    "Metric",
    "Statistic",
    "StreamingClasses",
    "StreamingGroups",
    "StreamingMetrics",
    "Sums",
    "accuracy",
    "adaptive_ece",
    "area_under_generalized_risk_coverage",
    "area_under_risk_coverage",
    "auroc",
    "average_precision",
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
    "overconfident_calibration_error",
    "reliability_bins",
    "root_mean_square_calibration_error",
    "smooth_calibration_error",
    "soft_accuracy",
    "soft_brier_score",
    "soft_negative_log_likelihood",
    "top_k_accuracy",
    "top_label_calibration_error",
    "true_calibration_error",
    "underconfident_calibration_error",
]
