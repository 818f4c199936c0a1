"""``best.yaml``: a recipe of the best settings, which ``fedlas bench`` runs with seeds that tuning has not used.

It holds the whole recipe, so that a later bench measures what was tuned even if the tuned recipe changes. For each
tuned method it also has the preset under another name, so that one bench can compare the two.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.space import is_recipe_key
from fedlas.lab.tune.summary import Outcome, listed


def write_best(tuning: Tuning, outcomes: Sequence[Outcome]) -> list[Path]:
    """Write the recipes of the methods that have a best trial.

    A recipe has one optimizer and one model for all its losses. So if keys of the recipe were tuned too, each method
    gets its own recipe ``best-LOSS.yaml``, ``best.yaml`` is the group of them, and ``preset.yaml`` has the presets.

    Returns:
        The written files; none if no trial is done.
    """
    best = _found(outcomes)
    if not best:
        return []
    title = f"{tuning.recipe.title}, tuned ({tuning.goal.metric}, {tuning.budget} trials)"
    # One recipe for all methods, where they differ in options of losses only.
    if not _apart(outcomes):
        content = _content(tuning, title, best)
        losses = content["losses"] = content.get("losses") or {}
        before = tuning.content.get("losses") or {}
        for name, untuned in _untuned(tuning, outcomes).items():
            losses[untuned] = {"loss": name, **(before.get(name) or {})}
        return [_write(tuning, "best.yaml", content)]
    # Otherwise, such as with a learning rate each, a recipe a method.
    group = {"title": title, "recipes": [f"best-{name}.yaml" for name in best]}
    alone = [
        _write(tuning, f"best-{name}.yaml", _content(tuning, f"{title}: {name}", {name: params}))
        for name, params in best.items()
    ]
    preset = _content(tuning, tuning.recipe.title, {name: {} for name in best})
    return [_write(tuning, "best.yaml", group), *alone, _write(tuning, "preset.yaml", preset)]


def next_commands(tuning: Tuning, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Commands to run next, each after its purpose; none if no trial is done."""
    best = _found(outcomes)
    if not best:
        return []
    data = ["--data", tuning.data] if tuning.data is not None else []
    seeds = f"seeds {listed(other_seeds(tuning))}, which tuning did not use"
    bench = _command(tuning, "best.yaml", "bench", *data)
    if _apart(outcomes):
        preset = _command(tuning, "preset.yaml", "bench-preset", *data)
        return [(f"the tuned methods on test, {seeds}, one report each", bench), ("the presets", preset)]
    moved = [outcome for outcome in outcomes if outcome.best is not None and not outcome.best.is_preset]
    untuned = _untuned(tuning, moved)
    both = [name for loss in best for name in (loss, untuned.get(loss)) if name is not None]
    commands = [(f"the tuned methods on test, {seeds}", bench)]
    if untuned:
        command = _command(tuning, "best.yaml", "bench", *data, "--losses", *both)
        commands.append(("the same with the presets, and paired tests between all", command))
    return commands


def other_seeds(tuning: Tuning) -> list[int]:
    """As many seeds as the recipe has, none of which tuning used."""
    free = [seed for seed in tuning.recipe.seeds if seed not in tuning.seeds]
    number = max([*tuning.recipe.seeds, *tuning.seeds])
    while len(free) < len(tuning.recipe.seeds):
        number += 1
        free.append(number)
    return free


def _found(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    return {outcome.method.name: dict(outcome.best.params) for outcome in outcomes if outcome.best is not None}


def _apart(outcomes: Sequence[Outcome]) -> bool:
    """Whether methods differ in keys of the recipe, not only in options of their losses."""
    return any(is_recipe_key(key) for outcome in outcomes for key in outcome.method.space)


def _untuned(tuning: Tuning, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """A free name for the preset of each method that was tuned."""
    names = {}
    for outcome in outcomes:
        if outcome.best is not None and outcome.method.space:
            name = f"{outcome.method.name}-preset"
            while name in (tuning.content.get("losses") or {}):
                name += "-preset"
            names[outcome.method.name] = name
    return names


def _content(tuning: Tuning, title: str, params: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The recipe with these methods and their parameters, and seeds that tuning has not used."""
    content = tuning.content_with(params)
    return {**content, "title": title, "methods": list(params), "seeds": other_seeds(tuning)}


def _write(tuning: Tuning, name: str, content: dict[str, Any]) -> Path:
    yaml = require("yaml", extra="bench")
    head = f"# Written by fedlas tune from the recipe {Path(tuning.source).name}, with seeds that tuning did not use.\n"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return write_text(tuning.folder / name, head + text)


def _command(tuning: Tuning, recipe: str, out: str, *more: str) -> str:
    return shlex.join(["fedlas", "bench", str(tuning.folder / recipe), "--out", str(tuning.folder / out), *more])
