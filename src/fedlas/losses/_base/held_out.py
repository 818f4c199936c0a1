"""Losses that learn from validation predictions, and the warning where a training loop never passes them on."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from types import SimpleNamespace
from typing import ClassVar, Self

import torch
from torch import Tensor

from fedlas._core.check import InputError, warn_user
from fedlas.losses._base.loss import Loss
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import check_predictions


class LearnsFromValidation(Loss):
    """A loss with a method ``update_from_validation(predictions)``, which the training loop must call.

    A subclass writes ``learn_from``. The loss warns once if training continues without any call: at the third pass over
    the training set, if it has ``num_samples``, or at the second ``eval()`` after training batches. Inside
    ``torch.compile`` nothing is counted.

    Attributes:
        counts_weights: Whether a weighted sample counts by its weight; if not, weights are refused.

    Example:
        >>> class Sharpened(LearnsFromValidation):
        ...     factor = 1.0
        ...     def learn_from(self, predictions):
        ...         self.factor = float(predictions.correct.double().mean() / predictions.confidence.mean())
        ...     def per_sample(self, batch):
        ...         return self.factor * batch.cross_entropy()
        >>> criterion = Sharpened()
        >>> criterion.update_from_validation(Predictions(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])))
        >>> criterion.factor
        1.5
    """

    counts_weights: ClassVar[bool] = False

    @cached_property
    def _calls(self) -> SimpleNamespace:
        """Calls of a training loop so far; not a part of the state."""
        return SimpleNamespace(updated=False, trained=False, evaluations=0, samples=0)

    @abstractmethod
    def learn_from(self, predictions: Predictions) -> None:
        """Learn from checked predictions, without gradients."""

    @torch.no_grad()
    def update_from_validation(self, predictions: Predictions) -> None:
        """Learn from validation predictions; call it after each epoch, never with the test set.

        Raises:
            InputError: If they are no Predictions, have another number of classes than the loss, or weights that would
                not count. Nothing has changed then.
        """
        if self.num_classes not in (None, check_predictions(predictions).num_classes):
            raise InputError(
                f"predictions must have num_classes = {self.num_classes} columns",
                tuple(predictions.logits.shape),
                "Pass predictions of the model that is trained with this loss.",
            )
        if predictions.weights is not None and not self.counts_weights:
            got = "weights"
            fix = "Pass dataclasses.replace(predictions, weights=None)."
            raise InputError("predictions must have no weights, which would not count", got, fix)
        self.learn_from(predictions)
        if (
            update := getattr(getattr(self, "base", None), "update_from_validation", None)
        ) is not None:
            update(predictions)
        self._calls.updated = True

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode."""
        calls = self._calls
        if not mode and calls.trained:
            calls.trained, calls.evaluations = False, calls.evaluations + 1
            self._remind(calls.evaluations >= 2, "two validations")
        return super().train(mode)

    def _forward(self, logits: Tensor, target: Tensor, extras: dict[str, Tensor]) -> Tensor:
        value = super()._forward(logits, target, extras)
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._calls.trained = True
            self._calls.samples += len(logits)
            samples = getattr(self, "num_samples", None)
            self._remind(
                samples is not None and self._calls.samples > 2 * samples,
                "two passes over the training set",
            )
        return value

    def _remind(self, due: bool, after: str) -> None:
        if due and not self._calls.updated:
            self._calls.updated = True  # once
            warn_user(
                f"{type(self).__name__}: training must call update_from_validation(predictions); got no call in "
                f"{after}, so the loss has learned nothing from validation. Call it after each epoch, e.g. "
                "criterion.update_from_validation(fedlas.predict(model, val_loader)).",
            )
