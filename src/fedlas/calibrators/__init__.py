"""Post-hoc calibrators: fit them on held-out predictions, apply them to new ones.

Input: :class:`~fedlas.Predictions` of held-out samples to fit on, then the predictions to calibrate. Output: the same
samples with calibrated logits, and the fitted calibrator as a JSON file. ``_fit`` holds the optimizers and regressions
behind the methods. Every name here is imported at its first use.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.calibrators.affine import VectorScaling
    from fedlas.calibrators.auto import AutoCalibration
    from fedlas.calibrators.base import CALIBRATORS, CalibrationWarning, Calibrator
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

HOMES = {
    "base": "CALIBRATORS CalibrationWarning Calibrator",
    "affine": "VectorScaling",
    "bcts": "BiasCorrectedTemperature",
    "confusion": "ConfusionCalibration",
    "isotonic": "IsotonicCalibration",
    "temperature": "DriftTemperature EnsembleTemperatureScaling TemperatureScaling",
    "pooled_spline": "PooledSplineCalibration",
    "spline": "SplineCalibration",
    "structured": "StructuredScaling",
    "auto": "AutoCalibration",
    "feature_clipping": "FeatureClipping",
    "histogram_binning": "HistogramBinning",
    "label_shift": "LabelShift",
    "layer": "CalibrationLayer",
    "matrix": "DirichletCalibration MatrixScaling",
    "multicalibration": "Multicalibration",
    "partial_pooling": "PartialPooling",
    "multilabel": "MultiLabelCalibration",
    "one_vs_rest": "BetaCalibration PlattScaling",
    "venn_abers": "VennAbers",
}
"""The public names of each module; ``CALIBRATORS`` imports them all, in this order, when it is asked for all."""

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(__name__, HOMES)

    def __dir__() -> list[str]:
        return __all__
