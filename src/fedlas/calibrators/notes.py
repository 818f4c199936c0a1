"""Fits a calibrator and keeps what the fit warns of, for those who show it later."""

from __future__ import annotations

import warnings
from typing import TypeVar

from fedlas.calibrators.base import CalibrationWarning, Calibrator
from fedlas.predictions import Predictions

C = TypeVar("C", bound=Calibrator)


def fit_with_notes(calibrator: C, val: Predictions) -> tuple[C, tuple[str, ...]]:
    """The calibrator, fitted on ``val``, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        calibrator.fit(val)
    return calibrator, tuple(str(warning.message) for warning in caught)
