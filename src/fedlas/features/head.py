"""Finds the classifier head of a model: the module whose input is the feature vector and whose output the logits."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fedlas._core.check import InputError, describe, suggestion

# Where the libraries people use put their classifier, in the order in which they are tried.
_ATTRIBUTES = ("fc", "classifier", "head", "heads", "score", "classification_head", "last_linear")
# Where they put a second one, whose logits are averaged or added to the first one's.
_SECOND = ("head_dist", "dist_head", "aux_head")


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
        InputError: If nothing or more than one thing fits, or the named head does not exist; candidates are listed. A
            model whose logits come from several heads (distilled and multi-scale transformers, VOLO) has none.

    Note:
        The head is the last layer with weights, so its input is not always all that decides: SqueezeNet averages its
        class map after the head, and so has features for every position rather than for every image.

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
    _refuse_several(model)
    for candidate in _known_places(model):
        if num_classes is None and isinstance(candidate, nn.Conv2d):
            return candidate  # nobody keeps another convolution there
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


def _refuse_several(model: nn.Module) -> None:
    """Refuse a model that makes its logits of more than one head's outputs: none of their inputs is *the* features."""
    get_classifier = getattr(model, "get_classifier", None)
    found = get_classifier() if callable(get_classifier) else None
    heads = [part for part in found if _has_weights(part)] if isinstance(found, tuple | list | nn.ModuleList) else []
    if not heads:
        places = [*_known_places(model)][:1]
        owners = [model, *places]  # a second head may be part of the first one's module
        heads = [head for owner in owners for name in _SECOND if _has_weights(head := getattr(owner, name, None))]
        heads = [*places, *heads] if heads else []
    if len(heads) > 1:
        names = {id(module): name for name, module in model.named_modules() if name}
        named = ", ".join(names[id(head)] for head in heads if id(head) in names)
        raise InputError(
            "find_head",
            "the logits must come from one head",
            f"{type(model).__name__} with {named} beside each other",
            "Take a model without the second head, or name the one whose input shall count, e.g. "
            f"fedlas.Objective(model, criterion, head={named.split(', ')[0]!r}).",
        )


def _has_weights(module: object) -> bool:
    return isinstance(module, nn.Module) and next(module.parameters(), None) is not None


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
