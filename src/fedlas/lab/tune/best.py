"""Outcome of a tuning study: a table, and the recipe ``best.yaml`` with seeds that were not used for tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.files import write_text
from fedlas._core.text import comment_line
from fedlas.lab.recipes.yaml_text import dump_yaml
from fedlas.lab.tune.space import TunedMethod, format_params, is_recipe_key
from fedlas.lab.tune.study import TuningStudy, add_loss_variant, load_studies
from fedlas.present.table import Table, make_table

if TYPE_CHECKING:
    import optuna

RankedTrials = Mapping[str, list[Any]]
"""Finished trials of each method, best first; diverged trials have the value None and come last."""


def rank_trials(tuning: TuningStudy) -> RankedTrials:
    """Return the finished trials of each method, best first, as ``optuna.trial.FrozenTrial``."""
    sign = -1 if tuning.maximize else 1
    return {
        name: sorted(
            (trial for trial in study.get_trials(deepcopy=False) if trial.datetime_complete),
            key=lambda trial: (trial.value is None, sign * (trial.value or 0)),
        )
        for name, study in load_studies(tuning).items()
    }


def outcome_table(tuning: TuningStudy, ranked: RankedTrials) -> Table:
    """Return a table of preset and best trial, one row per method."""
    rows = []
    for method in tuning.methods:
        trials = ranked[method.name]
        diverged = sum(trial.value is None for trial in trials)
        rows.append(
            [
                method.name,
                *(
                    _format_value(trial)
                    for trial in (next(t for t in trials if t.number == 0), trials[0])
                ),
                format_params(method.params(trials[0])) or "nothing to tune",
                f"{len(trials)}" + (f", {diverged} diverged" if diverged else ""),
            ]
        )
    better = "higher" if tuning.maximize else "lower"
    title = f"{tuning.title} of the validation part, {better} is better"
    return make_table(
        ("method", "preset", "best", "best parameters", "trials"),
        rows,
        title=title,
        left_aligned=(0, 3, 4),
    )


def write_best_recipe(tuning: TuningStudy, ranked: RankedTrials) -> Path | None:
    """Write ``best.yaml``, a recipe with presets and best settings, or return None if every trial diverged.

    The best setting of ``ls`` is its variant ``ls-tuned``. If keys of the recipe were tuned, methods no longer share a
    recipe: each gets ``best-LOSS.yaml`` with its best setting, and ``best.yaml`` is their group.
    """
    best = [(m, ranked[m.name][0]) for m in tuning.methods if ranked[m.name][0].value is not None]
    if not best:
        return None
    title = f"{tuning.recipe.title}, tuned ({tuning.title}, {tuning.budget} trials)"
    first = max(tuning.seeds) + 1
    content: dict[str, Any] = {**tuning.content, "title": title, "methods": []}
    content["seeds"] = list(range(first, first + len(tuning.recipe.seeds)))
    if any(is_recipe_key(key) for method, _ in best for key in method.ranges):
        files = []
        for method, trial in best:
            files.append(f"best-{method.name}.yaml")
            _write_recipe(
                tuning,
                files[-1],
                _add_best_variant({**content, "title": f"{title}: {method.name}"}, method, trial),
            )
        return _write_recipe(tuning, "best.yaml", {"title": title, "recipes": files})
    for method, trial in best:
        if trial.number:
            content["methods"].append(method.name)
        content = _add_best_variant(content, method, trial)
    return _write_recipe(tuning, "best.yaml", content)


def _add_best_variant(
    content: dict[str, Any], method: TunedMethod, trial: optuna.trial.FrozenTrial
) -> dict[str, Any]:
    """Return the content of a recipe with the best setting of a method added as another method."""
    name = f"{method.name}-tuned" if trial.number else method.name
    changed = (
        add_loss_variant(content, method.name, name, trial.params) if trial.number else content
    )
    return {**changed, "methods": [*content["methods"], name]}


def _write_recipe(tuning: TuningStudy, name: str, content: dict[str, Any]) -> Path:
    head = comment_line(
        f"Written by fedlas tune from the recipe {tuning.recipe.name}, with seeds that tuning did not use."
    )
    text = dump_yaml(
        content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )
    return write_text(tuning.folder / name, f"{head}\n{text}")


def _format_value(trial: optuna.trial.FrozenTrial) -> str:
    return "—" if trial.value is None else f"{trial.value:.4f}"
