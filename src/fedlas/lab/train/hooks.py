"""What looks on while a model trains: a monitor of the loss, say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from fedlas.predictions import Predictions


class Hook(Protocol):
    """Looks at the batches and predictions of a run and adds to its log. It must change nothing in the run.

    The features are what the criterion reads: the classifier head's input, unless the objective says otherwise.

    State:
        ``state_dict`` is part of each checkpoint: what a hook needs from earlier epochs belongs there, or a resumed run
        would log something else than one that was never stopped.
    """

    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """A training batch, before the optimizer's step: ``logits (B, C)`` of the samples ``index (B,)``."""

    def on_held_out(self, logits: Tensor, features: Tensor) -> None:
        """A validation batch, with the model in ``eval()``: ``logits (B, C)`` and ``features (B, D)``."""

    def on_epoch(self, predictions: Predictions, gather: Callable[[Any], list[Any]]) -> Mapping[str, Any]:
        """An epoch is over; returns what is added to its record in the log, as JSON can hold it.

        Args:
            predictions: Of the validation batches given to :meth:`on_held_out`, in their order.
            gather: Returns its argument of every process, in the order of ranks. A collective: each process sees
                training batches of its own, and the same validation batches as the others.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            KeyError: If something is missing; nothing is changed then.
        """
