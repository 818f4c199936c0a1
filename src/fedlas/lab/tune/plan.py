"""A whole study before it starts: every method with its space, its trials, its runs and their folders, all checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas.lab.recipes.plan import Run, build_loss, plan
from fedlas.lab.recipes.recipe import Recipe, load_recipe, recipe_from
from fedlas.lab.recipes.text import apply_override, read_content
from fedlas.lab.tune.goal import Goal, goal_named
from fedlas.lab.tune.options import set_option
from fedlas.lab.tune.space import Method, is_recipe_key, methods_of

FORMAT = 1


@dataclass(frozen=True)
class Tuning:
    """A study. Made by :func:`plan_tuning`.

    Attributes:
        source: The recipe, as it was named.
        content: What its file says, overrides applied.
        recipe: The recipe.
        methods: What is tuned.
        seeds: Seeds that every trial is run with.
        budget: Trials of each method.
        goal: What they are compared by.
        draws: Seed of what is drawn.
        folder: Where everything goes.
        data: Where the data is; None searches the usual places.
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

    def trial_folder(self, method: Method, number: int) -> Path:
        """Where a trial's runs are."""
        return self.folder / "trials" / method.name / f"{number:03d}"

    def runs(self, method: Method, number: int, params: Mapping[str, Any]) -> list[Run]:
        """The runs of a trial, one a seed.

        Raises:
            InputError: If recipe or loss cannot be made with these parameters.
        """
        recipe = self.recipe_with(method, params)
        place = self.trial_folder(method, number)
        return [Run(recipe, method.name, seed, place / f"s{seed}") for seed in self.seeds]

    def recipe_with(self, method: Method, params: Mapping[str, Any]) -> Recipe:
        """The recipe with other parameters of one method.

        Raises:
            InputError: If the recipe, or its loss, cannot be made with them.
        """
        content = self.content_with({method.name: params})
        if any(map(is_recipe_key, params)):
            recipe = recipe_from(self.recipe.name, content).with_data_root(self.data)
        else:  # the same, without reading everything again
            losses = {loss: dict(options or {}) for loss, options in (content.get("losses") or {}).items()}
            recipe = replace(self.recipe, losses=losses)
        build_loss(Run(recipe, method.name, self.seeds[0], self.folder), num_classes=10, num_samples=1000)
        return recipe

    def content_with(self, params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What the recipe's file would say with other parameters of some methods, by their names."""
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
        """What another study may not differ in, plain values only: ``study.yaml``."""
        methods = {}
        for method in self.methods:
            whole = Run(self.recipe, method.name, self.seeds[0], self.folder).config()
            loss = whole.pop("loss")
            del whole["seed"]
            methods[method.name] = {"loss": loss, "space": {key: domain.text for key, domain in method.space.items()}}
        shared = {"objective": self.goal.metric, "seeds": list(self.seeds), "sampler_seed": self.draws}
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
) -> Tuning:
    """Check everything that can be checked before anything is trained.

    Args:
        source: Recipe of the package, or path of a ``.yaml`` file.
        overrides: As ``--set`` takes them.
        losses: Losses of the recipe; none means the recipe's methods.
        trials: Budget of each method, the preset's trial included.
        objective: Validation metric.
        seeds: Seeds of every trial, at least one.
        space: As :func:`fedlas.lab.tune.space.methods_of` takes it.
        draws: Seed of what is drawn.
        out: Folder; None is ``runs/tune/RECIPE``.
        data: Where the data is; None searches the usual places.

    Raises:
        InputError: For whatever of it cannot be used, a range that reaches beyond what its loss accepts included.
    """
    check_count("fedlas tune", "trials", trials)
    check_count("fedlas tune", "sampler seed", draws, low=0)
    goal = goal_named(objective)
    recipe = load_recipe(source, overrides).with_data_root(data)
    _, content = read_content(source)
    for override in overrides:
        apply_override(content, override)
    folder = out or Path("runs") / "tune" / recipe.name
    runs = plan(recipe, losses=losses, seeds=seeds, out=folder)
    names = list(dict.fromkeys(run.loss for run in runs))
    chosen = tuple(dict.fromkeys(run.seed for run in runs))
    methods = tuple(methods_of(recipe, names, space))
    tuning = Tuning(source, content, recipe, methods, chosen, trials, goal, draws, folder, data)
    for method in methods:
        _check_space(tuning, method)
    return tuning


def _check_space(tuning: Tuning, method: Method) -> None:
    """Refuse what recipe or loss would refuse once it was drawn."""
    cases: list[tuple[str, dict[str, Any]]] = []
    for key, domain in method.space.items():
        cases += [(f"{method.name}.{key}={domain.text}", {key: value}) for value in domain.probes]
    for end in (0, -1):
        corner = {key: domain.probes[end] for key, domain in method.space.items()}
        cases.append((f"the {'upper' if end else 'lower'} ends of {method.name}'s ranges together", corner))
    for what, params in cases:
        try:
            _plan_one(tuning, method, params)
        except InputError as error:
            shown = ", ".join(f"{key} {value!r}" for key, value in params.items())
            raise InputError(
                "--space",
                f"{what} must be accepted wherever it is searched",
                f"at {shown}: {str(error).rstrip('.')}",
                f"Narrow it: --space {method.name}.{next(iter(params))}=LOW:HIGH, with :int for whole numbers.",
            ) from error


def _plan_one(tuning: Tuning, method: Method, params: Mapping[str, Any]) -> None:
    recipe = tuning.recipe_with(method, params)
    if recipe.model != tuning.recipe.model:  # a misspelt option of the model is found by the plan alone
        plan(recipe, losses=[method.name], seeds=tuning.seeds, out=tuning.folder)
