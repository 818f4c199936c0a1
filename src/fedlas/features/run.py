"""Finds the classifier head by running a model: it is the module whose output is the logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def head_of_run(model: nn.Module, logits: Callable[[], Tensor]) -> nn.Module | None:
    """Return the module whose output is the logits and that has weights of its own; None if there is none.

    Args:
        model: The model, in the mode in which it should run.
        logits: Runs the model on a batch and returns its logits; called twice.

    Note:
        A model that computes its logits from a module's output, such as by a temperature, has no such module; nor has
        one whose module ran more than once.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
        >>> head_of_run(model, lambda: model(torch.zeros(2, 4))) is model[2]
        True
    """
    # The first run tells the size of the logits. The second holds outputs of this size, which are few: the memory of
    # one that was freed could become that of the logits.
    outputs: list[tuple[nn.Module, Tensor]] = []
    runs: Counter[int] = Counter()
    with torch.no_grad():
        size = logits().numel()

    def record(module: nn.Module, _: Any, output: Any) -> None:
        runs[id(module)] += 1
        if isinstance(output, Tensor) and output.numel() == size:
            outputs.append((module, output))

    handles = [
        module.register_forward_hook(record) for module in model.modules() if _is_layer(module)
    ]
    try:
        with torch.no_grad():
            address = logits().data_ptr()
    finally:
        for handle in handles:
            handle.remove()
    heads = [module for module, output in outputs if output.data_ptr() == address]
    return heads[-1] if heads and runs[id(heads[-1])] == 1 else None


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module has weights and is no container of modules that have some."""
    weight = getattr(module, "weight", None)
    has_own = isinstance(weight, Tensor) or next(module.parameters(recurse=False), None) is not None
    inner = (part for name, part in module.named_children() if name != "parametrizations")
    return has_own and not any(next(part.parameters(), None) is not None for part in inner)
