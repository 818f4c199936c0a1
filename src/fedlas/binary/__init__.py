"""Evaluation of predictions of a binary event: calibration, discrimination and clinical utility.

In: ``Predictions`` of two classes, or of more with ``event=k``, which is then one class against the rest. Out:
numbers with intervals, and the arrays that :mod:`fedlas.plots` draws. Measures of one number are functions of
their names, with records among :data:`fedlas.metrics.METRICS`.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.binary.between_clusters import ClusterMeasures, Heterogeneity, heterogeneity
    from fedlas.binary.curve_distances import IntegratedCalibration, integrated_calibration
    from fedlas.binary.decision import Decision, Rule, choose_threshold, decide
    from fedlas.binary.decision_curve import NetBenefit, net_benefit
    from fedlas.binary.development_sample import DevelopmentSize, development_size
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
    from fedlas.binary.label_groups import LabelGroupMeasures, label_group_measures
    from fedlas.binary.labels import LabelMeasures, LabelTable, label_measures
    from fedlas.binary.likelihood import LikelihoodIndices, likelihood_indices
    from fedlas.binary.measure_table import brier_skill, measures
    from fedlas.binary.positive import PositiveBins, positive_bins
    from fedlas.binary.recalibration import LogisticRecalibration, logistic_recalibration
    from fedlas.binary.restricted_spline import SplineCurve, spline_curve
    from fedlas.binary.sample_size import ValidationSize, validation_size

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

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "decision": "Decision Rule choose_threshold decide",
            "discrimination": "auroc average_precision",
            "event_distances": "e50 e90 emax ici",
            "event_measures": "brier d ece expected in_the_large intercept nll observed observed_to_expected q r2 "
            "slope spiegelhalter_z u",
            "groups": "GroupMeasures group_measures",
            "between_clusters": "ClusterMeasures Heterogeneity heterogeneity",
            "curve_distances": "IntegratedCalibration integrated_calibration",
            "label_groups": "LabelGroupMeasures label_group_measures",
            "labels": "LabelMeasures LabelTable label_measures",
            "likelihood": "LikelihoodIndices likelihood_indices",
            "measure_table": "brier_skill measures",
            "decision_curve": "NetBenefit net_benefit",
            "positive": "PositiveBins positive_bins",
            "recalibration": "LogisticRecalibration logistic_recalibration",
            "restricted_spline": "SplineCurve spline_curve",
            "development_sample": "DevelopmentSize development_size",
            "sample_size": "ValidationSize validation_size",
        },
    )

    def __dir__() -> list[str]:
        return __all__
