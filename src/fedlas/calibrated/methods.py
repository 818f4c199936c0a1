"""The method of a calibration: a name, or a calibrator with options."""

from __future__ import annotations

import copy

from fedlas._core.check import InputError, check_choice
from fedlas.calibrators import CALIBRATORS, Calibrator


def calibrator_of(method: object) -> Calibrator:
    """Return an unfitted calibrator: the one of that name, or a copy of the one that is passed.

    Raises:
        InputError: For an unknown name, or a calibrator that is fitted on other data than held-out samples.
    """
    if isinstance(method, Calibrator):
        return copy.deepcopy(method)
    entry = CALIBRATORS[check_choice("method", method, list(CALIBRATORS))]
    part = entry.metadata.get("part", "val")
    if part != "val":
        raise InputError(
            "the method must be one that is fitted on the loader's own data",
            f"{entry.name}, which is fitted on data under growing noise",
            f"Fit {entry.value.__name__}() on fedlas.objective.drifted_predictions(model, loader), and pass it to "
            "fedlas.CalibratedModel(model, calibrator).",
        )
    return entry.value()
