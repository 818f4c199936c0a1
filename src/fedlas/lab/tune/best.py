"""The outcome of a study: a table, and ``best.yaml``, which ``fedlas bench`` runs with seeds that are new to it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas._core.yaml_text import dump_yaml
from fedlas.lab.train.config import merit
from fedlas.lab.tune.space import Method, is_recipe_key, params_text
from fedlas.lab.tune.study import Tuning, load_studies
from fedlas.present.table import Table, table_of

__all__ = ["TuningOutcome", "next_command", "outcome_table", "outcomes_of", "tuning_verdict", "write_best"]


@dataclass(frozen=True)
class TuningOutcome:
    """Outcome of one method.

    Attributes:
        method: The method.
        trials: Number of trials that have ended.
        diverged: Number of those that have no value.
        preset: Objective of the preset; None if it diverged.
        value: Objective of the best trial, the first one among equals; None if all diverged.
        params: Its parameters.
    """

    method: Method
    trials: int
    diverged: int
    preset: float | None
    value: float | None
    params: Mapping[str, Any]


def outcomes_of(tuning: Tuning) -> list[TuningOutcome]:
    """Return the outcome of each method from optuna's journal."""
    states = require("optuna.trial", extra="tune").TrialState
    studies, outcomes = load_studies(tuning), []
    for method in tuning.methods:
        trials = studies[method.name].get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        finite = [trial for trial in trials if trial.value is not None]
        best = max(finite, key=lambda trial: merit(tuning.objective, trial.value), default=None)
        preset = next((trial.value for trial in finite if trial.user_attrs["params"] == method.preset), None)
        value, params = (None, {}) if best is None else (best.value, best.user_attrs["params"])
        outcomes.append(TuningOutcome(method, len(trials), len(trials) - len(finite), preset, value, params))
    return outcomes


def outcome_table(tuning: Tuning, outcomes: Sequence[TuningOutcome]) -> Table:
    """Return a row for each method."""
    rows = [
        [
            outcome.method.name,
            _number(outcome.preset),
            _number(outcome.value),
            params_text(outcome.params) if outcome.method.space else "nothing to tune",
            f"{outcome.trials}" + (f", {outcome.diverged} diverged" if outcome.diverged else ""),
        ]
        for outcome in outcomes
    ]
    better = "higher" if tuning.maximize else "lower"
    title = f"{tuning.title} of the validation part, {better} is better"
    return table_of(("method", "preset", "best", "best parameters", "trials"), rows, title=title, text=(0, 3, 4))


def tuning_verdict(tuning: Tuning, outcomes: Sequence[TuningOutcome]) -> list[str]:
    """Return which method and setting is best, and how far one may trust that."""
    finite = [outcome for outcome in outcomes if outcome.value is not None]
    if not finite:
        return ["Every trial diverged. Lower the learning rate or narrow the ranges."]
    best = max(finite, key=lambda outcome: merit(tuning.objective, outcome.value or 0.0))
    setting = f" with {params_text(best.params)}" if best.params else ""
    return [
        f"Best: {best.method.name}{setting}, {tuning.title} {_number(best.value)}.",
        "The best of many trials is optimistic on the validation part that chose it; the test part was not used.",
    ]


def write_best(tuning: Tuning, outcomes: Sequence[TuningOutcome]) -> Path | None:
    """Write ``best.yaml``, the recipe with the best setting of each method; None if every trial diverged.

    It also has the preset of each loss that another setting beats, under another name, so that its bench compares the
    two. If keys of the recipe were tuned, methods no longer share a recipe: each gets ``best-LOSS.yaml``, and
    ``best.yaml`` is their group.
    """
    best = {outcome.method.name: dict(outcome.params) for outcome in outcomes if outcome.value is not None}
    if not best:
        return None
    title = f"{tuning.recipe.title}, tuned ({tuning.title}, {tuning.budget} trials)"
    if any(is_recipe_key(key) for params in best.values() for key in params):
        for name, params in best.items():
            _write(tuning, f"best-{name}.yaml", {**_content(tuning, {name: params}), "title": f"{title}: {name}"})
        return _write(tuning, "best.yaml", {"title": title, "recipes": [f"best-{name}.yaml" for name in best]})
    content, options = _content(tuning, best), tuning.content.get("losses") or {}
    for outcome in outcomes:
        if outcome.value is not None and outcome.params != outcome.method.preset:
            name = preset = outcome.method.name
            while preset == name or preset in options:
                preset += "-preset"
            content["losses"][preset] = {"loss": name, **(options.get(name) or {})}
            content["methods"].append(preset)
    return _write(tuning, "best.yaml", {**content, "title": title})


def next_command(tuning: Tuning) -> str:
    """Return the bench that compares the best settings with the presets on the test part."""
    data = ["--data", tuning.data] if tuning.data is not None else []
    folder = tuning.folder
    return shlex.join(["fedlas", "bench", str(folder / "best.yaml"), "--out", str(folder / "bench"), *data])


def _content(tuning: Tuning, params: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the recipe with these methods and their parameters, and seeds that tuning has not used."""
    first = max([*tuning.recipe.seeds, *tuning.seeds]) + 1
    unused = [seed for seed in tuning.recipe.seeds if seed not in tuning.seeds]
    seeds = [*unused, *range(first, first + len(tuning.recipe.seeds) - len(unused))]
    return {**tuning.content_with(params), "methods": list(params), "seeds": seeds}


def _write(tuning: Tuning, name: str, content: dict[str, Any]) -> Path:
    head = f"# Written by fedlas tune from the recipe {Path(tuning.source).name}, with seeds that tuning did not use.\n"
    text = dump_yaml(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return write_text(tuning.folder / name, head + text)


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"
