"""The plan of a study, checked before it starts: methods with their spaces, trials, runs and folders."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.ranks import new_accelerator
from fedlas.lab.recipes.plan import Run, build_loss, plan
from fedlas.lab.recipes.recipe import Recipe, load_recipe, recipe_from
from fedlas.lab.recipes.text import apply_override, parse_yaml, read_content
from fedlas.lab.runs.settle import decided
from fedlas.lab.train import TrainConfig
from fedlas.lab.train.machine import suited
from fedlas.lab.tune.goal import Goal, goal_named
from fedlas.lab.tune.options import set_option
from fedlas.lab.tune.space import Method, is_recipe_key, methods_of

__all__ = ["FORMAT", "STUDY", "Tuning", "plan_tuning"]

FORMAT = 1
STUDY = "study.yaml"
"""What a study is, in its folder."""


@dataclass(frozen=True)
class Tuning:
    """A study. Made by :func:`plan_tuning`.

    Attributes:
        source: Name or path of the recipe, as the user gave it.
        content: Content of its file, with overrides applied.
        recipe: The recipe.
        methods: The tuned methods.
        seeds: Seeds that every trial is run with.
        budget: Trials of each method.
        goal: Objective by which trials are compared.
        draws: Seed of the sampler.
        folder: Folder of the study.
        data: Folder of the data; None searches the usual places.
        batch: Trials of a method that are drawn from the same earlier ones, so that they can be done at the same time.
    """

    source: str
    content: dict[str, Any]
    recipe: Recipe
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    budget: int
    goal: Goal
    draws: int
    folder: Path
    data: str | None = None
    batch: int = 1

    def trial_folder(self, method: Method, number: int) -> Path:
        """Folder of a trial's runs."""
        return self.folder / "trials" / method.name / f"{number:03d}"

    def runs(self, method: Method, number: int, params: Mapping[str, Any]) -> list[Run]:
        """The runs of a trial, one per seed.

        Raises:
            InputError: If the recipe or the loss does not accept these parameters.
        """
        recipe = self.recipe_with(method, params)
        place = self.trial_folder(method, number)
        return [Run(recipe, method.name, seed, place / f"s{seed}") for seed in self.seeds]

    def recipe_with(self, method: Method, params: Mapping[str, Any]) -> Recipe:
        """The recipe with other parameters of one method.

        Raises:
            InputError: If the recipe or the loss does not accept them.
        """
        content = self.content_with({method.name: params})
        if any(map(is_recipe_key, params)):
            recipe = recipe_from(self.recipe.name, content).with_data_root(self.data)
        else:  # the same, without checking the whole recipe again
            losses = {loss: dict(options or {}) for loss, options in (content.get("losses") or {}).items()}
            recipe = replace(self.recipe, losses=losses)
        build_loss(Run(recipe, method.name, self.seeds[0], self.folder), num_classes=10, num_samples=1000)
        return recipe

    def content_with(self, params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Content of the recipe's file with other parameters of some methods, by name."""
        content = copy.deepcopy(self.content)
        for loss, values in params.items():
            for key, value in values.items():
                if is_recipe_key(key):
                    section, _, name = key.partition(".")
                    content[section] = {**(content.get(section) or {}), name: value}
                else:
                    content["losses"] = content.get("losses") or {}
                    set_option(self.recipe, content["losses"], loss, key, value)
        return content

    def config(self) -> dict[str, Any]:
        """Plain values for ``study.yaml``, in which a resumed study must not differ."""
        methods = {}
        for method in self.methods:
            whole = Run(self.recipe, method.name, self.seeds[0], self.folder).config()
            loss = whole.pop("loss")
            del whole["seed"]
            methods[method.name] = {"loss": loss, "space": {key: domain.text for key, domain in method.space.items()}}
        shared = {"objective": self.goal.metric, "seeds": list(self.seeds), "sampler_seed": self.draws}
        shared |= {"batch": self.batch} if self.batch > 1 else {}  # studies of earlier versions have none
        return {"format": FORMAT, **shared, "methods": methods, **whole}


def plan_tuning(
    source: str,
    overrides: Sequence[str] = (),
    *,
    losses: Sequence[str] = (),
    trials: int = 20,
    objective: str = "nll",
    seeds: Sequence[int] = (0,),
    space: Sequence[str] = (),
    draws: int = 0,
    out: Path | None = None,
    data: str | None = None,
    batch: int = 1,
) -> Tuning:
    """Plan a study, and check everything that can be checked before training.

    Args:
        source: Recipe of the package, or path of a ``.yaml`` file.
        overrides: ``key=value``, as ``--set`` takes them.
        losses: Losses of the recipe; empty means the recipe's methods.
        trials: Budget of each method, including the preset's trial.
        objective: Validation metric.
        seeds: Seeds of every trial, at least one.
        space: Ranges, as :func:`fedlas.lab.tune.space.methods_of` takes them.
        draws: Seed of the sampler.
        out: Folder; None is ``runs/tune/RECIPE``.
        data: Folder of the data; None searches the usual places.
        batch: Trials of a method that are drawn at a time, at least 1.

    Raises:
        InputError: For an argument that cannot be used, including a range with values that its loss does not accept.
    """
    check_count("fedlas tune", "trials", trials)
    check_count("fedlas tune", "sampler seed", draws, low=0)
    check_count("fedlas tune", "batch", batch)
    goal = goal_named(objective)
    recipe = load_recipe(source, overrides)
    folder = out or Path("runs") / "tune" / recipe.name
    # What the recipe leaves to the machine is decided once: trials of two machines must stay comparable.
    overrides = [*overrides, *_decisions(recipe.train, folder)]
    recipe = load_recipe(source, overrides).with_data_root(data)
    # The recipe as text, with the overrides, is what the best settings are later written into.
    _, content = read_content(source)
    for override in overrides:
        apply_override(content, override)
    runs = plan(recipe, losses=losses, seeds=seeds, out=folder)
    names = list(dict.fromkeys(run.loss for run in runs))
    chosen = tuple(dict.fromkeys(run.seed for run in runs))
    methods = tuple(methods_of(recipe, names, space))
    tuning = Tuning(source, content, recipe, methods, chosen, trials, goal, draws, folder, data, batch)
    for method in methods:
        _check_space(tuning, method)
    return tuning


def _decisions(train: TrainConfig, folder: Path) -> list[str]:
    """Overrides for what the recipe leaves to the machine, so that all trials of a study have the same."""
    try:
        begun = parse_yaml((folder / STUDY).read_text(encoding="utf-8"), STUDY)["train"]
        ready = decided(train, begun)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet; what is wrong with it is said later
        ready = suited(train, new_accelerator().device)
    return (
        []
        if ready == train
        else [f"train.precision={ready.precision}", f"train.channels_last={str(ready.channels_last).lower()}"]
    )


def _check_space(tuning: Tuning, method: Method) -> None:
    """Refuse a space with values that the recipe or the loss does not accept."""
    # The ends of each range alone, and the corners that all ends make together.
    cases: list[tuple[str, dict[str, Any]]] = []
    for key, domain in method.space.items():
        cases += [(f"{method.name}.{key}={domain.text}", {key: value}) for value in domain.probes]
    for end in (0, -1):
        corner = {key: domain.probes[end] for key, domain in method.space.items()}
        cases.append((f"the {'upper' if end else 'lower'} ends of {method.name}'s ranges together", corner))
    # A setting that is refused now would end a trial hours later.
    for what, params in cases:
        try:
            recipe = tuning.recipe_with(method, params)
            if recipe.model != tuning.recipe.model:  # only the plan checks options of the model
                plan(recipe, losses=[method.name], seeds=tuning.seeds, out=tuning.folder)
        except InputError as error:
            shown = ", ".join(f"{key} {value!r}" for key, value in params.items())
            raise InputError(
                "--space",
                f"{what} must be accepted wherever it is searched",
                f"at {shown}: {str(error).rstrip('.')}",
                f"Narrow it: --space {method.name}.{next(iter(params))}=LOW:HIGH, with :int for whole numbers.",
            ) from error
