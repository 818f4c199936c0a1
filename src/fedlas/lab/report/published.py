"""What papers print, beside what was measured here: numbers, and the settings in which the two differ.

Source of the numbers: ``published_numbers.csv`` and ``published_ranks.csv`` beside this file, each row with its own.
"""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fedlas.lab.data import DATASETS
from fedlas.lab.models import builder_of
from fedlas.lab.recipes.plan import Run
from fedlas.lab.recipes.recipe import Recipe, load_recipe
from fedlas.lab.recipes.text import PUBLISHED, is_group, read_content, shipped_names
from fedlas.losses import LOSSES

METRICS = ("accuracy", "ece", "adaptive_ece")
"""What the papers' tables have in common; percent there, fractions in a run's ``metrics.json``."""

_DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "Tiny-ImageNet": "tiny-imagenet", "ImageNet": "imagenet"}
_MODELS = {"ResNet-50": "resnet50", "ResNet-101": "resnet101"}


@dataclass(frozen=True)
class Protocol:
    """How a row was trained, where that is known.

    Attributes:
        known: Sections or keys of the published recipe that hold for it.
        other: Keys that hold in place of the recipe's.
        remark: What no key says.
    """

    known: tuple[str, ...] = ("data", "model", "optimizer", "schedule", "train", "loss")
    other: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""


_PROTOCOLS = {
    "paper": Protocol(),
    "sum reduction": Protocol(
        ("model", "train.epochs", "train.batch_size"), remark="its losses are summed over a batch, not averaged"
    ),
    "200 epochs": Protocol(("model", "train.epochs"), {"train.epochs": 200}),
}
_BESIDE_THE_POINT = (
    "train.checkpoint_every",
    "train.save_features",
    "train.num_bins",
    "train.compile",
    "train.channels_last",
)
_OF_PARAMETERS = ("optimizer.decay_criterion", "optimizer.criterion_lr")
"""What matters to a loss only if it has parameters."""


@dataclass(frozen=True)
class Published:
    """One row of a paper's table.

    Attributes:
        source: Paper, repository or rerun that prints it.
        protocol: Which settings it was trained with.
        data: Data set, by its registry name.
        model: Model as printed, e.g. ``ResNet-50``.
        method: Registry name of the loss.
        values: Accuracy, ECE and adaptive ECE as fractions; what is not printed is left out.
        note: What the source says besides.
    """

    source: str
    protocol: str
    data: str
    model: str
    method: str
    values: Mapping[str, float]
    note: str

    @property
    def model_name(self) -> str | None:
        """Registry name of the model; None if the source does not say which it is."""
        return _MODELS.get(self.model)


@dataclass(frozen=True)
class PublishedRank:
    """Average ranks over the six cells of the FedLAS paper, and mean accuracy as a fraction."""

    source: str
    method: str
    ranks: Mapping[str, float]
    accuracy: float


@cache
def published_numbers() -> tuple[Published, ...]:
    """All published rows that come with the package."""
    return tuple(
        Published(
            row["source"],
            row["protocol"],
            _DATA[row["data"]],
            row["model"],
            row["method"],
            {metric: float(row[metric]) / 100 for metric in METRICS if row[metric]},
            row["note"],
        )
        for row in _rows("published_numbers.csv")
    )


@cache
def published_ranks() -> tuple[PublishedRank, ...]:
    """Published average ranks over cells."""
    return tuple(
        PublishedRank(
            row["source"],
            row["method"],
            {"ece": float(row["ece_rank"]), "adaptive_ece": float(row["adaptive_ece_rank"])},
            float(row["accuracy"]) / 100,
        )
        for row in _rows("published_ranks.csv")
    )


def rows_for(data: str, model: str, methods: Sequence[str]) -> list[Published]:
    """Published rows to put beside runs: of the same data and methods, and of the same model if there are any.

    Args:
        data: Registry name of the data set.
        model: Registry name of the model; rows that do not say which model they are of always count.
        methods: Registry names of the losses.
    """
    found = [row for row in published_numbers() if row.data == data and row.method in methods]
    same = [row for row in found if row.model_name in (model, None)]
    return same if any(row.model_name == model for row in same) else found


