"""Watches the feature norm while a model trains by a loss that has no indicator: what the indicator would have seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedlas.diagnose.indicator import indicator_numbers
from fedlas.diagnose.monitor import Monitor, monitor_of, without_nan
from fedlas.losses.nci import feature_norms
from fedlas.predictions import Predictions


class NormMonitor:
    """As :class:`~fedlas.diagnose.Monitor`, of the L1 norm of the features alone: there is no gate, and no alarm.

    What the correlations of a loss with an indicator have to be compared with: a network's norms follow its confidence
    more or less without any gate.

    State:
        :meth:`on_held_out` collects; :meth:`on_epoch` sums up and lets go. Nothing is kept between epochs.
    """

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """A training batch: nothing is decided on it."""

    @torch.no_grad()
    def on_held_out(self, logits: Tensor, features: Tensor) -> None:  # noqa: ARG002 (as of a monitor)
        """A held-out batch, seen by the model in ``eval()``: ``features (B, D)``, the head's input."""
        self._held.append(feature_norms(features.float()).cpu())

    def on_epoch(self, predictions: Predictions, gather: Callable[[Any], list[Any]] | None = None) -> dict[str, Any]:  # noqa: ARG002 (as of a monitor)
        """The epoch's record.

        Args:
            predictions: Of the batches given to :meth:`on_held_out`, in their order.
            gather: Not used.

        Returns:
            ``indicator``: mean and standard deviation of the held-out norms, and what
            :func:`~fedlas.diagnose.indicator_numbers` says of them: standardising would change no correlation. None
            where there is no number.
        """
        norms, self._held = torch.cat(self._held), []
        moments = {"mean": float(norms.mean()), "std": float(norms.std(correction=0))}
        return {"indicator": without_nan({**moments, **indicator_numbers(norms, predictions)})}

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from nothing."""


def monitors(criterion: nn.Module, *, norms: bool = False) -> list[Monitor | NormMonitor]:
    """What can be watched while a model trains by a loss: gate and indicator, if it has them.

    Args:
        criterion: The loss.
        norms: Watch the feature norm where the loss has no indicator.
    """
    monitor = monitor_of(criterion)
    if monitor is not None:
        return [monitor]
    return [NormMonitor()] if norms else []
