"""Recipes: data, model and training of an experiment, from a YAML file with overrides of single values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from fedlas._core.check import InputError, check_count, check_number, suggestion
from fedlas._core.extras import require
from fedlas._core.files import check_path_component
from fedlas.lab.data.base import parse_channel_statistics
from fedlas.lab.data.shift import Corruption
from fedlas.lab.data.shift.variants import LabelNoise
from fedlas.lab.recipes.text import (
    apply_override,
    is_recipe_group,
    read_recipe_file,
    shipped_recipe_names,
)
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig, check_literals
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig

T = TypeVar("T")


@dataclass(frozen=True)
class DataConfig:
    """Data settings of a run.

    Args:
        name: Registered data set.
        root: Folder of its files; null searches ``$FEDLAS_DATA`` and the usual places.
        val_size: Samples (or a fraction) of the training part that are held out for selection and temperature.
        train_size: Training samples, stratified; null takes all others.
        test_size: Test samples, stratified; null takes all.
        split_seed: Seed of the division into parts; null is the run's seed. With a common one, runs of several seeds
            are validated on the same samples, as an ensemble needs to be calibrated on them.
        hold_out_classes: Classes, by index or name, that are neither trained nor tested on. Their test images are kept
            as unknown classes for ``fedlas runs ood``. The other classes are renumbered from 0.
        long_tail: Training images of the first class for each of the last; the classes between shrink exponentially.
            Null keeps all images.
        long_tail_seed: Seed of the images that are kept; null is that of the division into parts.
        label_noise: Wrong training labels: a section with ``rate``, ``kind`` (``symmetric`` or ``asymmetric``) and
            ``seed`` (null is that of the division); null changes no label. ``splits.npz`` says which labels are wrong.
        cross_fit: Number of models, at least 2, each trained without one part of the training images, whose predictions
            of that part are for the losses ``cross-fitted`` and ``instance-smoothing``. Others do not use them.
        corruption: Corrupted test images: a section with ``name``, ``severity`` (1 to 5) and ``seed``; null corrupts
            none. ``fedlas runs shift`` measures finished runs under all corruptions.
        test_mean: Mean by channel that normalizes the run's own test images; null is the mean of the data, which is
            right. Published code for CIFAR-100 tests with another mean than it trains with.
        test_std: Standard deviation by channel, given together with ``test_mean``.
        workers: Processes that read images from disk; null is one per core, at most eight. It changes only the speed.
        options: Further options of the data set; a recipe has them among the others.
    """

    name: str
    root: str | None = None
    val_size: int | float = 0.1
    train_size: int | None = None
    test_size: int | None = None
    split_seed: int | None = None
    hold_out_classes: list[int | str] | None = None
    long_tail: float | None = None
    long_tail_seed: int | None = None
    label_noise: LabelNoise | None = None
    cross_fit: int | None = None
    corruption: Corruption | None = None
    test_mean: list[float] | None = None
    test_std: list[float] | None = None
    workers: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"split_seed": 0, "long_tail_seed": 0, "cross_fit": 2, "workers": 0}
        for name, low in counts.items():
            if (value := getattr(self, name)) is not None:
                check_count(f"data.{name}", value, low=low)
        if check_number("data.val_size", self.val_size) <= 0:
            raise InputError(
                "data.val_size must be above 0, since epochs and temperature are never chosen on the test part",
                self.val_size,
                "Hold out e.g. 0.1 of the training part.",
            )
        # One of the two alone would mix the statistics of two parts.
        if (self.test_mean is None) != (self.test_std is None):
            raise InputError(
                "data.test_mean and data.test_std must be set together",
                "only one of them",
                "Set both, or neither.",
            )
        values = {"test_mean": self.test_mean, "test_std": self.test_std, **self.options}
        for name in ("mean", "std", "test_mean", "test_std"):
            if values.get(name) is not None:
                parse_channel_statistics(f"data.{name}", values[name])
        if self.long_tail is not None and check_number("data.long_tail", self.long_tail) < 1:
            raise InputError(
                "data.long_tail must be at least 1",
                self.long_tail,
                "Choose e.g. 100 for a ratio of 100 to 1.",
            )


@dataclass(frozen=True)
class ModelConfig:
    """Model settings of a run.

    Args:
        name: Registered model, or ``timm:NAME``.
        weights: File of pre-trained weights to start from (see :func:`fedlas.lab.models.weights.load_weights`); null
            starts untrained.
        tune: ``full`` trains all weights; ``head`` the classifier alone, a linear probe, with everything before it as
            in testing: no dropout, and batch norms keep their statistics.
        freeze: Names of layers that are not trained, such as ``[conv1, bn1, stages.0]``, and stay as in testing.
        bayesian: Gaussian weights (Bayes by backprop): ``true``, or a section of options; null has plain weights. The
            prior replaces weight decay, which must be 0.
        options: Options of the model, such as ``width``; a recipe has them next to the name.
    """

    name: str
    weights: str | None = None
    tune: Literal["full", "head"] = "full"
    freeze: list[str] = field(default_factory=list)
    bayesian: BayesianConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)


def require_known_keys(section: str, content: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raise InputError for a key of a section that is not in ``keys``, with the nearest key."""
    names = [f"{section}.{key}" if section else key for key in keys]
    for key in content:
        full = f"{section}.{key}" if section else str(key)
        if full not in names:
            raise InputError(
                "every key must be a known option", repr(full), suggestion(full, names)
            )


