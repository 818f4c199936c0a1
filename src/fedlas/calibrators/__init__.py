"""Post-hoc calibrators: fitted on validation predictions, they transform test predictions."""

from fedlas.calibrators.base import CALIBRATORS, CalibrationWarning, Calibrator
from fedlas.calibrators.temperature import TemperatureScaling

__all__ = ["CALIBRATORS", "CalibrationWarning", "Calibrator", "TemperatureScaling"]
