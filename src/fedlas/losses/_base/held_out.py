"""Losses that learn from validation predictions, and the warning where a training loop never passes them on."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from fedlas._core.check import InputError, warn_user
from fedlas.losses._base.loss import Loss
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_predictions


class LearnsFromValidation(Loss):
    """A loss with a method ``update_from_validation(predictions)``, which the training loop must call.

    A subclass writes ``learn_from``. The loss warns once if training continues without any call: at the third pass over
    the training set, if it has ``num_samples``, or at the second ``eval()`` after training batches. Inside
    ``torch.compile`` nothing is counted.
    """

    # The calls of a training loop so far; not a part of the state.
    _updated, _trained, _evaluations, _samples = False, False, 0, 0

    @abstractmethod
    def learn_from(self, predictions: Predictions) -> None:
        """Learn from checked predictions, without gradients."""

    @torch.no_grad()
    def update_from_validation(self, predictions: Predictions) -> None:
        """Learn from validation predictions; call it after each epoch, never with the test set.

        Raises:
            InputError: If they are no Predictions, or have another number of classes than the loss. Nothing has changed
                then.
        """
        name = type(self).__name__
        if self.num_classes not in (None, check_predictions(name, predictions).num_classes):
            raise InputError(
                name,
                f"predictions must have num_classes = {self.num_classes} columns",
                tuple(predictions.logits.shape),
                "Pass predictions of the model that is trained with this loss.",
            )
        self.learn_from(predictions)
        pass_validation_on(getattr(self, "base", None), predictions)
        self._updated = True

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode."""
        if not mode and self._trained:
            self._trained, self._evaluations = False, self._evaluations + 1
            self._remind(self._evaluations >= 2, "two validations")
        return super().train(mode)

    def _forward(self, logits: Tensor, target: Tensor, extras: dict[str, Tensor]) -> Tensor:
        value = super()._forward(logits, target, extras)
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._trained = True
            self._samples += len(logits)
            samples = getattr(self, "num_samples", None)
            self._remind(samples is not None and self._samples > 2 * samples, "two passes over the training set")
        return value

    def _remind(self, due: bool, after: str) -> None:
        if not due or self._updated:
            return
        self._updated = True  # once
        warn_user(
            f"{type(self).__name__}: training must call update_from_validation(predictions); got no call in {after}, "
            "so the loss has learned nothing from validation. Call it after each epoch, e.g. "
            "criterion.update_from_validation(fedlas.predict(model, val_loader)).",
        )


def pass_validation_on(criterion: Any, predictions: Predictions) -> None:
    """Pass validation predictions on to a criterion that learns from them."""
    update = getattr(criterion, "update_from_validation", None)
    if update is not None:
        update(predictions)
