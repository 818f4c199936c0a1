"""Runs a model over a data set and collects its predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.features import FeatureTap, find_head
from fedlas.objective.objective import Objective, logits_of
from fedlas.predictions import Predictions


def predict(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None = None,
    features: bool = False,
    head: str | nn.Module | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Predictions:
    """Predictions of ``model`` on every batch of ``loader``.

    Args:
        model: Classifier to logits ``(N, C)``, or an :class:`~fedlas.Objective` around one.
        loader: Yields ``(inputs, target, ...)``; further elements are ignored.
        device: Device of the inputs; None is that of the model's parameters.
        features: Keep the input of the classifier head too.
        head: The head, if features are needed and it cannot be found.
        observe: Called after each batch with its logits ``(B, C)`` and features ``(B, D)``, on the model's device; it
            serves measurements that should not keep the features of a whole data set.

    Returns:
        Float32 predictions on the CPU, in the order of the loader.

    Raises:
        InputError: If the model is not a module or returns no logits, the loader is empty, or logits are not finite.

    State:
        The model runs in ``eval()`` under ``torch.inference_mode``; each submodule's mode is then restored, also after
        an error.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> predict(model, [(torch.zeros(2, 4), torch.tensor([0, 1]))]).num_samples
        2
    """
    if not isinstance(model, nn.Module):
        raise InputError("predict", "the model must be an nn.Module", describe(model), "Build it first.")
    network = model.model if isinstance(model, Objective) else model
    if device is None:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
    # Read the head's input only if somebody needs it, and remember each submodule's mode.
    tap = FeatureTap(find_head(network, head)) if features or observe is not None else None
    modes = [(module, module.training) for module in network.modules()]
    parts: dict[str, list[Tensor]] = {"logits": [], "target": [], "features": []}
    try:
        network.eval()
        with torch.inference_mode():
            for inputs, target, *_ in loader:
                if tap is not None:
                    tap.start()
                output = network(inputs.to(device) if isinstance(inputs, Tensor) else inputs)
                logits = logits_of("predict", output)
                if tap is not None:
                    tapped = tap.stop()
                    if observe is not None:
                        observe(logits, tapped.flatten(1))  # a map, if the criterion reads one
                    if features:
                        parts["features"].append(tapped.float().cpu())
                parts["logits"].append(logits.float().cpu())
                parts["target"].append(target.cpu())
    finally:
        for module, mode in modes:
            module.training = mode
        if tap is not None:
            tap.remove()
    if not parts["logits"]:
        raise InputError("predict", "the loader must yield at least one batch", "none", "Check the data set.")
    return Predictions(
        torch.cat(parts["logits"]),
        torch.cat(parts["target"]),
        features=torch.cat(parts["features"]) if features else None,
    )
