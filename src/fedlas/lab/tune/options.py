"""Options of a recipe's losses by name: which there are, their values, what is declared for tuning, and setting one.

``base.alpha`` is the option ``alpha`` of the loss inside a loss that is built on another one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from fedlas.lab.recipes.recipe import Recipe
from fedlas.losses import LOSSES

_GIVEN = ("num_classes", "num_samples", "reduction", "ignore_index", "weight")  # not for a recipe, or not to be tuned


def options_of(recipe: Recipe, loss: str) -> dict[str, Any]:
    """Every option of a loss, and of the one inside it, with its value in the recipe."""
    return _values(recipe.registered_loss(loss), recipe.loss_options(loss))


def declared(recipe: Recipe, loss: str) -> dict[str, tuple[str, Any]]:
    """Range and value of every option that a loss, and the one inside it, declare; what is set to no number stays."""
    return _declared(recipe.registered_loss(loss), recipe.loss_options(loss))


def set_option(recipe: Recipe, losses: dict[str, Any], loss: str, key: str, value: Any) -> None:
    """Set an option in what a recipe's file says in its section ``losses``.

    Args:
        recipe: What the file stands for.
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


def _values(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    values = {**_defaults(name), **own}
    inside = _inside(values)
    return values | ({f"base.{key}": value for key, value in _values(*inside).items()} if inside else {})


def _declared(name: str, own: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    values = {**_defaults(name), **own}
    found = {
        option: (text, values[option])
        for option, text in LOSSES[name].metadata.get("tune", {}).items()
        if isinstance(values[option], int | float) and not isinstance(values[option], bool)
    }
    inside = _inside(values)
    return found | ({f"base.{key}": value for key, value in _declared(*inside).items()} if inside else {})


def _inside(values: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Name and options of the loss inside another one."""
    base = values.get("base")
    if isinstance(base, str):
        return base, {}
    if isinstance(base, Mapping):
        return str(base["name"]), {key: value for key, value in base.items() if key != "name"}
    return None
