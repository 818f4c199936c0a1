"""Base class of losses that learn from validation predictions, with a warning if training never passes any."""

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
from fedlas.predictions.any_predictions import require_predictions


class LearnsFromValidation(Loss):
    """Base class of losses whose state is updated from validation predictions after each epoch.

    A subclass writes ``learn_from``. The loss warns once if training continues without any call: at the third pass over
    the training set, if it has ``num_samples``, or at the second ``eval()`` after training batches. Inside
    ``torch.compile`` nothing is counted.

    Attributes:
        uses_sample_weights: Whether sample weights are used; if not, weighted predictions raise an error.

    Example:
        >>> class Sharpened(LearnsFromValidation):
        ...     factor = 1.0
        ...     def learn_from(self, predictions):
        ...         self.factor = float(predictions.correct.mean() / predictions.confidence.mean())
        ...     def per_sample(self, batch):
        ...         return self.factor * batch.cross_entropy()
        >>> criterion = Sharpened()
        >>> criterion.update_from_validation(Predictions(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])))
        >>> criterion.factor
        1.5
    """

    uses_sample_weights: ClassVar[bool] = False

    @cached_property
    def _call_counts(self) -> SimpleNamespace:
        """Counters of training batches, evaluations and updates so far; not part of the state dict."""
        return SimpleNamespace(updated=False, trained=False, evaluations=0, samples=0)

    @abstractmethod
    def learn_from(self, predictions: Predictions) -> None:
        """Update the state of the loss from validated predictions; called without gradients."""

    @torch.no_grad()
    def update_from_validation(self, predictions: Predictions) -> None:
        """Update the loss from validation predictions; call after each epoch, never with the test set.

        Raises:
            InputError: If the argument is not Predictions, has another number of classes than the loss, or has sample
                weights that the loss does not use. The state is then unchanged.
        """
        if self.num_classes not in (None, require_predictions(predictions).num_classes):
            raise InputError(
                f"predictions must have {self.num_classes} classes (num_classes of the loss)",
                f"logits {tuple(predictions.logits.shape)}",
                "Pass predictions of the model that is trained with this loss.",
            )
        if predictions.weights is not None and not self.uses_sample_weights:
            got = "weighted predictions"
            fix = "Pass dataclasses.replace(predictions, weights=None)."
            raise InputError(
                "predictions must have no sample weights, which this loss does not use", got, fix
            )
        self.learn_from(predictions)
        if (
            update := getattr(getattr(self, "base", None), "update_from_validation", None)
        ) is not None:
            update(predictions)
        self._call_counts.updated = True

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, and warn if validation predictions never arrive."""
        calls = self._call_counts
        if not mode and calls.trained:
            calls.trained, calls.evaluations = False, calls.evaluations + 1
            self._warn_if_not_updated(calls.evaluations >= 2, "two validations")
        return super().train(mode)

    def _forward(self, logits: Tensor, target: Tensor, extras: dict[str, Tensor]) -> Tensor:
        value = super()._forward(logits, target, extras)
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._call_counts.trained = True
            self._call_counts.samples += len(logits)
            samples = getattr(self, "num_samples", None)
            self._warn_if_not_updated(
                samples is not None and self._call_counts.samples > 2 * samples,
                "two passes over the training set",
            )
        return value

    def _warn_if_not_updated(self, is_due: bool, occasion: str) -> None:
        if is_due and not self._call_counts.updated:
            self._call_counts.updated = True  # once
            warn_user(
                f"{type(self).__name__}: training must call update_from_validation(predictions); got no call in "
                f"{occasion}, so the loss has not used validation data. Call it after each epoch, e.g. "
                "criterion.update_from_validation(fedlas.predict(model, val_loader)).",
            )
