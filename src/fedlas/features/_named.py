"""Parts of a model, by name or as modules."""

from __future__ import annotations

from torch import nn

from fedlas._core.check import InputError, describe, suggestion


def check_model(owner: str, model: object) -> None:
    """Refuse anything but a module.

    Raises:
        InputError: If ``model`` is something else.
    """
    if not isinstance(model, nn.Module):
        raise InputError(owner, "the model must be an nn.Module", describe(model), "Pass the model itself.")


def part_of(owner: str, what: str, model: nn.Module, part: str | nn.Module) -> nn.Module:
    """The part of ``model`` with this dotted name, or the part itself.

    Args:
        owner: The calling function, for errors.
        what: What the part is, such as ``"head"``.
        model: The model.
        part: Dotted name of the part, or the part.

    Raises:
        InputError: If the model has no such part.
    """
    if isinstance(part, nn.Module):
        if all(part is not module for module in model.modules()):
            raise InputError(owner, f"{what} must be a module of the model", part, "Pass a submodule, or its name.")
        return part
    names = {name: module for name, module in model.named_modules() if name}
    if not isinstance(part, str) or part not in names:
        raise InputError(owner, f"{what} must name a module of the model", repr(part), suggestion(str(part), names))
    return names[part]
