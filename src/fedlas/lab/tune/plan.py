"""The plan of a study, checked before it starts: methods with their spaces, trials, runs and folders."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.terminal import say
from fedlas.lab.recipes.plan import Run, plan
from fedlas.lab.recipes.recipe import Recipe, load_recipe, recipe_from
from fedlas.lab.recipes.text import apply_override, read_content
from fedlas.lab.runs.forecast import forecast
from fedlas.lab.train import check_select
from fedlas.lab.train.selection import REFINED, merit, refined_nll
from fedlas.lab.tune.space import Method, is_recipe_key, methods_of, set_option
from fedlas.metrics import METRICS, evaluate
from fedlas.predictions import Predictions

__all__ = ["Tuning", "dry_run", "plan_tuning"]


@dataclass(frozen=True)
class Tuning:
    """A study. Made by :func:`plan_tuning`.

    Attributes:
        source: Name or path of the recipe, as the user wrote it.
        content: Content of its file, with overrides applied.
        recipe: The recipe.
        methods: The tuned methods.
        seeds: Seeds that every trial is run with.
        budget: Trials of each method.
        objective: Metric of the validation part by which trials are compared, or ``refined_nll``.
        folder: Folder of the study.
        data: Folder of the data; None searches the usual places.
    """

    source: str
    content: dict[str, Any]
    recipe: Recipe
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    budget: int
    objective: str
    folder: Path
    data: str | None = None

    @property
    def title(self) -> str:
        """The objective in tables."""
        return "refined NLL" if self.objective == REFINED else str(METRICS[self.objective].metadata["title"])

    def value(self, val: Predictions) -> float:
        """Return the objective of validation predictions."""
        if self.objective == REFINED:
            return refined_nll(val)
        value = evaluate(val, num_bins=self.recipe.train.num_bins)[self.objective]
        return abs(value) if METRICS[self.objective].metadata["higher_is_better"] is None else value

    @property
    def maximize(self) -> bool:
        """Whether a higher objective is better."""
        return merit(self.objective, 1.0) > merit(self.objective, 0.5)

    def runs(self, method: Method, number: int, params: Mapping[str, Any]) -> list[Run]:
        """Return the runs of a trial, one per seed.

        Raises:
            InputError: If the recipe or the loss does not accept these parameters.
        """
        content = self.content_with({method.name: params})
        recipe = recipe_from(self.recipe.name, content).with_data_root(self.data)
        return plan(recipe, losses=[method.name], seeds=self.seeds, out=self.trial_folder(method, number))

    def trial_folder(self, method: Method, number: int) -> Path:
        """Return the folder of a trial's runs."""
        return self.folder / "trials" / method.name / f"{number:03d}"

    def content_with(self, params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the content of the recipe's file with other parameters of some methods, by name."""
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

    def config(self, method: Method) -> dict[str, Any]:
        """Return plain values in which a resumed study of a method must not differ."""
        config = Run(self.recipe, method.name, self.seeds[0], self.folder).config()
        space = {key: str(domain) for key, domain in method.space.items()}
        return {**config, "seed": list(self.seeds), "objective": self.objective, "space": space}


def plan_tuning(
    source: str,
    overrides: Sequence[str] = (),
    *,
    losses: Sequence[str] = (),
    trials: int = 20,
    objective: str = REFINED,
    seeds: Sequence[int] = (0,),
    space: Sequence[str] = (),
    out: Path | None = None,
    data: str | None = None,
) -> Tuning:
    """Plan a study, and check everything that can be checked before training.

    Args:
        source: Recipe of the package, or path of a ``.yaml`` file.
        overrides: ``key=value``, as ``--set`` takes them.
        losses: Losses of the recipe; empty means the recipe's methods.
        trials: Budget of each method, including the preset's trial.
        objective: Metric of the validation part, or ``refined_nll``.
        seeds: Seeds of every trial, at least one.
        space: Ranges, as :func:`fedlas.lab.tune.space.methods_of` takes them.
        out: Folder; None is ``runs/tune/RECIPE``.
        data: Folder of the data; None searches the usual places.

    Raises:
        InputError: For an argument that cannot be used, including a range with values that its loss does not accept.
    """
    check_count("fedlas tune", "trials", trials)
    try:
        objective = check_select(objective)
    except InputError as error:
        raise InputError("--objective", *error.parts[1:]) from None
    recipe = load_recipe(source, overrides).with_data_root(data)
    # The best settings are later written into the recipe's text, with the overrides.
    _, content = read_content(source)
    for override in overrides:
        apply_override(content, override)
    folder = out or Path("runs") / "tune" / recipe.name
    runs = plan(recipe, losses=losses, seeds=seeds, out=folder)
    methods = tuple(methods_of(recipe, list(dict.fromkeys(run.loss for run in runs)), space))
    tuning = Tuning(source, content, recipe, methods, tuple(seeds), trials, objective, folder, data)
    for method in methods:
        _check_space(tuning, method)
    return tuning


def _check_space(tuning: Tuning, method: Method) -> None:
    """Refuse a space with values that the recipe or the loss does not accept: it would end a trial hours later."""
    # The ends of each range alone, and the corners that all ends make together.
    cases: list[dict[str, Any]] = [{key: v} for key, domain in method.space.items() for v in domain.probes]
    cases += [{key: domain.probes[end] for key, domain in method.space.items()} for end in (0, -1)]
    for params in cases:
        try:
            tuning.runs(method, 0, params)
        except InputError as error:
            shown = ", ".join(f"{key} {value!r}" for key, value in params.items())
            raise InputError(
                "--space",
                f"every value of {method.name}'s ranges must be accepted",
                f"at {shown}: {str(error).rstrip('.')}",
                f"Narrow it: --space {method.name}.{next(iter(params))}=LOW:HIGH, with :int for whole numbers.",
            ) from error


def dry_run(tuning: Tuning) -> None:
    """Print what a study would do: the space, trials, runs and steps of every method."""
    seeds, epochs = len(tuning.seeds), tuning.recipe.train.epochs
    say(f"{tuning.recipe.name}: {tuning.budget} trials x {seeds} seeds x {epochs} epochs a method, {tuning.title}")
    for method in tuning.methods:
        runs = method.trials(tuning.budget) * seeds
        steps = forecast(tuning.runs(method, 0, {})[0]).steps
        say(f"  {method.name}: {runs} runs{'' if steps is None else f', about {runs * steps:,} steps'}")
        say(*(f"    {key}: {domain}, preset {method.preset[key]}" for key, domain in method.space.items()))
    say(f"results in {tuning.folder}")
