"""Runs of a recipe, one per loss and seed, checked before the first one starts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError, check_count, suggestion
from fedlas.lab.data.base import option_names
from fedlas.lab.models.base import MODELS, find_builder
from fedlas.lab.recipes.recipe import DataConfig, ModelConfig, Recipe, require_known_keys
from fedlas.lab.train.config import check_selection_metric
from fedlas.lab.train.tracking import check_trackers
from fedlas.losses import LOSSES


@dataclass(frozen=True)
class Run:
    """One run: a recipe, a loss, a seed and a folder.

    Attributes:
        recipe: The recipe, with overrides applied.
        loss: Name of the loss, from the registry or of a variant in the recipe.
        seed: Whole number. It decides split (unless the recipe has a ``split_seed``), data order and initial weights,
            equally for every loss.
        folder: Run folder.
    """

    recipe: Recipe
    loss: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name of the run, e.g. ``fedlas-s0``."""
        return f"{self.loss}-s{self.seed}"

    @property
    def registered_loss_name(self) -> str:
        """Registry name of the loss."""
        return self.recipe.registered_loss_name(self.loss)

    @property
    def loss_options(self) -> dict[str, Any]:
        """Options of the loss in this recipe."""
        return self.recipe.loss_options(self.loss)

    @property
    def features(self) -> str:
        """Features passed to the loss, as in :class:`~fedlas.Objective`: the recipe's choice, else ``head``."""
        return str(self.recipe.losses.get(self.loss, {}).get("features", "head"))

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values, as in ``config.yaml`` and checkpoints.

        The data folder and the number of workers are left out, because they do not change the run.
        """
        recipe = asdict(replace(self.recipe, objects=None))
        # The plan of a bench and the place of the data do not change a run, so they do not bind it.
        for key in ("methods", "seeds", "losses", "title", "trackers", "objects"):
            del recipe[key]
        del recipe["data"]["root"], recipe["data"]["workers"]
        # Unused options are left out, so that a run folder stays valid when a new release has another option.
        averaging = self.recipe.train.average != "none"
        noise = recipe["data"]["label_noise"]
        if noise is not None and noise["seed"] is None:
            del noise["seed"]
        for section, unused in _OMITTED_DEFAULTS.items():
            values = recipe[section]
            for key, value in unused.items():
                if values[key] in (value, []) or (key.startswith("average") and not averaging):
                    del values[key]
        name = recipe.pop("name")
        variant = (
            {"loss": self.registered_loss_name} if self.registered_loss_name != self.loss else {}
        )
        features = {"features": self.features} if self.features != "head" else {}
        loss = {"name": self.loss, **variant, **features, **self.loss_options}
        return {"recipe": name, "loss": loss, "seed": self.seed, **recipe}


_OPTIONAL_DATA = (
    "split_seed hold_out_classes long_tail long_tail_seed label_noise cross_fit corruption test_mean "
    "test_std"
)
_OMITTED_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"bayesian": None, "weights": None, "tune": "full", "freeze": []},
    "optimizer": {"layer_decay": None, "layer_rates": {}},
    "data": dict.fromkeys(_OPTIONAL_DATA.split()),
    "train": {
        "accumulate": 1,
        "probe_epochs": 0,
        "average": "none",
        "average_decay": ...,
        "average_start": ...,
    },
}
"""Keys that a configuration omits at these values; keys of weight averaging are omitted without averaging."""


def plan_runs(
    recipe: Recipe,
    *,
    losses: Sequence[str] = (),
    seeds: Iterable[int] = (),
    out: Path | None = None,
) -> list[Run]:
    """Return the runs of a bench, ordered by seed, so that every loss has a first result early.

    Args:
        recipe: The recipe.
        losses: Names of registered losses or of the recipe's variants; empty means the recipe's methods, ``["all"]``
            every registered loss.
        seeds: Seeds; empty means the recipe's.
        out: Folder of the bench; None is ``runs/RECIPE``.

    Raises:
        InputError: For an unknown loss, data set, model, metric, tracker or option of a loss, or a loss or seed twice.
    """
    names = list(losses) or recipe.methods
    if names == ["all"]:
        names = [
            name
            for name in LOSSES
            if recipe.data.cross_fit or not hasattr(LOSSES[name].value, "set_targets")
        ]
    seed_list = list(seeds) or recipe.seeds
    # A name that is given twice would be two runs in one folder.
    for kind, values in (("losses", names), ("seeds", seed_list)):
        if len(set(values)) != len(values):
            raise InputError(f"{kind} must be distinct", values, "Name each once.")
    if not names:
        raise InputError("at least one loss must be chosen", "none", "Name one with --losses.")
    for seed in seed_list:
        check_count("seeds", seed, low=0)
    # Check all that needs no data: an error in the last loss must not show after hours of the others.
    objects = recipe.objects
    if objects is None:
        _check_options("data", recipe.data, set(option_names(recipe.data.name)))
    if objects is None or objects.model is None:
        model = find_builder(recipe.model.name)
        _check_options(
            "model", recipe.model, inspect.signature(model).parameters.keys() - _DATA_PARAMETERS
        )
        token_models = [entry.name for entry in MODELS.entries() if entry.metadata["tokens"]]
        tokens = objects.tokens if objects else recipe.data.options.get("tokenizer") is not None
        if tokens and recipe.model.name not in token_models:
            raise InputError(
                "the model must accept tokens",
                recipe.model.name,
                f"Choose one of: {', '.join(token_models)}; or pass vectors of an encoder instead of tokens.",
            )
    check_selection_metric(recipe.train.select)
    check_trackers(recipe.trackers)
    folder = out or Path("runs") / recipe.name
    # The seed is the outer loop, so that a bench that is stopped early has a comparison over complete seeds.
    runs = [
        Run(recipe, loss, seed, folder / f"{loss}-s{seed}") for seed in seed_list for loss in names
    ]
    # options of losses that are not run are also checked
    classes = 10 if objects is None else objects.source.num_classes
    for loss in dict.fromkeys([*names, *recipe.losses]):
        run = Run(recipe, loss, seed_list[0], folder)
        built = build_loss(run, num_classes=classes, num_samples=1000)
        if loss in names:
            checked_target_loss(run, built)
    return runs


def _check_options(section: str, config: DataConfig | ModelConfig, options: set[str]) -> None:
    """Raise InputError for an option that is not in ``options``, with the nearest key of the section."""
    names = {field.name for field in fields(config)} - {"options"}
    require_known_keys(section, config.options, sorted(options | names))


_DATA_PARAMETERS = {"num_classes", "in_channels", "image_size"}
"""Parameters of models that the data decides."""


def build_loss(
    run: Run, *, num_classes: int, num_samples: int, num_features: int | None = None
) -> torch.nn.Module:
    """Return the loss of a run.

    Args:
        run: The run.
        num_classes: Number of classes, for a loss that takes it.
        num_samples: Size of the training part, for a loss that takes it.
        num_features: Length of the head's input, for a loss that takes it; None if it is not known.

    Raises:
        InputError: For an unknown loss or option, a value it does not accept, a reduction other than the mean,
            ``features`` for a loss that needs none, or a variant with the name of another
            loss or a name that no folder can have.
    """
    name = run.registered_loss_name
    objects = run.recipe.objects
    is_object = objects is not None and name in objects.losses
    if name not in LOSSES and not is_object:
        names = [
            *LOSSES,
            *(variant for variant, options in run.recipe.losses.items() if "loss" in options),
        ]
        raise InputError("the loss must be registered", repr(name), suggestion(name, names))
    # The name of a variant becomes that of a folder and must not hide a registered loss.
    if name != run.loss and (
        run.loss in LOSSES or not re.fullmatch(r"[a-z0-9][a-z0-9+._-]*", run.loss)
    ):
        raise InputError(
            "a loss variant must have a new name of lower-case letters, digits and + . _ -",
            f"{run.loss!r} for {name!r}",
            f"Call it e.g. {name}-variant.",
        )
    offered: dict[str, Any] = {
        "num_classes": num_classes,
        "num_samples": num_samples,
        "num_epochs": run.recipe.train.epochs,
        "num_features": num_features,
    }
    loss: torch.nn.Module = (
        objects.build("loss", name, run.loss_options, **offered)
        if is_object
        else LOSSES.builder(name, run.loss_options, **offered)()
    )
    # An option without effect is refused, since a reader of the recipe would trust it.
    if run.features != "head" and "features" not in getattr(loss, "needs", ()):
        raise InputError(
            f"features must be set only for a loss that uses features, unlike {run.loss}",
            f"features={run.features!r} for {name}",
            "Leave it out.",
        )
    if (reduction := getattr(loss, "reduction", "mean")) != "mean":
        raise InputError(
            f"reduction must be 'mean' for {run.loss}, because training needs one number per batch",
            repr(reduction),
            "Leave it out.",
        )
    return loss


def checked_target_loss(run: Run, loss: torch.nn.Module) -> Any:
    """Return the module in ``loss`` that takes cross-fitted targets, or None; require ``data.cross_fit`` for it.

    Raises:
        InputError: If there is such a module and the recipe does not set ``data.cross_fit``.
    """
    taker = find_target_loss(loss)
    if taker is not None and run.recipe.data.cross_fit is None:
        raise InputError(
            f"{run.loss} requires data.cross_fit, the number of models that predict its targets",
            "none",
            "Add --set data.cross_fit=2, which costs as much as one more training; 3 costs two.",
        )
    return taker


def find_target_loss(loss: torch.nn.Module) -> Any:
    """Return the first module in ``loss`` that takes cross-fitted targets, or None."""
    return next((module for module in loss.modules() if hasattr(module, "set_targets")), None)
