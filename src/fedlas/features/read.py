"""Runs a model and reads the features of the same pass: the input of its head, or what a function computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.features.head import FeatureTap

Output = tuple[Any, Tensor | None]
"""Output of a model, and features of the same samples."""
Positional = Sequence[Any]
Named = Mapping[str, Any]


class NoFeatures:
    """Runs the model alone."""

    heads: tuple[nn.Module, ...] = ()

    def __call__(self, model: nn.Module, inputs: Positional, options: Named) -> Output:
        """Return the model's output, and no features."""
        return model(*inputs, **options), None

    def remove(self) -> None:
        """Remove hooks, of which there are none."""


class HeadInput:
    """Reads the input of the classifier head; of an ensemble, the inputs of all heads side by side.

    Args:
        heads: Modules of the model that is run.

    State:
        A hook on each head.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        self.heads = tuple(heads)
        self._taps = [FeatureTap(head) for head in heads]

    def __call__(self, model: nn.Module, inputs: Positional, options: Named) -> Output:
        """Return the model's output and features ``(N, D)`` or ``(N, D, d1, ...)``.

        Raises:
            InputError: If a head did not run exactly once.
        """
        for tap in self._taps:
            tap.start()
        try:
            output = model(*inputs, **options)
            parts = [tap.stop() for tap in self._taps]
        finally:
            for tap in self._taps:
                tap.cancel()
        return output, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def remove(self) -> None:
        """Remove the hooks."""
        for tap in self._taps:
            tap.remove()


class ComputedFeatures:
    """Computes features by a function of the model's own arguments.

    Args:
        function: Called with the arguments of ``forward``; returns ``(N, D)``, or ``(N, D, d1, ...)`` of dense outputs.
    """

    heads: tuple[nn.Module, ...] = ()

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, inputs: Positional, options: Named) -> Output:
        """Return the model's output and the features.

        Raises:
            InputError: If the function returns something else than a tensor of floats ``(N, D, ...)``.
        """
        features = self.function(*inputs, **options)
        if (
            not isinstance(features, Tensor)
            or features.ndim < 2
            or not features.is_floating_point()
        ):
            fix = "Return a float tensor with one row a sample."
            raise InputError("the function must return features (N, D)", describe(features), fix)
        return model(*inputs, **options), features

    def remove(self) -> None:
        """Remove hooks, of which there are none."""


Reader = NoFeatures | HeadInput | ComputedFeatures
