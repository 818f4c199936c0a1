"""Recipes: one YAML file says on what, with what and how to train; overrides change single values of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from fedlas._core.check import InputError, check_count, suggestion
from fedlas._core.extras import require
from fedlas.train import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.uncertainty.bayesian_layers import BayesianConfig

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Data of a run.

    Args:
        name: Registered data set.
        root: Where its files are; null searches ``$FEDLAS_DATA`` and the usual places.
        val_size: Samples (or a fraction) of the training part that are held out for selection and temperature.
        train_size: Training samples, stratified; null takes all that are left.
        test_size: Test samples, stratified; null takes all.
        split_seed: Seed of the division into parts; null is the run's seed. With one for all, runs of several seeds are
            validated on the same samples, as an ensemble that is to be calibrated on them needs.
        options: Further options of the data set; in a recipe they stand beside the others.
    """

    name: str
    root: str | None = None
    val_size: int | float = 0.1
    train_size: int | None = None
    test_size: int | None = None
    split_seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.split_seed is not None:
            check_count("data", "split_seed", self.split_seed, low=0)


@dataclass(frozen=True)
class ModelConfig:
    """Model of a run.

    Args:
        name: Registered model.
        bayesian: Make every weight a Gaussian (Bayes by backprop): ``true``, or a section of its options; null does
            not. Takes the place of weight decay, which must be 0.
        options: Its options, such as ``width``; in a recipe they stand beside the name.
    """

    name: str
    bayesian: BayesianConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything about an experiment except which loss and which seed.

    Args:
        name: Name of the recipe.
        title: One line that says what it is.
        data: The data.
        model: The model.
        methods: Losses a bench runs when none are named.
        seeds: Seeds a bench runs when none are named.
        losses: Options of losses, by registry name; a loss that is not here runs with its own defaults. An entry with a
            key ``loss`` is a variant of that loss under a name of its own.
        optimizer: The optimizer.
        schedule: The learning rate.
        train: The loop.
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

    def with_data_root(self, root: str | None) -> Recipe:
        """The same recipe reading its data from ``root``."""
        return self if root is None else replace(self, data=replace(self.data, root=root))


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(_shipped())


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        name: Name of a recipe of the package, or path of a ``.yaml`` file.
        overrides: ``key=value`` with a dotted key and a YAML value, e.g. ``"optimizer.lr=0.05"``.

    Raises:
        InputError: For an unknown recipe or key (the nearest is named), a value of the wrong type or out of range, or a
            milestone that is not before the last epoch. Nothing has started then.

    Example:
        >>> load_recipe("digits", ["train.epochs=2"]).train.epochs
        2
    """
    source: Traversable | Path
    if name.endswith((".yaml", ".yml")):
        source = Path(name)
        if not source.is_file():
            raise InputError("recipe", "the file must exist", name, "Check the path.")
        short = Path(name).stem
    else:
        shipped = _shipped()
        if name not in shipped:
            raise InputError(
                "recipe",
                "it must be a recipe of the package or the path of a .yaml file",
                repr(name),
                suggestion(name, sorted(shipped)),
            )
        source, short = shipped[name], name
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "recipe", "it must be a readable text file", f"{source} ({error})", "Check the path and its permissions."
        ) from error
    content = _parse(text, str(source))
    if not isinstance(content, dict):
        raise InputError("recipe", "the file must hold a mapping", source, "See the recipes of the package.")
    for override in overrides:
        _apply(content, override)
    return recipe_from(short, content)


def parse_options(overrides: Iterable[str]) -> dict[str, Any]:
    """Options given as ``key=value`` with a YAML value, as ``--set`` takes them.

    Raises:
        InputError: If one is not of that form.

    Example:
        >>> parse_options(["samples=50", "link=mc"])
        {'samples': 50, 'link': 'mc'}
    """
    options: dict[str, Any] = {}
    for override in overrides:
        _apply(options, override)
    return options


def _shipped() -> dict[str, Traversable]:
    folder = files("fedlas.bench") / "recipes"
    return {item.name.removesuffix(".yaml"): item for item in folder.iterdir() if item.name.endswith(".yaml")}


@cache
def _loader() -> Any:
    """YAML's safe loader, made to read ``5e-4`` as a number as everybody expects."""
    yaml = require("yaml", extra="bench")
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_implicit_resolver(  # type: ignore[attr-defined]  # inherited; mypy sees a plain type
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return loader


def _parse(text: str, where: str) -> Any:
    yaml = require("yaml", extra="bench")
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError("recipe", "it must be valid YAML", f"{where}: {reason}", "Correct it.") from error


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(
            "--set", "an override must be key=value", repr(override), "Write e.g. --set optimizer.lr=0.05 (no spaces)."
        )
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError("--set", f"{parent} must be a section", repr(override), "Check the key.")
    place[last] = _parse(value, override)


_SECTIONS: dict[str, type] = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig, "train": TrainConfig}


