"""The search space of a method: the ranges that its loss declares, and those that ``--space`` adds or changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.tune.domain import Domain, parse_domain
from fedlas.lab.tune.options import declared, options_of

__all__ = ["SECTIONS", "Method", "is_recipe_key", "methods_of"]

SECTIONS = ("optimizer", "schedule", "model", "train")
"""Sections of a recipe that may hold a tuned key."""
_OF_TRAIN = ("batch_size", "average_decay", "average_start")
"""Tunable keys of ``train``; the others decide budget, objective or speed."""


@dataclass(frozen=True)
class Method:
    """A loss of the recipe with its search space.

    Attributes:
        name: Name of the loss in the recipe.
        space: Domain of each parameter by name: an option of the loss such as ``alpha`` (``base.alpha`` of the loss
            inside it), or a key of the recipe such as ``optimizer.lr``.
        preset: The recipe's own value of each parameter.
    """

    name: str
    space: Mapping[str, Domain]
    preset: Mapping[str, Any]

    @property
    def preset_inside(self) -> bool:
        """Whether the preset is one of the settings in the space."""
        return all(domain.contains(self.preset[key]) for key, domain in self.space.items())

    @property
    def drawable(self) -> float:
        """Number of settings in the space; infinity for real numbers."""
        return math.prod(domain.size for domain in self.space.values())

    @property
    def settings(self) -> float:
        """Number of different settings, including the preset."""
        return self.drawable + (not self.preset_inside)

    def trials(self, budget: int) -> int:
        """Number of trials within a budget: no setting is tried twice."""
        return int(min(budget, self.settings))


def is_recipe_key(parameter: str) -> bool:
    """Whether a parameter is a key of the recipe instead of an option of the loss."""
    return parameter.split(".")[0] in SECTIONS


def methods_of(recipe: Recipe, losses: Sequence[str], specs: Sequence[str]) -> list[Method]:
    """The methods with their spaces.

    Args:
        recipe: The recipe.
        losses: Names of its losses, known to exist.
        specs: Values of ``--space``: ``KEY=RANGE`` with ``OPTION`` (of every loss that has it), ``LOSS.OPTION``, a key
            of the recipe such as ``optimizer.lr``, or ``LOSS.optimizer.lr``. A key with a loss overrides one without;
            among equals the last one wins.

    Raises:
        InputError: For another form, a key that no loss has or that may not be tuned, or an invalid range.

    Example:
        >>> from fedlas.lab.recipes.recipe import load_recipe
        >>> ls, ce = methods_of(load_recipe("digits"), ["ls", "ce"], ["ls.alpha=0.05,0.1"])
        >>> ls.space["alpha"].text, dict(ls.preset), ls.trials(20), ce.trials(20)
        ('0.05,0.1', {'alpha': 0.05}, 2, 1)
    """
    spaces: dict[str, dict[str, tuple[Domain, Any]]] = {}
    for loss in losses:
        found = declared(recipe, loss).items()
        spaces[loss] = {key: (parse_domain(text, f"{loss}.{key}={text}"), value) for key, (text, value) in found}
    given = [_parsed(spec, losses) for spec in specs]
    for owner, key, spec in sorted(given, key=lambda one: one[0] is not None):  # stable; keys with a loss come last
        having = _having(recipe, losses if owner is None else [owner], key, spec)
        domain = parse_domain(spec.partition("=")[2], spec)
        for loss in having:
            spaces[loss][key] = domain, _preset(recipe, loss, key, spec)
    return [
        Method(loss, {key: domain for key, (domain, _) in space.items()}, {key: old for key, (_, old) in space.items()})
        for loss, space in spaces.items()
    ]


def _parsed(spec: str, losses: Sequence[str]) -> tuple[str | None, str, str]:
    """The loss of a ``--space`` value, or None, the parameter, and the whole text."""
    key, _, text = spec.partition("=")
    if not (key and text):
        form = "Write e.g. --space alpha=0.01:0.3:log, or fedlas.beta=0.5,1,2,4 (no spaces)."
        raise InputError("--space", "it must be KEY=RANGE", repr(spec), form)
    owner = max((loss for loss in losses if key.startswith(f"{loss}.")), key=len, default=None)
    return owner, key if owner is None else key.removeprefix(f"{owner}."), spec


def _having(recipe: Recipe, losses: Sequence[str], key: str, spec: str) -> list[str]:
    """The losses that have a parameter."""
    if is_recipe_key(key):
        return list(losses)
    options = {loss: options_of(recipe, loss) for loss in losses}
    having = [loss for loss in losses if key in options[loss]]
    if having:
        return having
    known = list(dict.fromkeys(option for loss in losses for option in options[loss]))
    if key.split(".")[0] in ("data", "seeds", "losses", "methods"):
        fix = f"Data and methods are the same for every trial; tune options of losses, or of {', '.join(SECTIONS)}."
    else:
        fix = suggestion(key, known) if known else "Leave it out: there are none."
    raise InputError("--space", f"{key} must be an option of {' or '.join(losses)}", repr(spec), fix)


def _preset(recipe: Recipe, loss: str, key: str, spec: str) -> Any:
    if not is_recipe_key(key):
        return options_of(recipe, loss)[key]
    section, _, name = key.partition(".")
    part = getattr(recipe, section)
    known = _OF_TRAIN if section == "train" else [n for n in vars(part) if n not in ("name", "options")]
    if section in ("optimizer", "schedule"):
        known = [*known, "name"]
    options = getattr(part, "options", {})
    if name in options or name in known:
        return options[name] if name in options else getattr(part, name)
    if section == "model" and name:
        return None  # an option that the recipe does not set; planning checks whether the model has it
    if section == "train" and name in vars(part):
        expected = f"it must leave budget and objective the same for every trial, unlike {key}"
        raise InputError("--space", expected, repr(spec), f"Of train, choose one of: {', '.join(_OF_TRAIN)}.")
    raise InputError("--space", "the key must be one of the recipe", repr(spec), suggestion(name, known))
