"""Finds the classifier head of a model: the module whose input is the feature vector and whose output the logits."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fedlas._core.check import InputError, describe, suggestion

# Where the libraries people use put their classifier, in the order in which they are tried.
_ATTRIBUTES = ("fc", "classifier", "head", "heads", "score", "classification_head", "last_linear")


def find_head(model: nn.Module, head: str | nn.Module | None = None, *, num_classes: int | None = None) -> nn.Module:
    """Return the classifier head of ``model``.

    Args:
        model: Any classifier.
        head: Dotted name of the head, or the module itself; None searches: timm's ``get_classifier()``, then the places
            where torchvision and Hugging Face models keep it, then the only linear layer that fits.
        num_classes: Number of logits, if known; a candidate with another number of outputs is passed over.

    Returns:
        A module that is part of ``model``.

    Raises:
        InputError: If nothing or more than one thing fits, or the named head does not exist; candidates are listed.

    Example:
        >>> find_head(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        Linear(in_features=4, out_features=3, bias=True)
    """
    if not isinstance(model, nn.Module):
        raise InputError("find_head", "the model must be an nn.Module", describe(model), "Pass the model itself.")
    if isinstance(head, nn.Module):
        if all(head is not module for module in model.modules()):
            raise InputError("find_head", "head must be a module of the model", head, "Pass a submodule, or its name.")
        return head
    if head is not None:
        names = {name: module for name, module in model.named_modules() if name}
        if not isinstance(head, str) or head not in names:
            raise InputError(
                "find_head", "head must name a module of the model", repr(head), suggestion(str(head), names)
            )
        return names[head]
    for candidate in _known_places(model):
        fitting = [layer for layer in candidate.modules() if _fits(layer, num_classes)]
        if fitting:
            return fitting[-1]  # a classifier of several layers ends in the one that makes the logits
    linear = [(name, layer) for name, layer in model.named_modules() if _fits(layer, num_classes, conv=False)]
    if len(linear) == 1:
        return linear[0][1]
    found = ", ".join(f"{name or '(the model itself)'} ({layer})" for name, layer in linear[-5:]) or "no linear layer"
    outputs = "" if num_classes is None else f" with {num_classes} outputs"
    raise InputError(
        "find_head",
        f"the model must have one recognisable classifier head{outputs}",
        f"{type(model).__name__} with {found}",
        "Name it, e.g. fedlas.Objective(model, criterion, head='classifier.3').",
    )


def _known_places(model: nn.Module) -> Iterator[nn.Module]:
    get_classifier = getattr(model, "get_classifier", None)
    if callable(get_classifier):
        found = get_classifier()
        if isinstance(found, nn.Module):
            yield found
    for name in _ATTRIBUTES:
        found = getattr(model, name, None)
        if isinstance(found, nn.Module):
            yield found


def _fits(layer: nn.Module, num_classes: int | None, *, conv: bool = True) -> bool:
    outputs = getattr(layer, "out_features", None)
    if isinstance(outputs, int) and isinstance(getattr(layer, "in_features", None), int):  # nn.Linear, or acts as one
        return num_classes is None or outputs == num_classes
    if conv and isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return num_classes is not None and layer.out_channels == num_classes
    return False
