"""What a bench would do: every run, about how many steps it takes, and where its results would go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.lab.bench.executors import Executor, Task
from fedlas.lab.bench.suite import Group
from fedlas.lab.data import DATASETS, load_dataset
from fedlas.lab.recipes.plan import Run
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.train import read_log


@dataclass(frozen=True)
class Forecast:
    """One run, before it is done.

    Attributes:
        run: The run.
        steps: About how many optimizer steps it takes from the start; None if nobody knows how large its data is.
        left: About how many of them are still to be done.
        state: ``new``, ``finished``, ``failed before`` or how far it has come.
    """

    run: Run
    steps: int | None
    left: int | None
    state: str


def train_size(recipe: Recipe) -> int | None:
    """About how many images a run of the recipe trains on, from what is published of its data set.

    No file is read: a data set that must be read to be counted, and has no published size, gives None.
    """
    data = recipe.data
    about = DATASETS[data.name].metadata
    expected = about.get("expected")
    if expected is not None:
        total, classes = expected.train, expected.classes
    elif "files" not in about:  # embedded or computed, so there is nothing to read
        source = load_dataset(data.name, **data.options)
        total, classes = len(source.train), source.num_classes
    else:
        return data.train_size
    if data.hold_out_classes:
        kept = max(1, classes - len(data.hold_out_classes))
        total, classes = round(total * kept / classes), kept
    held_out = data.val_size if data.val_size >= 1 else data.val_size * total
    left = total - math.ceil(held_out)
    if data.train_size is not None:
        left = min(left, data.train_size)
    if data.long_tail is not None:
        shares = (data.long_tail ** (-c / max(1, classes - 1)) for c in range(classes))
        left = round(left * sum(shares) / classes)
    return max(left, 1)


def forecast(run: Run) -> Forecast:
    """What is known of a run before it starts; its folder is looked at, its data is not."""
    train, images = run.recipe.train, train_size(run.recipe)
    if images is None:
        each = None
    elif train.drop_last and images >= train.batch_size:
        each = images // train.batch_size
    else:
        each = math.ceil(images / train.batch_size)
    done = _epochs_done(run.folder)
    if (run.folder / "metrics.json").exists():
        state, done = "finished", train.epochs
    elif done:
        state = f"goes on after epoch {done}"
    else:
        state = "failed before" if (run.folder / "error.txt").exists() else "new"
    total = None if each is None else each * train.epochs
    left = None if each is None else each * max(0, train.epochs - done)
    return Forecast(run, total, left, state)


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
    console = require("rich.console", extra="bench").Console(highlight=False, markup=False, soft_wrap=True)
    if len(group.recipes) > 1:
        console.print(f"{group.name}: {group.title}")
    forecasts: list[Forecast] = []
    for recipe, runs in group.plan(losses=losses, seeds=seeds, out=out):
        found = [forecast(run) for run in runs]
        console.print(f"\n{recipe.name}: {recipe.title}")
        todo = [Task.of(f.run, f.run.name) for f in found if f.state != "finished"]
        told = executor.describe(todo) if executor is not None and todo else []
        for line in [*_about(recipe), *_table(found), *_missing(recipe), *told]:
            console.print(f"  {line}")
        forecasts += found
    console.print(f"\n{_totals(forecasts)}")
    for command in group.then:
        console.print(f"then: {command}")
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
    parts = [
        f"{len(forecasts)} runs, {finished} of them finished",
        f"about {steps:,} steps, {left:,} of them left",
        f"about {f'{batches / 1e6:,.1f} million' if batches >= 1e6 else f'{batches:,}'} training images left to pass",
    ]
    return "; ".join(parts) + (f"; {unknown} runs not counted, of data of unknown size" if unknown else "")


def _epochs_done(folder: Path) -> int:
    if not (folder / "checkpoint.pt").exists():
        return 0
    try:
        return len(read_log(folder / "log.jsonl"))
    except (InputError, ValueError, KeyError):  # the run itself will say what is wrong with it
        return 0
