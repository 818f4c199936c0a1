"""Search spaces: ranges such as ``0.01:0.3:log`` or ``1,2,4``, declared by a loss at registration or by ``--space``.

``base.alpha`` is the option ``alpha`` of the loss inside a loss that wraps another one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.recipes.text import parse_value
from fedlas.losses import LOSSES

__all__ = ["Domain", "Method", "is_recipe_key", "methods_of", "params_text", "parse_domain", "set_option", "tuned_rows"]

_SECTIONS = ("optimizer", "schedule", "model", "train")
"""Sections of a recipe that may hold a tuned key."""
_TRAIN_KEYS = ("batch_size", "average_decay", "average_start")
"""Tunable keys of ``train``; the others decide budget, objective or speed."""
_NOT_TUNED = ("num_classes", "num_samples", "reduction", "ignore_index", "weight")
_FORM = "Write low:high, low:high:log, low:high:int, or values such as 0.5,1,2."


@dataclass(frozen=True)
class Domain:
    """Values that a parameter may have: a few, or all numbers from the first to the last.

    Attributes:
        text: The domain as the user writes it.
        values: The values, or the two ends of a range.
        is_range: Whether numbers between the two values belong to the domain.
        log: Whether equal factors, not equal differences, of a range are equally likely.
        whole: Whether a range has whole numbers only.
    """

    text: str
    values: tuple[Any, ...]
    is_range: bool = False
    log: bool = False
    whole: bool = False

    @property
    def settings(self) -> Sequence[Any] | None:
        """Every value of a finite domain; None for a range of real numbers."""
        if not self.is_range:
            return self.values
        return range(self.values[0], self.values[1] + 1) if self.whole else None

    @property
    def probes(self) -> tuple[Any, ...]:
        """Values that a loss must accept if it accepts the whole domain: all, or the ends and a fraction between."""
        if not self.is_range or self.whole:
            return self.values
        low, high = self.values
        return low, (low + high) / 2 + (high - low) / 31, high

    def contains(self, value: Any) -> bool:
        """Return whether a value is in the domain."""
        if not self.is_range:
            return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.values)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return bool(self.values[0] <= value <= self.values[1]) and (not self.whole or value == int(value))

    def suggest(self, trial: Any, name: str) -> Any:
        """Return the value of the parameter ``name`` in a trial of optuna."""
        if not self.is_range:
            return trial.suggest_categorical(name, list(self.values))
        return (trial.suggest_int if self.whole else trial.suggest_float)(name, *self.values, log=self.log)


def parse_domain(text: str, where: str) -> Domain:
    """Parse a domain.

    Args:
        text: ``0.01:0.3``, ``0.01:0.3:log``, ``1:4:int`` or ``0.5,1,2,4``.
        where: Origin of the text, for errors.

    Raises:
        InputError: For another form, ends that are not finite numbers or in the wrong order, a logarithmic range that
            is not above 0, or a value twice.

    Example:
        >>> parse_domain("1:4:int", "alpha").values, parse_domain("1,sgd", "beta").values
        ((1, 4), (1, 'sgd'))
    """
    is_range = ":" in text
    parts = text.split(":") if is_range else text.split(",")
    parts, flags = (parts[:2], parts[2:]) if is_range else (parts, [])
    values = [parse_value(part, where) if part.strip() else None for part in parts]
    finite = [v for v in values if isinstance(v, str) or (isinstance(v, int | float) and math.isfinite(v))]
    numbers = [v for v in finite if not isinstance(v, str | bool)]
    log, whole = "log" in flags, "int" in flags
    if not is_range:
        valid = len(finite) == len(values) == len(set(finite))
        expected = "values must be finite numbers, text, true or false, each once"
    elif len(numbers) != 2 or not numbers[0] < numbers[1]:
        valid, expected = False, "a range must have two finite numbers as its ends, the lower one first"
    else:
        valid = sorted(flags) in ([], ["int"], ["log"], ["int", "log"])
        valid = valid and not (log and numbers[0] <= 0) and not (whole and any(v != int(v) for v in numbers))
        expected = "a range may end in :log, if it lies above 0, and in :int, if its ends are whole numbers"
    if not valid:
        raise InputError("--space", expected, repr(where), _FORM)
    return Domain(text, tuple(map(int if whole else float, numbers) if is_range else values), is_range, log, whole)


def tuned_rows() -> list[dict[str, str]]:
    """Return the rows of ``fedlas list tuning``: the ranges that each loss declares at its registration."""
    rows = []
    for entry in LOSSES.entries():
        ranges = [f"{name} {text}" for name, text in entry.metadata.get("tune", {}).items()]
        rows.append({"name": entry.name, "what it is": "; ".join(ranges) or "nothing to tune"})
    return rows


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

    def grid(self, budget: int) -> list[dict[str, Any]] | None:
        """Return every setting, the preset first; None if there are more than the budget."""
        domains = [domain.settings for domain in self.space.values()]
        if math.prod(math.inf if values is None else len(values) for values in domains) > budget:
            return None
        settings = [dict(zip(self.space, values, strict=True)) for values in product(*(d or () for d in domains))]
        settings = [dict(self.preset), *(setting for setting in settings if setting != self.preset)]
        return settings if len(settings) <= budget else None

    def trials(self, budget: int) -> int:
        """Return the number of trials within a budget: a space with fewer settings has fewer."""
        grid = self.grid(budget)
        return budget if grid is None else len(grid)


def is_recipe_key(parameter: str) -> bool:
    """Return whether a parameter is a key of the recipe instead of an option of the loss."""
    return parameter.split(".")[0] in _SECTIONS


def params_text(params: Mapping[str, Any]) -> str:
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
        >>> ls.space["alpha"].text, dict(ls.preset), ls.trials(20), ce.trials(20)
        ('0.05,0.1', {'alpha': 0.05}, 2, 1)
    """
    options = {loss: _options(recipe, loss) for loss in losses}
    spaces: dict[str, dict[str, Domain]] = {loss: {} for loss in losses}
    presets: dict[str, dict[str, Any]] = {loss: {} for loss in losses}
    for loss in losses:
        for key, (value, text) in options[loss].items():
            if text is not None and isinstance(value, int | float) and not isinstance(value, bool):
                spaces[loss][key], presets[loss][key] = parse_domain(text, f"{loss}.{key}={text}"), value
    specs = sorted(specs, key=lambda spec: _owner(spec, losses) is not None)  # stable; keys with a loss come last
    for spec in specs:
        key, _, text = spec.partition("=")
        if not (key and text):
            form = "Write e.g. --space alpha=0.01:0.3:log, or fedlas.beta=0.5,1,2,4 (no spaces)."
            raise InputError("--space", "it must be KEY=RANGE", repr(spec), form)
        domain, owner = parse_domain(text, spec), _owner(spec, losses)
        key = key if owner is None else key.removeprefix(f"{owner}.")
        tuned = losses if owner is None else [owner]
        if is_recipe_key(key):
            values = dict.fromkeys(tuned, _recipe_value(recipe, key, spec))
        else:
            values = {loss: options[loss][key][0] for loss in tuned if key in options[loss]}
        if not values:
            names = list(dict.fromkeys(option for loss in tuned for option in options[loss]))
            fix = suggestion(key, names) if names else "Leave it out: there are none."
            if key.split(".")[0] in ("data", "seeds", "losses", "methods"):
                fix = (
                    f"All trials have the same data and methods; tune options of losses, or of {', '.join(_SECTIONS)}."
                )
            raise InputError("--space", f"{key} must be an option of {' or '.join(tuned)}", repr(spec), fix)
        for loss, value in values.items():
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


