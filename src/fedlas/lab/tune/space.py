"""Search spaces: ranges such as ``0.01:0.3:log`` or ``1,2,4``, declared by a loss at registration or by ``--space``.

``base.alpha`` is the option ``alpha`` of the base loss of a loss that wraps another one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import require
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.recipes.text import parse_yaml_value
from fedlas.losses import LOSSES

if TYPE_CHECKING:
    import optuna

_SECTIONS = ("optimizer.", "schedule.", "model.")
"""Sections of a recipe whose keys may be tuned; other keys set budget, data, objective or speed."""
_TRAIN_KEYS = ("train.batch_size", "train.average_decay", "train.average_start")


def parse_distribution(text: str, where: str) -> Any:
    """Return the optuna distribution of a range or a list of values.

    Args:
        text: ``0.01:0.3``, ``0.01:0.3:log``, ``1:4:int`` or ``0.5,1,2,4``.
        where: Origin of the text, shown in errors.

    Raises:
        InputError: For another form, or a range that optuna does not accept.

    Example:
        >>> parse_distribution("1:4:int", "alpha").high, parse_distribution("1,sgd", "beta").choices
        (4, (1, 'sgd'))
    """
    distributions = require("optuna.distributions", extra="tune")
    try:
        if ":" not in text:
            parts = text.split(",")
            if "" in parts:
                raise ValueError("a value is missing")
            return distributions.CategoricalDistribution(
                [parse_yaml_value(part, where) for part in parts]
            )
        low, high, *flags = text.split(":")
        if not set(flags) <= {"log", "int"}:
            raise ValueError("unknown suffix")
        if "int" in flags:
            return distributions.IntDistribution(int(low), int(high), log="log" in flags)
        return distributions.FloatDistribution(float(low), float(high), log="log" in flags)
    except ValueError as error:
        raise InputError(
            "a range must be two numbers, low:high, both above 0 for :log",
            f"{where!r} ({error})",
            "Write KEY=low:high, low:high:log, low:high:int, or values such as 0.5,1,2 (no spaces).",
        ) from error


def tuning_rows() -> list[dict[str, str]]:
    """Return the rows of ``fedlas list tuning``: the ranges that each loss declares at registration."""
    rows = []
    for entry in LOSSES.entries():
        ranges = [f"{name} {text}" for name, text in entry.metadata.get("tune", {}).items()]
        rows.append({"name": entry.name, "what it is": "; ".join(ranges) or "nothing to tune"})
    return rows


@dataclass(frozen=True)
class TunedMethod:
    """A loss of the recipe with its search space.

    Attributes:
        name: Name of the loss in the recipe.
        ranges: Range of each parameter by name: an option of the loss such as ``alpha`` (``base.alpha`` of the loss
            inside it), or a key of the recipe such as ``optimizer.lr``.
        preset: The recipe's value of each parameter; None where it has none.
    """

    name: str
    ranges: Mapping[str, str]
    preset: Mapping[str, Any]

    @property
    def space(self) -> dict[str, Any]:
        """Optuna distribution of each parameter, by name."""
        return {
            key: parse_distribution(text, f"{self.name}.{key}={text}")
            for key, text in self.ranges.items()
        }

    @property
    def preset_in_range(self) -> dict[str, Any]:
        """Preset values that lie in their ranges; optuna cannot learn from other values."""
        return {
            key: self.preset[key]
            for key, domain in self.space.items()
            if has_value(domain, self.preset[key])
        }

    def params(self, trial: optuna.Trial) -> Mapping[str, Any]:
        """Return the parameters of a trial; the first trial has the preset."""
        return dict(trial.params) if trial.number else self.preset

    def boundary_settings(self) -> list[dict[str, Any]]:
        """Return settings at the ends of the ranges, which test whether a loss accepts the whole space."""
        values = {key: _boundary_values(domain) for key, domain in self.space.items()}
        longest = max(map(len, values.values()), default=0)
        return [
            {key: each[min(number, len(each) - 1)] for key, each in values.items()}
            for number in range(longest)
        ]

    def grid(self, budget: int) -> list[dict[str, Any]] | None:
        """Return all settings except the preset, or None if they and the preset exceed the budget."""
        values = [_all_values(domain) for domain in self.space.values()]
        if math.prod(map(len, values)) > budget or not all(values):
            return None
        settings = [dict(zip(self.ranges, each, strict=True)) for each in product(*values)]
        rest = [setting for setting in settings if setting != self.preset]
        return rest if len(rest) < budget else None

    def trials(self, budget: int) -> int:
        """Return the number of trials within a budget, which a small discrete space may not use up."""
        rest = self.grid(budget)
        return budget if rest is None else 1 + len(rest)


def has_value(distribution: Any, value: Any) -> bool:
    """Return whether a value lies in an optuna distribution."""
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    return isinstance(value, int | float) and bool(distribution.low <= value <= distribution.high)


def _all_values(distribution: Any) -> Sequence[Any]:
    """Return all values of a discrete distribution, or an empty tuple for a continuous one."""
    if hasattr(distribution, "choices"):
        return tuple(distribution.choices)
    return range(distribution.low, distribution.high + 1) if distribution.step else ()


def _boundary_values(distribution: Any) -> Sequence[Any]:
    """Return the listed values, or the ends of a range; for a continuous range also a value in between."""
    if hasattr(distribution, "choices"):
        return tuple(distribution.choices)
    between = (
        ()
        if distribution.step
        else (distribution.low + (distribution.high - distribution.low) / math.e,)
    )
    return distribution.low, *between, distribution.high


def is_recipe_key(parameter: str) -> bool:
    """Return whether a parameter is a key of the recipe, not an option of the loss."""
    return parameter in _TRAIN_KEYS or parameter.startswith(_SECTIONS)


def format_params(params: Mapping[str, Any]) -> str:
    """Return parameters as text, such as ``alpha 0.05, beta 4``."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in params.items()
    )


