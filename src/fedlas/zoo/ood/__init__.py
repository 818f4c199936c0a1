"""Out-of-distribution detection: scores per sample (higher = more OOD), and detection metrics.

Input: :class:`Outputs` (logits and features without labels), and for some scores a :class:`Reference` of
in-distribution samples. Output: one score per sample, and detection metrics (AUROC, AUPR, FPR95, OSCR) with intervals.
:func:`rule_shift` tests whether a whole set differs from in-distribution samples.
"""

# Importing a module registers its scores, and tables list them in that order: hence no sorting here.
# ruff: noqa: I001
from fedlas.zoo.ood.images import adapt_images, count_duplicates
from fedlas.zoo.ood.base import OOD_SCORES, Reference, Score, compute_score, score_options
from fedlas.zoo.ood.logit_scores import (
    energy_score,
    entropy_score,
    gen_score,
    max_logit_score,
    msp_score,
)
from fedlas.zoo.ood.feature_norm import feature_norm_score, negative_aware_norm_score
from fedlas.zoo.ood.detection import (
    DETECTION,
    detection_intervals,
    detection_metrics,
    fpr_at_tpr,
    roc_points,
)
from fedlas.zoo.ood.fitted_scores import (
    kl_matching_score,
    knn_score,
    mahalanobis_score,
    relative_mahalanobis_score,
    vim_score,
)
from fedlas.zoo.ood.rules import RuleShift, rule_shift, rules_score
from fedlas.zoo.ood.odin import odin_score
from fedlas.zoo.ood.outputs import Outputs

__all__ = [
    "DETECTION",
    "OOD_SCORES",
    "Outputs",
    "Reference",
    "RuleShift",
    "Score",
    "adapt_images",
    "compute_score",
    "count_duplicates",
    "detection_intervals",
    "detection_metrics",
    "energy_score",
    "entropy_score",
    "feature_norm_score",
    "fpr_at_tpr",
    "gen_score",
    "kl_matching_score",
    "knn_score",
    "mahalanobis_score",
    "max_logit_score",
    "msp_score",
    "negative_aware_norm_score",
    "odin_score",
    "relative_mahalanobis_score",
    "roc_points",
    "rule_shift",
    "rules_score",
    "score_options",
    "vim_score",
]
