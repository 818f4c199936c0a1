"""Monitor of the feature norm while a model trains with a loss that has no indicator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedlas.diagnose.gate import without_nan
from fedlas.diagnose.indicator import indicator_numbers
from fedlas.diagnose.monitor import Monitor, monitor_of
from fedlas.losses.nci import feature_norms
from fedlas.predictions import Predictions


class NormMonitor:
    """Monitor of the L1 norm of the features, as :class:`~fedlas.diagnose.Monitor` but without gate and alarms.

    Its correlations are the baseline for those of an indicator: a network's norms follow its confidence to some degree
    without any gate.

    State:
        :meth:`on_held_out` collects; :meth:`on_epoch` summarizes and clears. Nothing is kept between epochs.
    """

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """Do nothing with a training batch."""

    @torch.no_grad()
    def on_held_out(self, logits: Tensor, features: Tensor) -> None:  # noqa: ARG002 (the signature of a hook)
        """Collect a held-out batch of the model in ``eval()``: ``features (B, D)``, the head's input."""
        self._held.append(feature_norms(features.float()).cpu())

    def on_epoch(self, predictions: Predictions, gather: Callable[[Any], list[Any]] | None = None) -> dict[str, Any]:  # noqa: ARG002 (the signature of a hook)
        """The epoch's record.

        Args:
            predictions: Predictions of the batches given to :meth:`on_held_out`, in their order.
            gather: Not used.

        Returns:
            ``indicator``: mean and standard deviation of the held-out norms, and the numbers of
            :func:`~fedlas.diagnose.indicator_numbers` (standardizing the norms would change no correlation). None where
            there is no number.
        """
        norms, self._held = torch.cat(self._held), []
        moments = {"mean": float(norms.mean()), "std": float(norms.std(correction=0))}
        return {"indicator": without_nan({**moments, **indicator_numbers(norms, predictions)})}

    def state_dict(self) -> dict[str, Any]:
        """An empty state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: there is no state."""


def monitors(criterion: nn.Module, *, norms: bool = False) -> list[Monitor | NormMonitor]:
    """Monitors for a model that trains with a loss: of gate and indicator, if the loss has them.

    Args:
        criterion: The loss.
        norms: Whether to monitor the feature norm if the loss has no indicator.
    """
    monitor = monitor_of(criterion)
    if monitor is not None:
        return [monitor]
    return [NormMonitor()] if norms else []