def to_dataclass(config_type: type[T], content: object, section: str) -> T:
    """Return a dataclass from a mapping, with types checked and numeric strings converted."""
    if not isinstance(content, Mapping):
        raise InputError(
            f"{section} must be a section", content, f"Write {section}: {{key: value}}."
        )
    require_known_keys(section, content, [f.name for f in fields(config_type)])  # type: ignore[arg-type]  # `kind` is a dataclass
    check_literals(
        config_type, content, section
    )  # names the nearest choice, which msgspec does not
    msgspec = require("msgspec", extra="bench")
    try:
        instance: T = msgspec.convert(dict(content), config_type, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):  # of the dataclass itself, which says more
            raise error.__cause__ from None
        raise InputError(
            f"{section} must hold values of the right types",
            str(error).replace("`$", f"`{section}"),
            "Correct the value.",
        ) from error
    return instance


@dataclass(frozen=True)
class Recipe:
    """Configuration of an experiment, without the loss and the seed.

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
        objects: Data, model and losses that were passed in Python, see :mod:`fedlas.lab.recipes.objects`.
    """

    name: str
    title: str
    data: DataConfig
    model: ModelConfig
    methods: list[str] = field(
        default_factory=lambda: ["ce", "ls", "mbls", "acls", "fedlas", "fedlas+"]
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    losses: dict[str, dict[str, Any]] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trackers: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: Any = None

    def registered_loss_name(self, loss: str) -> str:
        """Return the registry name of a loss or loss variant."""
        return str(self.losses.get(loss, {}).get("loss", loss))

    def loss_options(self, loss: str) -> dict[str, Any]:
        """Return the options of a loss."""
        return {
            key: value
            for key, value in self.losses.get(loss, {}).items()
            if key not in ("loss", "features")
        }

    def with_data_root(self, root: str | None) -> Recipe:
        """Return the recipe with its data in ``root``; unchanged for None."""
        return self if root is None else replace(self, data=replace(self.data, root=root))

    def with_trackers(self, names: Iterable[str]) -> Recipe:
        """Return the recipe with additional trackers."""
        return replace(self, trackers={**{name: {} for name in names}, **self.trackers})


def recipe_names() -> list[str]:
    """Return the names of the package's recipes, without recipe groups."""
    return [
        name for name in shipped_recipe_names() if not is_recipe_group(read_recipe_file(name)[1])
    ]


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Return a recipe with overrides applied.

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
    return recipe_from_content(*read_recipe_content(name, overrides))


def read_recipe_content(name: str, overrides: Iterable[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the name and the content of a recipe file, with overrides applied, for :func:`recipe_from_content`."""
    short, content = read_recipe_file(name)
    if is_recipe_group(content):
        raise InputError(
            "the name must be a single recipe",
            f"the group {name!r} of {len(content['recipes'])} recipes",
            "Run the group with fedlas bench, or name one of its recipes.",
        )
    for override in overrides:
        apply_override(content, override)
    return short, content


def parse_options(overrides: Iterable[str]) -> dict[str, Any]:
    """Return options from ``key=value`` strings with YAML values, as ``--set`` takes them.

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


_SECTIONS: dict[str, type] = {
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "train": TrainConfig,
}
_DATA_SECTIONS: dict[str, type] = {"label_noise": LabelNoise, "corruption": Corruption}


def recipe_from_content(name: str, content: dict[str, Any]) -> Recipe:
    """Return a checked recipe from the sections of its YAML file.

    Args:
        name: Name of the recipe.
        content: Its sections.

    Raises:
        InputError: As :func:`load_recipe`.
    """
    for part in name.split("/"):
        check_path_component(
            "the recipe", part, f"Rename {name!r}: runs are put into a folder of that name."
        )
    names = [f.name for f in fields(Recipe) if f.name not in ("name", "objects")]
    require_known_keys("", content, names)
    for needed in ("title", "data", "model"):
        if needed not in content:
            raise InputError(
                f"the recipe must have a section {needed!r}", sorted(content), "Add it."
            )
    values: dict[str, Any] = {"title": str(content["title"])}
    for section, kind in _SECTIONS.items():
        values[section] = to_dataclass(kind, content.get(section) or {}, section)

    # Data and model hold sections of their own, and options among their fields.
    data = _gather_options(DataConfig, content["data"], "data")
    nested_sections: dict[str, Any] = {}
    for key, kind in _DATA_SECTIONS.items():
        if (value := data.pop(key, None)) is not None:
            nested_sections[key] = to_dataclass(kind, value, f"data.{key}")
    values["data"] = replace(to_dataclass(DataConfig, data, "data"), **nested_sections)
    model = _gather_options(ModelConfig, content["model"], "model")
    bayesian = model.pop("bayesian", None)
    if bayesian is not None and bayesian is not False:
        bayesian = to_dataclass(
            BayesianConfig, {} if bayesian is True else bayesian, "model.bayesian"
        )
    values["model"] = replace(to_dataclass(ModelConfig, model, "model"), bayesian=bayesian or None)

    if "methods" in content:
        values["methods"] = [str(method) for method in require_list(content["methods"], "methods")]
    if "seeds" in content:
        values["seeds"] = [
            check_count("seeds", s, low=0) for s in require_list(content["seeds"], "seeds")
        ]
    values["losses"] = _parse_options_by_name(content, "losses", "{ls: {alpha: 0.1}}")
    values["trackers"] = _parse_options_by_name(
        content, "trackers", "{wandb: {project: calibration}}"
    )

    # Checks that need several sections.
    recipe = Recipe(name=name, **values)
    _check_tuning(recipe)
    recipe.schedule.milestone_epochs(recipe.train.epochs - recipe.train.probe_epochs)
    if recipe.model.bayesian is not None and recipe.optimizer.weight_decay:
        raise InputError(
            "optimizer.weight_decay must be 0 with model.bayesian, whose prior replaces it",
            recipe.optimizer.weight_decay,
            "Write --set optimizer.weight_decay=0.",
        )
    return recipe


def _check_tuning(recipe: Recipe) -> None:
    """Raise InputError for fine-tuning options that exclude each other."""
    options = {
        "model.tune=head": recipe.model.tune == "head",
        "model.freeze": bool(recipe.model.freeze),
        "train.probe_epochs": recipe.train.probe_epochs > 0,
    }
    chosen = [option for option, is_set in options.items() if is_set]
    if len(chosen) > 1 and chosen[0] == "model.tune=head":
        raise InputError(
            "model.tune=head must not be combined with model.freeze or train.probe_epochs",
            chosen[1],
            f"Leave {chosen[1]} out, or write model.tune=full.",
        )
    others = {
        "model.bayesian": recipe.model.bayesian is not None,
        "train.average=swa": recipe.train.average == "swa",
    }
    if chosen and any(others.values()):
        raise InputError(
            f"{chosen[0]} must not be combined with model.bayesian or train.average=swa",
            next(option for option, is_set in others.items() if is_set),
            f"Leave out one of the two: the other changes layers that {chosen[0]} keeps fixed.",
        )


def _parse_options_by_name(
    content: dict[str, Any], section: str, example: str
) -> dict[str, dict[str, Any]]:
    """Return a section that maps names to options, with empty options as ``{}``."""
    named = content.get(section) or {}
    if not isinstance(named, dict) or not all(
        isinstance(options, dict | None) for options in named.values()
    ):
        raise InputError(
            f"{section} must map names to options", named, f"Write e.g. {section}: {example}."
        )
    return {str(name): dict(options or {}) for name, options in named.items()}


def require_list(value: object, name: str) -> list[Any]:
    """Return ``value`` if it is a non-empty list, else raise InputError."""
    if isinstance(value, list) and value:
        return value
    raise InputError(
        f"{name} must be a list that is not empty", value, f"Write e.g. {name.split()[0]}: [...]."
    )


def _gather_options(config_type: type, section: object, name: str) -> dict[str, Any]:
    """Return the section with all keys that are not fields of ``config_type`` moved into ``options``."""
    if not isinstance(section, Mapping) or "name" not in section:
        raise InputError(
            f"{name} must be a section with the key name",
            section,
            "See the recipes of the package.",
        )
    names = {f.name for f in fields(config_type)} - {"options"}
    values = {key: value for key, value in section.items() if key in names}
    return {**values, "options": {key: value for key, value in section.items() if key not in names}}
