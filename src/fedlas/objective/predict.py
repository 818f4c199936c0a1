"""Runs a model over a data set and collects its predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_kinds, describe
from fedlas.features import FeatureTap, find_head
from fedlas.objective.batches import checked_labels, moved, read_batch
from fedlas.objective.objective import Arguments, class_logits, network_of
from fedlas.predictions import Predictions


@check_kinds
def predict(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None = None,
    features: bool = False,
    head: str | nn.Module | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
    label: int | str | None = None,
) -> Predictions:
    """Return predictions of ``model`` on every batch of ``loader``.

    Args:
        model: Classifier to logits ``(N, C)``, to one logit of the second of two classes ``(N, 1)`` or ``(N,)``, or an
            :class:`~fedlas.Objective` around one. The module inside of ``DistributedDataParallel``, ``DataParallel``
            or ``torch.compile`` is called.
        loader: Yields ``(inputs, target)``, where further elements are ignored; or a mapping such as a Hugging Face
            batch, with the labels under ``labels``, ``label`` or ``target`` and the arguments of ``forward`` under the
            other keys; or inputs alone, a tensor, ``(inputs,)`` or a mapping, which gives predictions without target.
            Several inputs are one tuple, ``((a, b), target)``.
        device: Device of the inputs; None is that of the model's parameters.
        features: Keep the input of the classifier head too.
        head: The head, if features are needed and it cannot be found.
        observe: Called after each batch with its logits ``(B, C)`` and features ``(B, D)``, on the model's device; it
            serves measurements that should not keep the features of a whole data set.
        label: Key or position of the labels, if they are elsewhere; all other elements are then inputs: 2 for
            ``(a, b, target)``.

    Returns:
        Float32 predictions on the CPU, in the order of the loader.

    Raises:
        InputError: If the model is not a module, takes other inputs or returns no logits, a batch or its labels cannot
            be read, the loader is empty, or logits are not finite.

    State:
        The model runs in ``eval()`` under ``torch.inference_mode``; each submodule's mode is then restored, also after
        an error.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> predict(model, [(torch.zeros(2, 4), torch.tensor([0, 1]))]).num_samples
        2
        >>> predict(model, [torch.zeros(2, 4)])
        Predictions(2 samples, 3 classes, without target)
    """
    network = network_of(model)
    arguments = Arguments.of(network)
    if not isinstance(loader, Iterable):
        raise InputError("predict", "the loader must yield batches", describe(loader), "Pass a DataLoader or a list.")
    try:
        device = next((p.device for p in network.parameters()), "cpu") if device is None else torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            "predict", "device must be one of torch", describe(device), "Write 'cpu' or 'cuda'."
        ) from error
    # Read the head's input only if somebody needs it, and remember each submodule's mode.
    tap = FeatureTap(find_head(network, head)) if features or observe is not None else None
    modes = [(module, module.training) for module in network.modules()]
    parts: dict[str, list[Tensor]] = {"logits": [], "target": [], "features": []}
    try:
        network.eval()
        with torch.inference_mode():
            for batch in loader:
                inputs, labels = read_batch("predict", batch, label)
                if tap is not None:
                    tap.start()
                output = arguments.call("predict", network, moved(inputs, device), {})
                logits = class_logits("predict", output)
                if logits.ndim != 2:
                    fix = "Wrap a dense model in a module that returns one row per position, and flatten the labels."
                    raise InputError("predict", "the model must return logits (N, C)", describe(logits), fix)
                if tap is not None:
                    tapped = tap.stop()
                    if observe is not None:
                        observe(logits, tapped.flatten(1))  # a map, if the criterion reads one
                    if features:
                        parts["features"].append(tapped.flatten(1).float().cpu())
                parts["logits"].append(logits.float().cpu())
                if labels is not None:
                    parts["target"].append(checked_labels("predict", labels, len(logits)))
    finally:
        for module, mode in modes:
            module.training = mode
        if tap is not None:
            tap.remove()
    batches, labeled = len(parts["logits"]), len(parts["target"])
    if not batches:
        raise InputError("predict", "the loader must yield at least one batch", "none", "Check the data set.")
    if labeled not in (0, batches):
        expected, got = "all batches must hold labels, or none", f"labels in {labeled} of {batches} batches"
        raise InputError("predict", expected, got, "Add the missing labels, or drop all of them.")
    return Predictions(
        torch.cat(parts["logits"]),
        torch.cat(parts["target"]) if labeled else None,
        features=torch.cat(parts["features"]) if features else None,
    )
