"""What a bench would do: every run, about how many steps it takes, and where its results would go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlas._core.terminal import say
from fedlas.lab.bench.executors import Executor, Task
from fedlas.lab.bench.suite import Group
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.runs.find import check_bench_folder
from fedlas.lab.runs.forecast import Forecast, forecast, train_size


def dry_run(
    group: Group,
    *,
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (),
    out: Path | None = None,
    executor: Executor | None = None,
) -> int:
    """Check everything that can be checked without data, and print what would be done; no run folder is written.

    An executor that submits scripts writes them, to be looked at, beside where the runs would be.

    Returns:
        0.

    Raises:
        InputError: As the bench itself would raise before its first run.
    """
    if len(group.recipes) > 1:
        say(f"{group.name}: {group.title}")
    forecasts: list[Forecast] = []
    for recipe, runs in group.plan(losses=losses, seeds=seeds, out=out):
        check_bench_folder(runs[0].folder.parent)
        found = [forecast(run) for run in runs]
        say("", f"{recipe.name}: {recipe.title}")
        todo = [Task.of(f.run, f.run.name) for f in found if f.state != "finished"]
        told = executor.describe(todo) if executor is not None and todo else []
        say(*(f"  {line}" for line in [*_about(recipe), *_table(found), *_missing(recipe), *told]))
        forecasts += found
    say("", _totals(forecasts), *(f"then: {command}" for command in group.then))
    return 0


def _about(recipe: Recipe) -> list[str]:
    train, images = recipe.train, train_size(recipe)
    size = "a number of images that is known when they are read" if images is None else f"about {images:,} images"
    return [f"{recipe.model.name} on {size} of {recipe.data.name}, {train.epochs} epochs, batch {train.batch_size}"]


def _table(forecasts: Sequence[Forecast]) -> list[str]:
    rows = [(f.run.name, "?" if f.steps is None else f"{f.steps:,}", f.state, str(f.run.folder)) for f in forecasts]
    rows = [("run", "steps", "state", "folder"), *rows]
    name, steps, state = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:{name}}  {row[1]:>{steps}}  {row[2]:{state}}  {row[3]}" for row in rows]


def _missing(recipe: Recipe) -> list[str]:
    weights = recipe.model.weights
    if weights is None or Path(weights).is_file():
        return []
    return [f"missing: {weights}, the pre-trained weights; --set model.weights=FILE says where they are"]


def _totals(forecasts: Sequence[Forecast]) -> str:
    counted = [f for f in forecasts if f.steps is not None and f.left is not None]
    steps, left = sum(f.steps or 0 for f in counted), sum(f.left or 0 for f in counted)
    batches = sum((f.left or 0) * f.run.recipe.train.batch_size for f in counted)
    finished = sum(f.state == "finished" for f in forecasts)
    unknown = len(forecasts) - len(counted)
    parts = [f"{len(forecasts)} runs, {finished} of them finished"]
    if counted:
        images = f"{batches / 1e6:,.1f} million" if batches >= 1e6 else f"{batches:,}"
        parts += [f"about {steps:,} steps, {left:,} of them left", f"about {images} training images left to pass"]
    if unknown:
        parts.append(f"steps of {unknown} runs unknown: their data is not there to be counted")
    return "; ".join(parts)
