"""Fits a calibrator and keeps what the fit warns of, for those who show it later."""

from __future__ import annotations

import warnings
from typing import TypeVar

from fedlas.calibrators.base import CalibrationWarning, Calibrator
from fedlas.calibrators.label_shift import LabelShift
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions

C = TypeVar("C", bound=Calibrator)


def fit_with_notes(
    calibrator: C, val: AnyPredictions, *, unlabeled: AnyPredictions | None = None
) -> tuple[C, tuple[str, ...]]:
    """The calibrator, fitted on ``val``, and the texts of its warnings.

    One that can adapt to the samples it is used on does so, if they are given: their labels are not used.
    """
    notes: tuple[str, ...] = ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        calibrator.fit(val)
        if isinstance(unlabeled, Predictions) and isinstance(calibrator, LabelShift):
            calibrator.adapt(unlabeled)
            notes = ("LabelShift: the classes' shares are estimated from the samples measured, without their labels.",)
    return calibrator, (*notes, *(str(warning.message) for warning in caught))
