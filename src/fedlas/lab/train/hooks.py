"""The contract of hooks, which observe training and add to its log, such as a monitor of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from fedlas.predictions import Predictions

__all__ = ["Hook"]


class Hook(Protocol):
    """Observes the batches and predictions of a run and adds to its log. It must not change the run.

    The features are what the criterion reads: the classifier head's input, unless the objective says otherwise.

    State:
        ``state_dict`` is part of each checkpoint. It must hold what a hook needs from earlier epochs, so that a resumed
        run has the same log as one that was never stopped.
    """

    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """Called for a training batch before the optimizer's step: ``logits (B, C)`` of the samples ``index (B,)``."""

    def on_held_out(self, logits: Tensor, features: Tensor) -> None:
        """Called for a validation batch of the model in ``eval()``: ``logits (B, C)`` and ``features (B, D)``."""

    def on_epoch(self, predictions: Predictions, gather: Callable[[Any], list[Any]]) -> Mapping[str, Any]:
        """Called after an epoch; returns what is added to its record in the log, as JSON can hold it.

        Args:
            predictions: Predictions of the batches given to :meth:`on_held_out`, in their order.
            gather: Returns its argument from every process, in the order of ranks. A collective: each process sees its
                own training batches, and the same validation batches as the others.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that a checkpoint must hold."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            KeyError: If something is missing; nothing changes then.
        """
