"""Readers that run a model and return features with its output, and the search for the head by running a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.features.head import FeatureTap

RunOutput = tuple[Any, Tensor | None]
"""Output of a model, and features of the same samples."""
Positional = Sequence[Any]
Named = Mapping[str, Any]


class NoFeatures:
    """Reader that runs the model and returns no features."""

    heads: tuple[nn.Module, ...] = ()

    def __call__(self, model: nn.Module, inputs: Positional, options: Named) -> RunOutput:
        """Return the model's output, and no features."""
        return model(*inputs, **options), None

    def remove(self) -> None:
        """Do nothing: there are no hooks."""


class HeadInput:
    """Reader of the classifier head's input; for an ensemble, the inputs of all heads are concatenated.

    Args:
        heads: Modules of the model that is run.

    State:
        A hook on each head.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        self.heads = tuple(heads)
        self._taps = [FeatureTap(head) for head in heads]

    def __call__(self, model: nn.Module, inputs: Positional, options: Named) -> RunOutput:
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
    """Reader that computes features by a function of the model's arguments.

    Args:
        function: Called with the arguments of ``forward``; returns ``(N, D)``, or ``(N, D, d1, ...)`` of dense outputs.
    """

    heads: tuple[nn.Module, ...] = ()

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, inputs: Positional, options: Named) -> RunOutput:
        """Return the model's output and the computed features.

        Raises:
            InputError: If the function does not return a float tensor ``(N, D, ...)``.
        """
        features = self.function(*inputs, **options)
        if (
            not isinstance(features, Tensor)
            or features.ndim < 2
            or not features.is_floating_point()
        ):
            raise InputError(
                "the features function must return a tensor (N, D)",
                describe(features),
                "Return a float tensor with one row per sample.",
            )
        return model(*inputs, **options), features

    def remove(self) -> None:
        """Do nothing: there are no hooks."""


Reader = NoFeatures | HeadInput | ComputedFeatures


def find_head_by_run(model: nn.Module, logits: Callable[[], Tensor]) -> nn.Module | None:
    """Run the model and return the module with weights whose output is the logits, or None.

    Args:
        model: The model, in the mode in which it should run.
        logits: Runs the model on a batch and returns its logits; called twice.

    Note:
        A model that computes its logits from a module's output, such as by a temperature, has no such module; nor has
        one whose module ran more than once.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
        >>> find_head_by_run(model, lambda: model(torch.zeros(2, 4))) is model[2]
        True
    """
    # The first run gives the size of the logits. The second run keeps all outputs of this size, which are few: if one
    # were freed, the logits could get its address.
    outputs: list[tuple[nn.Module, Tensor]] = []
    runs: Counter[int] = Counter()
    with torch.no_grad():
        size = logits().numel()

    def record(module: nn.Module, _: object, output: object) -> None:
        runs[id(module)] += 1
        if isinstance(output, Tensor) and output.numel() == size:
            outputs.append((module, output))

    handles = [
        module.register_forward_hook(record)
        for module in model.modules()
        if _is_weight_layer(module)
    ]
    try:
        with torch.no_grad():
            address = logits().data_ptr()
    finally:
        for handle in handles:
            handle.remove()
    heads = [module for module, output in outputs if output.data_ptr() == address]
    return heads[-1] if heads and runs[id(heads[-1])] == 1 else None


def _is_weight_layer(module: nn.Module) -> bool:
    """Return whether a module has weights of its own, and no submodules with weights."""
    weight = getattr(module, "weight", None)
    has_own = isinstance(weight, Tensor) or next(module.parameters(recurse=False), None) is not None
    inner = (part for name, part in module.named_children() if name != "parametrizations")
    return has_own and not any(next(part.parameters(), None) is not None for part in inner)
