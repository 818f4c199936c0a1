"""The method of a calibration: a name, or a calibrator with options."""

from __future__ import annotations

import copy

from fedlas._core.check import InputError, check_choice
from fedlas.calibrators import CALIBRATORS, Calibrator, MultiLabelCalibration


def calibrator_of(method: object) -> Calibrator | MultiLabelCalibration:
    """Return an unfitted calibrator: the one of that name, or a copy of the one that is passed.

    Raises:
        InputError: For an unknown name, or a calibrator that is fitted on other data than held-out samples.
    """
    if isinstance(method, Calibrator | MultiLabelCalibration):
        return copy.deepcopy(method)
    if isinstance(method, type):
        fix = f"Pass {method.__name__}()."
        raise InputError(
            "method must be a name or a calibrator", f"the class {method.__name__}", fix
        )
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


def of_classes(calibrator: Calibrator | MultiLabelCalibration) -> Calibrator:
    """Return a calibrator of classes.

    Raises:
        InputError: For one of several labels a sample.
    """
    if isinstance(calibrator, Calibrator):
        return calibrator
    fix = "Calibrate the model in PyTorch, or one label at a time."
    raise InputError("the calibration must be of classes", "one of several labels a sample", fix)
