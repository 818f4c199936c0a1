"""Post-hoc calibrators: one method a file, fitted on validation predictions and applied to others.

In: :class:`~fedlas.Predictions` of held-out samples, then those to calibrate. Out: the same samples with calibrated
logits, and the fitted calibrator as a JSON file. ``_fit`` holds the optimizers and regressions behind the methods.
"""

from fedlas._core.check import CalibrationWarning
from fedlas.calibrators.auto import AutoCalibration
from fedlas.calibrators.base import CALIBRATORS, Calibrator, MappedCalibrator
from fedlas.calibrators.beta import BetaCalibration
from fedlas.calibrators.bias_corrected import BiasCorrectedTemperature
from fedlas.calibrators.dirichlet import DirichletCalibration
from fedlas.calibrators.drift_temperature import DriftTemperature
from fedlas.calibrators.ensemble_temperature import EnsembleTemperatureScaling
from fedlas.calibrators.feature_clipping import FeatureClipping
from fedlas.calibrators.histogram_binning import HistogramBinning
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.label_shift import LabelShift
from fedlas.calibrators.layer import CalibrationLayer
from fedlas.calibrators.matrix import MatrixScaling
from fedlas.calibrators.multicalibration import Multicalibration
from fedlas.calibrators.platt import PlattScaling
from fedlas.calibrators.semantic_grouping import SemanticGrouping
from fedlas.calibrators.spline import SplineCalibration
from fedlas.calibrators.stream_fit import StreamFit
from fedlas.calibrators.structured import StructuredScaling
from fedlas.calibrators.temperature import TemperatureScaling
from fedlas.calibrators.vector import VectorScaling
from fedlas.calibrators.venn_abers import VennAbers

__all__ = [
    "CALIBRATORS",
    "AutoCalibration",
    "BetaCalibration",
    "BiasCorrectedTemperature",
    "CalibrationLayer",
    "CalibrationWarning",
    "Calibrator",
    "DirichletCalibration",
    "DriftTemperature",
    "EnsembleTemperatureScaling",
    "FeatureClipping",
    "HistogramBinning",
    "IsotonicCalibration",
    "LabelShift",
    "MappedCalibrator",
    "MatrixScaling",
    "Multicalibration",
    "PlattScaling",
    "SemanticGrouping",
    "SplineCalibration",
    "StreamFit",
    "StructuredScaling",
    "TemperatureScaling",
    "VectorScaling",
    "VennAbers",
]
