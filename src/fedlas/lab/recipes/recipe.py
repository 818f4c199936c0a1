"""Recipes: a YAML file that describes data, model and training, with overrides of single values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.files import check_name
from fedlas.lab.data.shift import Corruption
from fedlas.lab.data.shift.label_noise import LabelNoise
from fedlas.lab.recipes.config import DataConfig, ModelConfig, refuse_unknown, typed
from fedlas.lab.recipes.text import apply_override, is_group, read_content, shipped_names
from fedlas.lab.train import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig

__all__ = ["Recipe", "load_recipe", "parse_options", "recipe_from", "recipe_names"]


@dataclass(frozen=True)
class Recipe:
    """Everything about an experiment except the loss and the seed.

    Args:
        name: Name of the recipe.
        title: One line that describes it.
        data: The data.
        model: The model.
        methods: Losses that a bench runs by default.
        seeds: Seeds that a bench runs by default.
        losses: Options of losses, by registry name; other losses run with their defaults. An entry with a key ``loss``
            is a variant of that loss under another name. A key ``features`` chooses the features that the loss gets:
            ``head`` (the default), ``map`` (before the global pool), or the module whose input they are.
        optimizer: The optimizer.
        schedule: The learning rate.
        train: The training loop.
        trackers: Options of the experiment trackers that show the runs, by name. The log is written with or without.
    """

    name: str
    title: str
    data: DataConfig
    model: ModelConfig
    methods: list[str] = field(default_factory=lambda: ["ce", "ls", "mbls", "acls", "fedlas", "fedlas+"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    losses: dict[str, dict[str, Any]] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trackers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def registered_loss(self, loss: str) -> str:
        """Registry name of a loss: the ``loss`` of its entry, else its own name."""
        return str(self.losses.get(loss, {}).get("loss", loss))

    def loss_options(self, loss: str) -> dict[str, Any]:
        """Options of a loss, from its entry."""
        return {key: value for key, value in self.losses.get(loss, {}).items() if key not in ("loss", "features")}

    def with_data_root(self, root: str | None) -> Recipe:
        """The same recipe with its data in ``root``; None changes nothing."""
        return self if root is None else replace(self, data=replace(self.data, root=root))

    def with_trackers(self, names: Iterable[str]) -> Recipe:
        """The same recipe with these trackers in addition."""
        return replace(self, trackers={**{name: {} for name in names}, **self.trackers})


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, without groups of recipes."""
    return [name for name in shipped_names() if not is_group(read_content(name)[1])]


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        name: Name of a recipe of the package, or path of a ``.yaml`` file; see :mod:`fedlas.lab.recipes.text`.
        overrides: ``key=value`` with a dotted key and a YAML value, e.g. ``"optimizer.lr=0.05"``.

    Raises:
        InputError: For an unknown recipe or key (the nearest is named), a value of the wrong type or out of range, a
            milestone that is not before the last epoch, or a group of recipes.

    Example:
        >>> load_recipe("digits", ["train.epochs=2"]).train.epochs
        2
    """
    short, content = read_content(name)
    if is_group(content):
        raise InputError(
            "recipe",
            "it must be one recipe",
            f"the group {name!r} of {len(content['recipes'])}",
            "Run it with fedlas bench, or name one of them.",
        )
    for override in overrides:
        apply_override(content, override)
    return recipe_from(short, content)


def parse_options(overrides: Iterable[str]) -> dict[str, Any]:
    """Options from ``key=value`` with a YAML value, as ``--set`` takes them.

    Raises:
        InputError: If an override has another form.

    Example:
        >>> parse_options(["samples=50", "link=mc"])
        {'samples': 50, 'link': 'mc'}
    """
    options: dict[str, Any] = {}
    for override in overrides:
        apply_override(options, override)
    return options


_SECTIONS: dict[str, type] = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig, "train": TrainConfig}
_DATA_SECTIONS: dict[str, type] = {"label_noise": LabelNoise, "corruption": Corruption}


def recipe_from(name: str, content: dict[str, Any]) -> Recipe:
    """A recipe from the sections of its YAML file.

    Args:
        name: Name of the recipe.
        content: Its sections.

    Raises:
        InputError: As :func:`load_recipe`.
    """
    for part in name.split("/"):
        check_name("recipe", "the recipe", part, f"Rename {name!r}: runs are put into a folder of that name.")
    refuse_unknown("", content, [f.name for f in fields(Recipe) if f.name != "name"])
    for needed in ("title", "data", "model"):
        if needed not in content:
            raise InputError("recipe", f"it must have a section {needed!r}", sorted(content), "Add it.")
    ready: dict[str, Any] = {"title": str(content["title"])}
    for section, kind in _SECTIONS.items():
        ready[section] = typed(kind, content.get(section) or {}, section)

    # Data and model hold sections of their own, and options among their fields.
    data = _with_options(DataConfig, content["data"], "data")
    given = {key: value for key in _DATA_SECTIONS if (value := data.pop(key, None)) is not None}
    inner: dict[str, Any] = {key: typed(_DATA_SECTIONS[key], value, f"data.{key}") for key, value in given.items()}
    ready["data"] = replace(typed(DataConfig, data, "data"), **inner)
    model = _with_options(ModelConfig, content["model"], "model")
    bayesian = model.pop("bayesian", None)
    if bayesian is not None and bayesian is not False:
        bayesian = typed(BayesianConfig, {} if bayesian is True else bayesian, "model.bayesian")
    ready["model"] = replace(typed(ModelConfig, model, "model"), bayesian=bayesian or None)

    if "methods" in content:
        ready["methods"] = [str(method) for method in _listed(content["methods"], "methods")]
    if "seeds" in content:
        ready["seeds"] = [check_count("recipe", "seeds", s, low=0) for s in _listed(content["seeds"], "seeds")]
    ready["losses"] = _options_by_name(content, "losses", "{ls: {alpha: 0.1}}")
    ready["trackers"] = _options_by_name(content, "trackers", "{wandb: {project: calibration}}")

    # What only all sections together show.
    recipe = Recipe(name=name, **ready)
    recipe.schedule.milestone_epochs(recipe.train.epochs)
    if recipe.model.bayesian is not None and recipe.optimizer.weight_decay:
        raise InputError(
            "recipe",
            "optimizer.weight_decay must be 0 with model.bayesian, whose prior takes its place",
            recipe.optimizer.weight_decay,
            "Write --set optimizer.weight_decay=0.",
        )
    return recipe


def _options_by_name(content: dict[str, Any], section: str, example: str) -> dict[str, dict[str, Any]]:
    named = content.get(section) or {}
    if not isinstance(named, dict) or not all(isinstance(options, dict | None) for options in named.values()):
        raise InputError("recipe", f"{section} must map names to options", named, f"Write e.g. {section}: {example}.")
    return {str(name): dict(options or {}) for name, options in named.items()}


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    raise InputError("recipe", f"{name} must be a list of at least one", value, f"Write e.g. {name}: [...].")


def _with_options(kind: type, section: Any, name: str) -> dict[str, Any]:
    """The section with every key that is not a field of ``kind`` in its ``options``."""
    if not isinstance(section, Mapping) or "name" not in section:
        raise InputError("recipe", f"{name} must be a section with a name", section, "See the recipes of the package.")
    own = {f.name for f in fields(kind)} - {"options"}
    fixed = {key: value for key, value in section.items() if key in own}
    return {**fixed, "options": {key: value for key, value in section.items() if key not in own}}
