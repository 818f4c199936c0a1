"""The calibration deployed with a model: fitted to validation predictions, or read from a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, check_choice, error_reason
from fedlas.calibrated.calibration import FITTED_ON, NONE, Calibration
from fedlas.calibrators.base import FORMAT
from fedlas.predictions import MultiLabel

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import AnyPredictions

__all__ = ["Calibration", "check_method", "fit_calibration", "read_calibration"]


def check_method(method: str) -> str:
    """Return ``method`` if it names a calibrator fitted to the validation part, or is ``"none"``; else raise."""
    from fedlas.calibrators import CALIBRATORS

    names = [
        entry.name for entry in CALIBRATORS.entries() if entry.metadata.get("part", "val") == "val"
    ]
    return check_choice("the calibrator", method, [*names, NONE])


def fit_calibration(method: str, val: AnyPredictions | MultiLabel) -> Calibration:
    """Return a calibration of the given method, fitted to validation predictions."""
    from fedlas.calibrated.calibration import unfitted_calibrator
    from fedlas.calibrators.fit_notes import fit_with_notes

    method = check_method(method)
    if method == NONE:
        return Calibration(None)
    calibrator = unfitted_calibrator(method, multi_label=isinstance(val, MultiLabel))
    return Calibration(*fit_with_notes(calibrator, val))


def read_calibration(content: Mapping[str, Any], num_classes: int) -> Calibration:
    """Return the calibration stored in a card by :meth:`Calibration.to_dict`; ``num_classes`` is 0 for confidences."""
    try:
        if content["method"] == NONE:
            return Calibration(None)
        of_labels = content if "labels" in content else None
        whole = (
            of_labels
            or content.get("calibrator")
            or {
                "format": FORMAT,
                "calibrator": "temperature",
                "num_classes": num_classes,
                "options": {},
                "state": {"temperature": content["temperature"]},
            }
        )
        fitted_on = content.get("fitted on") or FITTED_ON
        calibration = Calibration.from_dict(whole, source="the card", fitted_on=fitted_on)
        if calibration.num_classes != num_classes:
            raise ValueError(
                f"the calibrator has {calibration.num_classes} classes, the model {num_classes}"
            )
        return calibration
    except (KeyError, TypeError, ValueError) as error:
        fix = "Write the card again: fedlas card RUN."
        raise InputError(
            "the card must contain a valid calibration", error_reason(error), fix
        ) from error
