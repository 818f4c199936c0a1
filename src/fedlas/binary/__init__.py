"""Evaluation of predictions of a binary event: calibration, discrimination and clinical utility.

In: ``Predictions`` of two classes, or of more with ``event=k``, which is then one class against the rest. Out:
numbers with intervals, and the arrays that :mod:`fedlas.plots` draws. Measures of one number are functions of
their names, with records among :data:`fedlas.metrics.METRICS`.
"""

from fedlas.binary.decision import Decision, Rule, choose_threshold, decide
from fedlas.binary.development_size import DevelopmentSize, development_size
from fedlas.binary.discrimination import auroc, average_precision
from fedlas.binary.event_distances import e50, e90, emax, ici
from fedlas.binary.event_measures import (
    brier,
    d,
    ece,
    expected,
    in_the_large,
    intercept,
    nll,
    observed,
    observed_to_expected,
    q,
    r2,
    slope,
    spiegelhalter_z,
    u,
)
from fedlas.binary.groups import GroupMeasures, group_measures
from fedlas.binary.heterogeneity import ClusterMeasures, Heterogeneity, heterogeneity
from fedlas.binary.integrated_calibration import IntegratedCalibration, integrated_calibration
from fedlas.binary.label_groups import LabelGroupMeasures, label_group_measures
from fedlas.binary.labels import LabelMeasures, LabelTable, label_measures
from fedlas.binary.likelihood import LikelihoodIndices, likelihood_indices
from fedlas.binary.measures import brier_skill, measures
from fedlas.binary.net_benefit import NetBenefit, net_benefit
from fedlas.binary.positive import PositiveBins, positive_bins
from fedlas.binary.recalibration import (
    LogisticRecalibration,
    logistic_recalibration,
)
from fedlas.binary.sample_size import ValidationSize, validation_size
from fedlas.binary.spline_curve import SplineCurve, spline_curve

__all__ = [
    "ClusterMeasures",
    "Decision",
    "DevelopmentSize",
    "GroupMeasures",
    "Heterogeneity",
    "IntegratedCalibration",
    "LabelGroupMeasures",
    "LabelMeasures",
    "LabelTable",
    "LikelihoodIndices",
    "LogisticRecalibration",
    "NetBenefit",
    "PositiveBins",
    "Rule",
    "SplineCurve",
    "ValidationSize",
    "auroc",
    "average_precision",
    "brier",
    "brier_skill",
    "choose_threshold",
    "d",
    "decide",
    "development_size",
    "e50",
    "e90",
    "ece",
    "emax",
    "expected",
    "group_measures",
    "heterogeneity",
    "ici",
    "in_the_large",
    "integrated_calibration",
    "intercept",
    "label_group_measures",
    "label_measures",
    "likelihood_indices",
    "logistic_recalibration",
    "measures",
    "net_benefit",
    "nll",
    "observed",
    "observed_to_expected",
    "positive_bins",
    "q",
    "r2",
    "slope",
    "spiegelhalter_z",
    "spline_curve",
    "u",
    "validation_size",
]
