"""The calibration that goes out with a model: a fitted calibrator, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from fedlas._core.check import InputError, check_choice, reason
from fedlas.calibrated.file import calibration_of
from fedlas.calibrators import (
    CALIBRATORS,
    Calibrator,
    MultiLabelCalibration,
    TemperatureScaling,
)
from fedlas.calibrators.base import FORMAT
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import AnyPredictions

P = TypeVar("P", bound=AnyPredictions | MultiLabel)
NONE = "none"
FITTED_ON = "the validation part"
"""Where a calibration is fitted, if nothing else is said."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of a model's predictions by a fitted calibrator, with the warnings of its fit."""

    calibrator: Calibrator | MultiLabelCalibration | None  # None leaves predictions unchanged
    notes: tuple[str, ...] = ()
    fitted_on: str = FITTED_ON

    @property
    def method(self) -> str:
        """Registry name of the calibrator, or ``"none"``."""
        if isinstance(self.calibrator, MultiLabelCalibration):
            return self.calibrator.method
        return NONE if self.calibrator is None else str(self.calibrator.plain()["calibrator"])

    @property
    def is_fitted_on_validation(self) -> bool:
        """Whether the validation samples on which thresholds are chosen are those of its fit."""
        return self.calibrator is not None and self.fitted_on == FITTED_ON

    @property
    def temperature(self) -> float | None:
        """The temperature; None for another method than temperature scaling."""
        return (
            self.calibrator.temperature if isinstance(self.calibrator, TemperatureScaling) else None
        )

    @property
    def uses_features(self) -> bool:
        """Whether it needs the features that its fit used."""
        return self.calibrator is not None and self.calibrator.num_features is not None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return calibrated logits ``(n, C)``, or of several labels ``(n, L)``, of the same dtype."""
        if self.calibrator is None:
            return logits
        if isinstance(self.calibrator, MultiLabelCalibration):
            return self.calibrator.transform(logits)
        return self.calibrator.transform(Predictions(logits)).logits

    def transform(self, predictions: P) -> P:
        """Return the same samples, calibrated."""
        calibrator: Any = self.calibrator
        calibrated: P = predictions if calibrator is None else calibrator.transform(predictions)
        return calibrated

    def plain(self) -> dict[str, Any]:
        """Return one temperature, or all parameters, for JSON."""
        whole = {} if self.calibrator is None else self.calibrator.plain()
        if not whole or (
            self.temperature is not None and not whole.keys() & {"top_label", "least_log"}
        ):
            return {"method": self.method, "temperature": self.temperature}
        return {"method": self.method, "calibrator": whole}


def check_method(method: str) -> str:
    """Return the name of a calibrator that is fitted on a run's validation part, or none; refuse others."""
    names = [
        entry.name for entry in CALIBRATORS.entries() if entry.metadata.get("part", "val") == "val"
    ]
    return check_choice("the calibrator", method, [*names, NONE])


def fit_calibration(method: str, val: AnyPredictions | MultiLabel) -> Calibration:
    """Return the calibration fitted on validation predictions."""
    method = check_method(method)
    if method == NONE:
        return Calibration(None)
    several = isinstance(val, MultiLabel)
    calibrator: Any = (
        MultiLabelCalibration.of_method(method) if several else CALIBRATORS[method].value()
    )
    return Calibration(*fit_with_notes(calibrator, val))


def read_calibration(content: Mapping[str, Any], num_classes: int) -> Calibration:
    """Read the result of :meth:`Calibration.plain`; confidences alone have 0 classes."""
    try:
        if content["method"] == NONE:
            return Calibration(None)
        whole = content.get("calibrator") or {
            "format": FORMAT,
            "calibrator": "temperature",
            "num_classes": num_classes,
            "options": {},
            "state": {"temperature": content["temperature"]},
        }
        calibrator = calibration_of(whole, source="the card")
        classes = 0 if calibrator.top_label else calibrator.num_classes
        if classes != num_classes:
            raise ValueError(f"a calibrator of {classes} classes, not {num_classes}")
        return Calibration(calibrator, fitted_on=content.get("fitted on") or FITTED_ON)
    except (KeyError, TypeError, ValueError) as error:
        fix = "Write it again: fedlas card RUN."
        raise InputError("the card must hold a calibration", reason(error), fix) from error
