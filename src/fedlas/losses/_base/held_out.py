"""Losses that learn from validation predictions, and the warning where a training loop never passes them on."""

from __future__ import annotations

import sys
import warnings
from abc import abstractmethod
from typing import Self, Unpack

import torch
from torch import Tensor

from fedlas._core.check import CalibrationWarning
from fedlas.losses._base.loss import Loss, LossOptions
from fedlas.predictions import Predictions


class LearnsFromValidation(Loss):
    """A loss with a method ``update_from_validation(predictions)``, which the training loop must call.

    It warns once if training continues without any call: at the third pass over the training set, if the loss has
    ``num_samples``, or at the second ``eval()`` after training batches. Inside ``torch.compile`` nothing is counted.
    """

    def __init__(self, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self._calls = _Calls()

    @abstractmethod
    def update_from_validation(self, predictions: Predictions) -> None:
        """Learn from validation predictions; call it after each epoch, never with the test set."""

    def _note_validation(self) -> None:
        """Remember that the training loop passes validation predictions on."""
        self._calls.updated = True

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode."""
        calls = self._calls
        if not mode and calls.trained:
            calls.trained, calls.evaluations = False, calls.evaluations + 1
            self._remind(calls.evaluations >= 2, "two validations")
        return super().train(mode)

    def _forward(self, logits: Tensor, target: Tensor, extras: dict[str, Tensor | None]) -> Tensor:
        value = super()._forward(logits, target, extras)
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._calls.trained = True
            self._calls.samples += len(logits)
            samples = getattr(self, "num_samples", None)
            self._remind(samples is not None and self._calls.samples > 2 * samples, "two passes over the training set")
        return value

    def _remind(self, due: bool, after: str) -> None:
        if not due or self._calls.updated:
            return
        self._calls.updated = True  # once
        warnings.warn(
            f"{type(self).__name__}: training must call update_from_validation(predictions); got no call in {after}, "
            "so the loss has learned nothing from validation. Call it after each epoch, e.g. "
            "criterion.update_from_validation(fedlas.predict(model, val_loader)).",
            CalibrationWarning,
            stacklevel=_outside(),
        )


class _Calls:
    """What a training loop has done so far; not a part of the state."""

    updated = False
    trained = False
    evaluations = 0
    samples = 0


def _outside() -> int:
    """The ``stacklevel`` of the nearest caller that is neither in this package nor in torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("fedlas", "torch"):
        level, frame = level + 1, frame.f_back
    return level
