"""The global pool of a model: the module whose input is the last feature map."""

from __future__ import annotations

from torch import nn

from fedlas._core.check import InputError
from fedlas.features._named import check_model, part_of

__all__ = ["find_pool"]

# Its names in torchvision, timm and this library, in the order of the search.
_PLACES = ("avgpool", "global_pool", "head.global_pool", "pool", "classifier.0", "head.pool")


def find_pool(model: nn.Module, pool: str | nn.Module | None = None) -> nn.Module:
    """Return the global pool of ``model``.

    Args:
        model: Any classifier that pools a map ``(N, D, H, W)`` in a module of its own.
        pool: Dotted name of the module whose input is the map, or the module itself; None searches the names in
            torchvision, timm and this library.

    Returns:
        A module that is part of ``model``. Whether its input is a map is known only when the model runs.

    Raises:
        InputError: If there is none, as in a transformer or a model that pools by a function; or the named one does
            not exist.

    Example:
        >>> find_pool(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)), "1")
        AdaptiveAvgPool2d(output_size=1)
    """
    check_model("find_pool", model)
    if pool is not None:
        return part_of("find_pool", "pool", model, pool)
    names = dict(model.named_modules())
    for name in _PLACES:
        matches = names.get(name)
        if matches is not None and (name != "classifier.0" or "Pool" in type(matches).__name__):
            return matches
    raise InputError(
        "find_pool",
        "the model must pool its last map in a module of its own, such as 'avgpool'",
        type(model).__name__,
        "Name the module whose input is the map, e.g. fedlas.Objective(model, criterion, features='norm').",
    )
