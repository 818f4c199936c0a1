"""Metrics of accuracy and calibration: pure functions of :class:`~fedlas.Predictions`; ``evaluate`` computes all.

Each metric is a function of its name: ``ece(predictions)``, or ``ece(probs, target)`` with scores ``(N, C)``, of two
classes also ``(N,)`` of the second one, and labels ``(N,)``. Every name here is imported at its first use.

How a metric streams:

1. :func:`~fedlas.metrics.scan.iter_chunks` cuts the predictions into chunks that fit the processor's cache. A
   :class:`Chunk` computes softmax, confidence, outcome and other quantities when a metric first asks for them.
2. A :class:`Statistic` takes chunk after chunk in (``update``) and keeps weighted float64 sums (:class:`Sums`): of
   confidences and outcomes in bins (``EqualWidth``), of a number of each row (``RowMean``), of probabilities in bins of
   each class (``ClasswiseSums``), on a fine grid (``FineGrid``); or all confidences, where they must be sorted
   (``EqualMass``).
3. A metric is a formula of the statistic's ``table()``: :func:`ece` is ``mean_gap`` of the table
   that ``EqualWidth`` gathered. Metrics with the same statistic share it.
4. The registry :data:`METRICS` holds a record (:class:`Metric`) for each; ``evaluate`` fills the statistics of all in
   one pass over the rows, and a metric's own function is a pass of its own.
5. Chunks, batches, shards and ranks add up within 1e-12. So :class:`StreamingMetrics` keeps the same statistics from
   batch to batch. What must be sorted is replaced by the fine grid there, with a bound on the error.
6. The bootstrap (:mod:`fedlas.stats`) builds the same tables for many replicates at a time and calls the same formula.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.metrics.calibration_error import adaptive_ece, mce, reliability_bins
    from fedlas.metrics.classwise import classwise_ece
    from fedlas.metrics.classwise_adaptive import ace
    from fedlas.metrics.debiased import debiased_ece2
    from fedlas.metrics.decomposition import (
        BrierDecomposition,
        brier_calibration,
        brier_decomposition,
        brier_refinement,
    )
    from fedlas.metrics.equal_width import Bins, ece, top_label_ece
    from fedlas.metrics.evaluation import evaluate
    from fedlas.metrics.groups import (
        ClassCalibration,
        GroupCalibration,
        StreamingGroups,
        calibration_by_class,
        calibration_by_group,
    )
    from fedlas.metrics.kolmogorov_smirnov import ks
    from fedlas.metrics.metric import METRICS, Metric
    from fedlas.metrics.ranking_scores import auroc, average_precision
    from fedlas.metrics.root_mean_square import rmsce
    from fedlas.metrics.row_mean import accuracy, brier, nll, top5, top_k_accuracy
    from fedlas.metrics.scan import Chunk
    from fedlas.metrics.selective import augrc, aurc, e_aurc
    from fedlas.metrics.signed import confidence_gap, o_ece, u_ece
    from fedlas.metrics.smooth import smooth_ece
    from fedlas.metrics.soft import soft_accuracy, soft_brier, soft_nll
    from fedlas.metrics.streaming import StreamingClasses, StreamingMetrics
    from fedlas.metrics.sums import Statistic, Sums
    from fedlas.metrics.true_error import true_ece

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
    "ace",
    "adaptive_ece",
    "augrc",
    "aurc",
    "auroc",
    "average_precision",
    "brier",
    "brier_calibration",
    "brier_decomposition",
    "brier_refinement",
    "calibration_by_class",
    "calibration_by_group",
    "classwise_ece",
    "confidence_gap",
    "debiased_ece2",
    "e_aurc",
    "ece",
    "evaluate",
    "ks",
    "mce",
    "nll",
    "o_ece",
    "reliability_bins",
    "rmsce",
    "smooth_ece",
    "soft_accuracy",
    "soft_brier",
    "soft_nll",
    "top5",
    "top_k_accuracy",
    "top_label_ece",
    "true_ece",
    "u_ece",
]

HOMES = {
    "calibration_error": "adaptive_ece mce reliability_bins",
    "classwise": "classwise_ece",
    "classwise_adaptive": "ace",
    "debiased": "debiased_ece2",
    "decomposition": "BrierDecomposition brier_calibration brier_decomposition brier_refinement",
    "equal_width": "Bins ece top_label_ece",
    "evaluation": "evaluate",
    "groups": "ClassCalibration GroupCalibration StreamingGroups calibration_by_class calibration_by_group",
    "kolmogorov_smirnov": "ks",
    "metric": "METRICS Metric",
    "ranking_scores": "auroc average_precision",
    "root_mean_square": "rmsce",
    "row_mean": "accuracy brier nll top5 top_k_accuracy",
    "scan": "Chunk",
    "selective": "augrc aurc e_aurc",
    "signed": "confidence_gap o_ece u_ece",
    "smooth": "smooth_ece",
    "soft": "soft_accuracy soft_brier soft_nll",
    "streaming": "StreamingClasses StreamingMetrics",
    "sums": "Statistic Sums",
    "true_error": "true_ece",
}
"""The public names of each module; the registry imports them all when it is asked for all metrics."""

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(__name__, HOMES)

    def __dir__() -> list[str]:
        return __all__
