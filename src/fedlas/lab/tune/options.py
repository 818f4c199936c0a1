"""Options of a recipe's losses by name: their values, their declared ranges, and how to set them.

``base.alpha`` is the option ``alpha`` of the loss inside a loss that wraps another one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from fedlas.lab.recipes.recipe import Recipe
from fedlas.losses import LOSSES

__all__ = ["declared", "options_of", "set_option"]

_GIVEN = ("num_classes", "num_samples", "reduction", "ignore_index", "weight")
"""Parameters that a recipe does not set, or that are not tuned."""


def options_of(recipe: Recipe, loss: str) -> dict[str, Any]:
    """Every option of a loss, and of the loss inside it, with its value in the recipe."""
    return {prefix + key: value for prefix, _, values in _levels(recipe, loss) for key, value in values.items()}


def declared(recipe: Recipe, loss: str) -> dict[str, tuple[str, Any]]:
    """Declared range and value of the options of a loss, and of the loss inside it, whose value is a number."""
    return {
        prefix + option: (text, values[option])
        for prefix, name, values in _levels(recipe, loss)
        for option, text in LOSSES[name].metadata.get("tune", {}).items()
        if isinstance(values[option], int | float) and not isinstance(values[option], bool)
    }


def set_option(recipe: Recipe, losses: dict[str, Any], loss: str, key: str, value: Any) -> None:
    """Set an option in the section ``losses`` of a recipe's file.

    Args:
        recipe: The recipe of the file.
        losses: The section, changed in place.
        loss: Name of the loss.
        key: Name of the option.
        value: Its value.
    """
    place = losses[loss] = dict(losses.get(loss) or {})
    name = recipe.registered_loss(loss)
    *parents, last = key.split(".")
    for parent in parents:
        inside = place.get(parent, _defaults(name).get(parent))
        place[parent] = {"name": inside} if isinstance(inside, str) else dict(inside or {})
        place = place[parent]
        name = str(place["name"])
    place[last] = value


def _defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(LOSSES[name].value).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.name not in _GIVEN and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def _levels(recipe: Recipe, loss: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Prefix, registry name and options of a loss, then of the loss inside it, and so on."""
    prefix, name, own = "", recipe.registered_loss(loss), recipe.loss_options(loss)
    while True:
        values = {**_defaults(name), **own}
        yield prefix, name, values
        base = values.get("base")
        if isinstance(base, str):
            name, own = base, {}
        elif isinstance(base, Mapping):
            name, own = str(base["name"]), {key: value for key, value in base.items() if key != "name"}
        else:
            return
        prefix += "base."
