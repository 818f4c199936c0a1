"""From a recipe to runs: recipe x losses x seeds, checked before the first one starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError, check_count
from fedlas.bench.recipe import Recipe
from fedlas.data import DATASETS
from fedlas.losses import LOSSES
from fedlas.metrics import METRICS
from fedlas.models import MODELS


@dataclass(frozen=True)
class Run:
    """One run: a recipe, a loss, a seed, and the folder that everything about it goes to.

    Attributes:
        recipe: The recipe, overrides applied.
        loss: Registry name of the loss.
        seed: Whole number; decides split, data order and initial weights, the same for every loss.
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
    def loss_options(self) -> dict[str, Any]:
        """Options of the loss in this recipe."""
        return self.recipe.losses.get(self.loss, {})

    def config(self) -> dict[str, Any]:
        """Resolved configuration, plain values only: what ``config.yaml`` holds and a checkpoint is compared with.

        Where the data lies is left out: the same run on another machine is the same run.
        """
        recipe = asdict(self.recipe)
        for key in ("methods", "seeds", "losses", "title"):
            del recipe[key]
        del recipe["data"]["root"]
        name = recipe.pop("name")
        return {"recipe": name, "loss": {"name": self.loss, **self.loss_options}, "seed": self.seed, **recipe}


def plan(
    recipe: Recipe, *, losses: Sequence[str] = (), seeds: Iterable[int] = (), out: Path | None = None
) -> list[Run]:
    """All runs of a bench, seed by seed so that every method has a first result early.

    Args:
        recipe: What to run.
        losses: Registry names; none means the recipe's methods, ``["all"]`` every registered loss.
        seeds: None means the recipe's.
        out: Folder of the bench; None is ``runs/RECIPE``.

    Raises:
        InputError: For an unknown loss, data set, model, metric or option of a loss, or a number twice.
    """
    names = list(losses) or recipe.methods
    if names == ["all"]:
        names = list(LOSSES)
    chosen = list(seeds) or recipe.seeds
    for kind, values in (("losses", names), ("seeds", chosen)):
        if len(set(values)) != len(values):
            raise InputError("bench", f"{kind} must differ from each other", values, "Name each once.")
    if not names:
        raise InputError("bench", "there must be a loss to run", "none", "Name one with --losses.")
    for seed in chosen:
        check_count("bench", "seeds", seed, low=0)
    DATASETS[recipe.data.name]
    MODELS[recipe.model.name]
    METRICS[recipe.train.select]
    for loss in [*names, *recipe.losses]:
        LOSSES[loss]
    folder = out or Path("runs") / recipe.name
    runs = [Run(recipe, loss, seed, folder / f"{loss}-s{seed}") for seed in chosen for loss in names]
    for run in runs[: len(names)]:
        build_loss(run, num_classes=10)
    return runs


def build_loss(run: Run, *, num_classes: int) -> torch.nn.Module:
    """The loss of a run.

    Raises:
        InputError: For an option the loss does not have, or a value it does not accept.
    """
    loss: torch.nn.Module = LOSSES.build(run.loss, run.loss_options, num_classes=num_classes)
    return loss
