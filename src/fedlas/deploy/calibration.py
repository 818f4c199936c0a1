"""The calibration that goes out with a model: one temperature, or a factor and an offset a class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_number, reason
from fedlas.calibrators import TemperatureScaling, VectorScaling
from fedlas.calibrators.notes import fit_with_notes
from fedlas.predictions import Predictions
from fedlas.stats.gap_sums import read_numbers

METHODS = ("temperature", "vector", "none")
"""Calibrators that are an affine map of each logit, and so can be folded into a linear head; or none."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """``z -> weight * z + bias``, class by class.

    Attributes:
        method: One of :data:`METHODS`.
        weight: ``(C,)`` float64.
        bias: ``(C,)`` float64.
        temperature: The fitted temperature; None for another method.
        notes: What the fit warned of.
    """

    method: str
    weight: Tensor
    bias: Tensor
    temperature: float | None = None
    notes: tuple[str, ...] = ()

    def __call__(self, logits: Tensor) -> Tensor:
        """Calibrated logits ``(n, C)``, of the same dtype, computed in float64."""
        return (logits.double() * self.weight + self.bias).to(logits.dtype)

    def transform(self, predictions: Predictions) -> Predictions:
        """The same samples, calibrated."""
        return predictions.with_logits(self(predictions.logits))

    def plain(self) -> dict[str, Any]:
        """For JSON: one temperature, or all numbers."""
        if self.method != "vector":
            return {"method": self.method, "temperature": self.temperature}
        return {"method": self.method, "weight": self.weight.tolist(), "bias": self.bias.tolist()}


def fit_calibration(method: str, val: Predictions) -> Calibration:
    """The calibration fitted on validation predictions by NLL.

    Raises:
        InputError: For another method.
    """
    check_choice("fedlas export", "--calibrate", method, METHODS)
    num_classes = val.num_classes
    one, zero = torch.ones(num_classes, dtype=torch.float64), torch.zeros(num_classes, dtype=torch.float64)
    if method == "none":
        return Calibration(method, one, zero)
    fitted, notes = fit_with_notes(TemperatureScaling() if method == "temperature" else VectorScaling(), val)
    if isinstance(fitted, TemperatureScaling):
        return Calibration(method, one / fitted.temperature, zero, fitted.temperature, notes)
    return Calibration(method, fitted.weight, fitted.bias, None, notes)


def read_calibration(content: Mapping[str, Any], num_classes: int) -> Calibration:
    """What :meth:`Calibration.plain` gave.

    Raises:
        InputError: If it is something else.
    """
    try:
        method = check_choice("card", "calibration method", content["method"], METHODS)
        one = torch.ones(num_classes, dtype=torch.float64)
        if method == "vector":
            weight, bias = (torch.from_numpy(read_numbers(content, key)) for key in ("weight", "bias"))
            if weight.shape != one.shape or bias.shape != one.shape:
                raise ValueError(f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} of {num_classes} classes")
            return Calibration(method, weight, bias)
        if method == "none":
            return Calibration(method, one, torch.zeros_like(one))
        temperature = check_number("card", "temperature", content["temperature"], low=0, low_open=True)
        if not math.isfinite(1 / temperature):
            raise ValueError(f"temperature {temperature} has no inverse")
        return Calibration(method, one / temperature, torch.zeros_like(one), temperature)
    except (KeyError, TypeError, ValueError) as error:
        fix = "Write it again: fedlas card RUN."
        raise InputError("card", "it must hold a calibration", reason(error), fix) from error