def recipe_from(name: str, content: dict[str, Any]) -> Recipe:
    """A recipe from what its YAML file would hold.

    Args:
        name: Name of the recipe.
        content: Its sections.

    Raises:
        InputError: As :func:`load_recipe`.
    """
    known = [f.name for f in fields(Recipe) if f.name != "name"]
    _refuse_unknown("", content, known)
    for needed in ("title", "data", "model"):
        if needed not in content:
            raise InputError("recipe", f"it must have a section {needed!r}", sorted(content), "Add it.")
    ready: dict[str, Any] = {"title": str(content["title"])}
    for section, kind in _SECTIONS.items():
        ready[section] = _typed(kind, content.get(section) or {}, section)
    ready["data"] = _typed(DataConfig, _with_options(DataConfig, content["data"], "data"), "data")
    model = _with_options(ModelConfig, content["model"], "model")
    bayesian = model.pop("bayesian", None)
    if bayesian is not None and bayesian is not False:
        section = {} if bayesian is True else bayesian
        bayesian = _typed(BayesianConfig, section, "model.bayesian")
    ready["model"] = replace(_typed(ModelConfig, model, "model"), bayesian=bayesian or None)
    if "methods" in content:
        ready["methods"] = [str(method) for method in _listed(content["methods"], "methods")]
    if "seeds" in content:
        ready["seeds"] = [check_count("recipe", "seeds", s, low=0) for s in _listed(content["seeds"], "seeds")]
    losses = content.get("losses") or {}
    if not isinstance(losses, dict) or not all(isinstance(options, dict | None) for options in losses.values()):
        raise InputError("recipe", "losses must map names to options", losses, "Write e.g. losses: {ls: {alpha: 0.1}}.")
    ready["losses"] = {loss: dict(options or {}) for loss, options in losses.items()}
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


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    raise InputError("recipe", f"{name} must be a list of at least one", value, f"Write e.g. {name}: [...].")


def _with_options(kind: type, section: Any, name: str) -> dict[str, Any]:
    """Move what is not a field of ``kind`` into its ``options``."""
    if not isinstance(section, Mapping) or "name" not in section:
        raise InputError("recipe", f"{name} must be a section with a name", section, "See the recipes of the package.")
    own = {f.name for f in fields(kind)} - {"options"}
    fixed = {key: value for key, value in section.items() if key in own}
    return {**fixed, "options": {key: value for key, value in section.items() if key not in own}}


def _refuse_unknown(section: str, content: Mapping[str, Any], known: Iterable[str]) -> None:
    names = [f"{section}.{key}" if section else key for key in known]
    for key in content:
        full = f"{section}.{key}" if section else str(key)
        if full not in names:
            raise InputError("recipe", "every key must be known", repr(full), suggestion(full, names))


def _typed(kind: type[T], content: Any, section: str) -> T:
    """A dataclass from a mapping, types checked and converted by jsonargparse."""
    if not isinstance(content, Mapping):
        raise InputError("recipe", f"{section} must be a section", content, f"Write {section}: {{key: value}}.")
    _refuse_unknown(section, content, [f.name for f in fields(kind)])  # type: ignore[arg-type]  # `kind` is a dataclass
    jsonargparse = require("jsonargparse", extra="bench")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{section}", type=kind)
    try:
        parsed = parser.parse_object({section: dict(content)})
    except jsonargparse.ArgumentError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            "recipe", f"{section} must hold values of the right types", reason, "Correct the value."
        ) from error
    instance: T = parser.instantiate(parsed)[section]
    return instance