def build_methods(recipe: Recipe, losses: Sequence[str], specs: Sequence[str]) -> list[TunedMethod]:
    """Return the methods of a recipe with their search spaces.

    Args:
        recipe: The recipe.
        losses: Names of losses that exist in it.
        specs: Values of ``--space``: ``KEY=RANGE`` with ``OPTION`` (of every loss that has it), ``LOSS.OPTION``, a key
            of the recipe such as ``optimizer.lr``, or ``LOSS.optimizer.lr``. The last one for a parameter wins.

    Raises:
        InputError: For a key that no loss has or that may not be tuned, or an invalid range.

    Example:
        >>> from fedlas.lab.recipes.recipe import load_recipe
        >>> ls, ce = build_methods(load_recipe("digits"), ["ls", "ce"], ["ls.alpha=0.05,0.1"])
        >>> ls.ranges, ls.preset, ls.trials(20), ce.trials(20)
        ({'alpha': '0.05,0.1'}, {'alpha': 0.05}, 2, 1)
    """
    methods = []
    names = []
    used = set()
    for loss in losses:
        options = _options_and_ranges(recipe.registered_loss_name(loss), recipe.loss_options(loss))
        names += [key for key, (value, _) in options.items() if isinstance(value, float)]
        ranges = {
            key: text
            for key, (value, text) in options.items()
            if text and isinstance(value, int | float)
        }
        for spec in specs:
            key, _, text = spec.partition("=")
            key = key.removeprefix(f"{loss}.")
            if key in options or is_recipe_key(key):
                ranges[key] = text
                used.add(spec)
        preset = {
            key: options[key][0] if key in options else _recipe_value(recipe, key) for key in ranges
        }
        methods.append(TunedMethod(loss, ranges, preset))
    for spec in specs:
        if spec not in used:
            key = spec.partition("=")[0]
            raise InputError(
                f"{key} must be an option of {' or '.join(losses)}, a key of optimizer, schedule or model, or "
                f"{', '.join(_TRAIN_KEYS)}",
                repr(spec),
                suggestion(key, names),
            )
    return methods


def set_option(options: dict[str, Any], loss: str, key: str, value: object) -> None:
    """Set an option of a loss, or of its base loss for ``base.OPTION``."""
    if key.startswith("base."):
        base = options.get("base", _option_defaults(loss)["base"])
        options["base"] = {"name": base} if isinstance(base, str) else dict(base)
        set_option(options["base"], options["base"]["name"], key.removeprefix("base."), value)
    else:
        options[key] = value


def _recipe_value(recipe: Recipe, key: str) -> Any:
    section, _, name = key.partition(".")
    values = vars(getattr(recipe, section))
    return {**values, **values.get("options", {})}.get(name)


def _option_defaults(loss: str) -> dict[str, Any]:
    parameters = inspect.signature(LOSSES[loss].value).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.kind is not p.VAR_KEYWORD
    }


def _options_and_ranges(
    loss: str, changed: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, str | None]]:
    """Return the value and declared range of each option of a loss and its base loss."""
    values = {**_option_defaults(loss), **changed}
    ranges = LOSSES[loss].metadata.get("tune", {})
    options = {prefix + key: (value, ranges.get(key)) for key, value in values.items()}
    if base := values.get("base"):
        inside = {"name": base} if isinstance(base, str) else dict(base)
        options |= _options_and_ranges(inside.pop("name"), inside, f"{prefix}base.")
    return options
