"""The search space of a method: the ranges that its loss declares, and those that ``--space`` adds or changes.

``base.alpha`` is the option ``alpha`` of the loss inside a loss that wraps another one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.tune.domain import Domain, parse_domain
from fedlas.losses import LOSSES

__all__ = ["Method", "is_recipe_key", "methods_of", "set_option", "text_of"]

_SECTIONS = ("optimizer", "schedule", "model", "train")
"""Sections of a recipe that may hold a tuned key."""
_TRAIN_KEYS = ("batch_size", "average_decay", "average_start")
"""Tunable keys of ``train``; the others decide budget, objective or speed."""
_NOT_TUNED = ("num_classes", "num_samples", "reduction", "ignore_index", "weight")


@dataclass(frozen=True)
class Method:
    """A loss of the recipe with its search space.

    Attributes:
        name: Name of the loss in the recipe.
        space: Domain of each parameter by name: an option of the loss such as ``alpha`` (``base.alpha`` of the loss
            inside it), or a key of the recipe such as ``optimizer.lr``.
        preset: The recipe's value of each parameter.
    """

    name: str
    space: Mapping[str, Domain]
    preset: Mapping[str, Any]

    @property
    def preset_inside(self) -> bool:
        """Whether the preset is one of the settings in the space."""
        return all(domain.contains(self.preset[key]) for key, domain in self.space.items())

    def trials(self, budget: int) -> int:
        """Number of trials within a budget: a space with fewer settings has fewer."""
        settings = math.prod(domain.size for domain in self.space.values()) + (not self.preset_inside)
        return int(min(budget, settings))


def is_recipe_key(parameter: str) -> bool:
    """Whether a parameter is a key of the recipe instead of an option of the loss."""
    return parameter.split(".")[0] in _SECTIONS


def text_of(params: Mapping[str, Any]) -> str:
    """Return parameters as text, such as ``alpha 0.05, beta 4``."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in params.items()
    )


def methods_of(recipe: Recipe, losses: Sequence[str], specs: Sequence[str]) -> list[Method]:
    """Return the methods with their spaces.

    Args:
        recipe: The recipe.
        losses: Names of losses that exist in it.
        specs: Values of ``--space``: ``KEY=RANGE`` with ``OPTION`` (of every loss that has it), ``LOSS.OPTION``, a key
            of the recipe such as ``optimizer.lr``, or ``LOSS.optimizer.lr``. A key with a loss overrides one without;
            among equals the last one wins.

    Raises:
        InputError: For another form, a key that no loss has or that may not be tuned, or an invalid range.

    Example:
        >>> from fedlas.lab.recipes.recipe import load_recipe
        >>> ls, ce = methods_of(load_recipe("digits"), ["ls", "ce"], ["ls.alpha=0.05,0.1"])
        >>> str(ls.space["alpha"]), dict(ls.preset), ls.trials(20), ce.trials(20)
        ('0.05, 0.1', {'alpha': 0.05}, 2, 1)
    """
    spaces: dict[str, dict[str, Domain]] = {loss: {} for loss in losses}
    presets: dict[str, dict[str, Any]] = {loss: {} for loss in losses}
    for loss in losses:
        for prefix, name, values in _levels(recipe, loss):
            for option, text in LOSSES[name].metadata.get("tune", {}).items():
                if isinstance(values[option], int | float) and not isinstance(values[option], bool):
                    spaces[loss][prefix + option] = parse_domain(text, f"{loss}.{prefix}{option}={text}")
                    presets[loss][prefix + option] = values[option]
    parsed = [_parsed(spec, losses) for spec in specs]
    for owner, key, spec in sorted(parsed, key=lambda each: each[0] is not None):  # stable; keys with a loss come last
        domain = parse_domain(spec.partition("=")[2], spec)
        for loss, value in _values(recipe, losses if owner is None else [owner], key, spec).items():
            spaces[loss][key], presets[loss][key] = domain, value
    return [Method(loss, spaces[loss], presets[loss]) for loss in losses]


def set_option(recipe: Recipe, losses: dict[str, Any], loss: str, key: str, value: Any) -> None:
    """Set an option of a loss in the section ``losses`` of a recipe's file, which is changed in place."""
    section = losses[loss] = dict(losses.get(loss) or {})
    name = recipe.registered_loss(loss)
    *parents, last = key.split(".")
    for parent in parents:
        inside = section.get(parent, _defaults(name).get(parent))
        section[parent] = {"name": inside} if isinstance(inside, str) else dict(inside or {})
        section = section[parent]
        name = str(section["name"])
    section[last] = value


def _parsed(spec: str, losses: Sequence[str]) -> tuple[str | None, str, str]:
    """Return the loss of a ``--space`` value, or None, the parameter, and the whole text."""
    key, _, text = spec.partition("=")
    if not (key and text):
        form = "Write e.g. --space alpha=0.01:0.3:log, or fedlas.beta=0.5,1,2,4 (no spaces)."
        raise InputError("--space", "it must be KEY=RANGE", repr(spec), form)
    owner = max((loss for loss in losses if key.startswith(f"{loss}.")), key=len, default=None)
    return owner, key if owner is None else key.removeprefix(f"{owner}."), spec


def _values(recipe: Recipe, losses: Sequence[str], key: str, spec: str) -> dict[str, Any]:
    """Return the recipe's value of a parameter for each loss that has it."""
    if is_recipe_key(key):
        return dict.fromkeys(losses, _recipe_value(recipe, key, spec))
    options = {loss: {p + k: v for p, _, values in _levels(recipe, loss) for k, v in values.items()} for loss in losses}
    if values := {loss: options[loss][key] for loss in losses if key in options[loss]}:
        return values
    names = list(dict.fromkeys(option for loss in losses for option in options[loss]))
    fix = suggestion(key, names) if names else "Leave it out: there are none."
    if key.split(".")[0] in ("data", "seeds", "losses", "methods"):
        fix = f"Data and methods are the same for every trial; tune options of losses, or of {', '.join(_SECTIONS)}."
    raise InputError("--space", f"{key} must be an option of {' or '.join(losses)}", repr(spec), fix)


def _recipe_value(recipe: Recipe, key: str, spec: str) -> Any:
    section, _, name = key.partition(".")
    part = getattr(recipe, section)
    names = _TRAIN_KEYS if section == "train" else [n for n in vars(part) if n not in ("name", "options")]
    if section in ("optimizer", "schedule"):
        names = [*names, "name"]
    options = getattr(part, "options", {})
    if name in options or name in names:
        return options[name] if name in options else getattr(part, name)
    if section == "model" and name:
        return None  # an option that the recipe does not set; planning checks whether the model has it
    if section == "train" and name in vars(part):
        expected = f"it must leave budget and objective the same for every trial, unlike {key}"
        raise InputError("--space", expected, repr(spec), f"Choose one of: {', '.join(_TRAIN_KEYS)}.")
    raise InputError("--space", "the key must be one of the recipe", repr(spec), suggestion(name, names))


def _defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(LOSSES[name].value).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.name not in _NOT_TUNED and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def _levels(recipe: Recipe, loss: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield prefix, registry name and option values of a loss, then of the loss inside it, and so on."""
    prefix, name, options = "", recipe.registered_loss(loss), recipe.loss_options(loss)
    while True:
        values = {**_defaults(name), **options}
        yield prefix, name, values
        base = values.get("base")
        if isinstance(base, str):
            name, options = base, {}
        elif isinstance(base, Mapping):
            name, options = str(base["name"]), {key: value for key, value in base.items() if key != "name"}
        else:
            return
        prefix += "base."
