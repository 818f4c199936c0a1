"""Post-hoc calibrators: fitted on validation predictions and applied to others.

In: :class:`~fedlas.Predictions` of held-out samples, then those to calibrate. Out: the same samples with calibrated
logits, and the fitted calibrator as a JSON file. ``_fit`` holds the optimizers and regressions behind the methods.
"""

from fedlas._core.check import CalibrationWarning
from fedlas.calibrators.affine import VectorScaling
from fedlas.calibrators.auto import AutoCalibration
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.calibrators.bcts import BiasCorrectedTemperature
from fedlas.calibrators.confusion import ConfusionCalibration
from fedlas.calibrators.feature_clipping import FeatureClipping
from fedlas.calibrators.histogram_binning import HistogramBinning
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.label_shift import LabelShift
from fedlas.calibrators.layer import CalibrationLayer
from fedlas.calibrators.matrix import DirichletCalibration, MatrixScaling
from fedlas.calibrators.multicalibration import Multicalibration
from fedlas.calibrators.multilabel import MultiLabelCalibration
from fedlas.calibrators.one_vs_rest import BetaCalibration, PlattScaling
from fedlas.calibrators.partial_pooling import PartialPooling
from fedlas.calibrators.pooled_spline import PooledSplineCalibration
from fedlas.calibrators.spline import SplineCalibration
from fedlas.calibrators.structured import StructuredScaling
from fedlas.calibrators.temperature import (
    DriftTemperature,
    EnsembleTemperatureScaling,
    TemperatureScaling,
)
from fedlas.calibrators.venn_abers import VennAbers

__all__ = [
    "CALIBRATORS",
    "AutoCalibration",
    "BetaCalibration",
    "BiasCorrectedTemperature",
    "CalibrationLayer",
    "CalibrationWarning",
    "Calibrator",
    "ConfusionCalibration",
    "DirichletCalibration",
    "DriftTemperature",
    "EnsembleTemperatureScaling",
    "FeatureClipping",
    "HistogramBinning",
    "IsotonicCalibration",
    "LabelShift",
    "MatrixScaling",
    "MultiLabelCalibration",
    "Multicalibration",
    "PartialPooling",
    "PlattScaling",
    "PooledSplineCalibration",
    "SplineCalibration",
    "StructuredScaling",
    "TemperatureScaling",
    "VectorScaling",
    "VennAbers",
]