def settings_that_differ(config: Mapping[str, Any], row: Published) -> list[str]:
    """Settings in which a run differs from a published row.

    Args:
        config: ``config.yaml`` of a run, of the row's method or of any other.
        row: The row.

    Returns:
        ``"KEY: OURS here, THEIRS there"`` for every setting that is known of both and not the same; options of
        the loss for a run of that method alone.
    """
    protocol = _PROTOCOLS[row.protocol]
    model = row.model_name or str(config["model"]["name"])
    remarks = [protocol.remark] if protocol.remark else []
    if row.model_name is None:
        remarks.append(f"the source does not state the model, {model} here")
    published = _published_settings(row.data, model, row.method)
    if published is None:
        return [*remarks, "its settings are not known to this library"]
    # The paper's recipe gives what a row does not print, and the protocol corrects what it did otherwise.
    theirs, ours = {**published, **protocol.other}, _settings(config)
    # Options of another loss, or of a variant under its own name, have nothing to be compared with.
    if str(config["loss"].get("name")) != row.method:
        theirs, ours = ({k: v for k, v in each.items() if not k.startswith("loss.")} for each in (theirs, ours))
    if ours["model.name"] != theirs["model.name"]:  # then their options cannot be compared
        theirs, ours = (
            {k: v for k, v in each.items() if k == "model.name" or not k.startswith("model.")}
            for each in (theirs, ours)
        )
    found = [
        # Only settings that are known can differ; the others say nothing about the source.
        f"{key}: {_said(ours, key)} here, {_said(theirs, key)} there"
        for key in dict.fromkeys([*theirs, *ours])
        if any(f"{key}.".startswith(f"{known}.") for known in protocol.known) and ours.get(key) != theirs.get(key)
    ]
    return [*found, *remarks]


@cache
def _published_settings(data: str, model: str, method: str) -> dict[str, Any] | None:
    """The settings of a cell as the paper's recipe has them, by dotted key; None if there is no recipe for it."""
    recipe = _published_recipes().get((data, model))
    return None if recipe is None else _settings(Run(recipe, method, 0, Path()).config())


@cache
def _published_recipes() -> dict[tuple[str, str], Recipe]:
    names = [name for name in shipped_names() if name.startswith("paper/") and name.endswith(PUBLISHED)]
    recipes = [load_recipe(name) for name in names if not is_group(read_content(name)[1])]
    return {(recipe.data.name, recipe.model.name): recipe for recipe in recipes}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was done with by dotted key; options that are not given have their defaults."""
    data, model, loss = config["data"], config["model"], dict(config["loss"])
    registered = str(loss.pop("loss", loss["name"]))
    kind = LOSSES[registered].value
    found: dict[str, Any] = {"model.name": model["name"], "train.epochs": config["train"]["epochs"]}  # these come first
    found |= {f"model.{key}": value for key, value in _defaults(builder_of(str(model["name"]))).items()}
    found |= {f"data.{key}": value for key, value in _defaults(DATASETS[str(data["name"])].value).items()}
    found |= {f"loss.{key}": value for key, value in _defaults(kind).items()}
    for section in ("data", "model", "optimizer", "schedule", "train"):
        found |= _flat(config[section], f"{section}.")
    found |= _flat(loss, "loss.")
    built = LOSSES.build(registered, {}, num_classes=10, num_samples=10)
    beside = (*_BESIDE_THE_POINT, *(() if next(built.parameters(), None) is not None else _OF_PARAMETERS))
    return {key: value for key, value in found.items() if key not in beside}


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Options of a builder that a recipe need not give; what the bench itself gives is not among them."""
    given = ("num_classes", "in_channels", "image_size", "root", "num_samples")
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in given and parameter.default not in (inspect.Parameter.empty, None)
    }


def _said(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "as usual"


def _flat(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Values by dotted key; ``options`` of a section count as the section's own."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, prefix if key == "options" else f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((files("fedlas.lab.report") / name).read_text(encoding="utf-8").splitlines()))