def _owner(spec: str, losses: Sequence[str]) -> str | None:
    """Return the loss that a value of ``--space`` names, the longest name that fits."""
    return max((loss for loss in losses if spec.startswith(f"{loss}.")), key=len, default=None)


def _recipe_value(recipe: Recipe, key: str, spec: str) -> Any:
    """Return a recipe's value of a key; None if it has none, and planning checks whether it may have one."""
    section, _, name = key.partition(".")
    if not name or (section == "train" and name not in _TRAIN_KEYS):
        expected = f"it must leave budget and objective the same for every trial, unlike {key}"
        fix = f"Choose e.g. optimizer.lr, or one of train's keys: {', '.join(_TRAIN_KEYS)}."
        raise InputError("--space", expected, repr(spec), fix)
    part = getattr(recipe, section)
    return getattr(part, "options", {}).get(name, getattr(part, name, None))


def _defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(LOSSES[name].value).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.name not in _NOT_TUNED and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def _options(recipe: Recipe, loss: str) -> dict[str, tuple[Any, str | None]]:
    """Return value and declared range of each option of a loss, then of the loss inside it, and so on."""
    options: dict[str, tuple[Any, str | None]] = {}
    prefix, name, changed = "", recipe.registered_loss(loss), recipe.loss_options(loss)
    while True:
        values, ranges = {**_defaults(name), **changed}, LOSSES[name].metadata.get("tune", {})
        options |= {prefix + key: (values[key], ranges.get(key)) for key in {**ranges, **values}}
        base = values.get("base")
        if isinstance(base, str):
            name, changed = base, {}
        elif isinstance(base, Mapping):
            name, changed = str(base["name"]), {key: value for key, value in base.items() if key != "name"}
        else:
            return options
        prefix += "base."
