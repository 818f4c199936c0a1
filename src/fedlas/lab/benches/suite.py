"""Recipes under one name, such as the cells of a table, and a forecast of their bench."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedlas._core.files import path_inside
from fedlas._core.terminal import say
from fedlas.lab.recipes.planning import Run, plan
from fedlas.lab.recipes.recipe import Recipe, listed, load_recipe, refuse_unknown
from fedlas.lab.recipes.text import is_group, read_content
from fedlas.lab.runs.bench_folder import check_bench_folder
from fedlas.lab.runs.workload import Forecast, count_train_images, forecast

_KEYS = ("title", "recipes", "methods", "seeds", "then")


@dataclass(frozen=True)
class Group:
    """Recipes under one name.

    Attributes:
        name: Its name.
        title: One line that says what it is.
        recipes: One, or those of a group.
        then: Commands that make the group's table or figure of the finished runs.
    """

    name: str
    title: str
    recipes: tuple[Recipe, ...]
    then: tuple[str, ...] = ()

    def folder(self, recipe: Recipe, out: Path | None) -> Path:
        """Return the folder of a recipe's runs: below ``out`` for a group, else ``out``; ``runs/RECIPE`` for None.

        Two groups that share a recipe share its runs, unless ``out`` differs.
        """
        if out is None:
            return Path("runs") / recipe.name
        return out / Path(recipe.name).name if len(self.recipes) > 1 else out

    def plan(
        self, *, losses: Sequence[str] = (), seeds: Sequence[int] = (), out: Path | None = None
    ) -> list[tuple[Recipe, list[Run]]]:
        """Return the runs of each recipe, all checked before the first one starts.

        Raises:
            InputError: As :func:`fedlas.lab.recipes.planning.plan`.
        """
        folders = [self.folder(recipe, out) for recipe in self.recipes]
        for folder in folders:
            if out not in (None, folder):  # a folder in the one that the user named
                path_inside(folder.parent, folder / "results.csv")
        return [
            (recipe, plan(recipe, losses=losses, seeds=seeds, out=folder))
            for recipe, folder in zip(self.recipes, folders, strict=True)
        ]


def load_group(
    name: str,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    trackers: Sequence[str] = (),
) -> Group:
    """Return a group of recipes, or one recipe as a group of its own.

    Args:
        name: As for :func:`fedlas.lab.recipes.recipe.load_recipe`, or the name of a group; files that it names are
            in the same folder.
        overrides: Applied to every recipe.
        data: Where every recipe's data is; None for the recipes' own places.
        trackers: Trackers of every recipe's runs, in addition to the recipe's own.

    Raises:
        InputError: As :func:`fedlas.lab.recipes.recipe.load_recipe`, for any of the recipes.
    """
    overrides = list(overrides)
    _, content = read_content(name)
    if not is_group(content):
        recipe = load_recipe(name, overrides)
        return Group(name, recipe.title, (recipe.with_data_root(data).with_trackers(trackers),))
    refuse_unknown("", content, _KEYS)
    for key in content.keys() - {"title"}:
        listed(content[key], f"{key} of a group")
    # The command line counts more than the group, and the group more than its recipes.
    overridden = {override.partition("=")[0].strip() for override in overrides}
    changes = {
        key: content[key]
        for key in ("methods", "seeds")
        if key in content and key not in overridden
    }
    # A file is relative to the group's folder, like the file that a recipe extends.
    names = [
        str(Path(name).parent / m) if m.endswith((".yaml", ".yml")) else m
        for m in map(str, content["recipes"])
    ]
    loaded = (replace(load_recipe(member, overrides), **changes) for member in names)
    recipes = tuple(each.with_data_root(data).with_trackers(trackers) for each in loaded)
    return Group(
        name, str(content.get("title", name)), recipes, tuple(map(str, content.get("then", ())))
    )


def dry_run_bench(
    group: Group, *, losses: Sequence[str] = (), seeds: Sequence[int] = (), out: Path | None = None
) -> int:
    """Check a bench without training, and print what it would do; no run folder is written.

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
        ahead = [forecast(run) for run in runs]
        images = count_train_images(runs[0])
        size = (
            "images that are not there to be counted"
            if images is None
            else f"about {images:,} images"
        )
        train = recipe.train
        weights = recipe.model.weights
        missing = f"missing: {weights}, the pre-trained weights; --set model.weights=FILE says where they are"
        say(
            "",
            f"{recipe.name}: {recipe.title}",
            f"  {recipe.model.name} on {size} of {recipe.data.name}, {train.epochs} epochs, batch {train.batch_size}",
            *(f"  {line}" for line in _table(ahead)),
            *([] if weights is None or Path(weights).is_file() else [f"  {missing}"]),
        )
        forecasts += ahead
    say("", _totals(forecasts), *(f"then: {command}" for command in group.then))
    return 0


def _table(forecasts: Sequence[Forecast]) -> list[str]:
    rows = [
        (f.run.name, "?" if f.steps is None else f"{f.steps:,}", f.state, str(f.run.folder))
        for f in forecasts
    ]
    rows = [("run", "steps", "state", "folder"), *rows]
    name, steps, state = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:{name}}  {row[1]:>{steps}}  {row[2]:{state}}  {row[3]}" for row in rows]


def _totals(forecasts: Sequence[Forecast]) -> str:
    counted = [f for f in forecasts if f.steps is not None and f.left is not None]
    steps = sum(f.steps or 0 for f in counted)
    rest = sum(f.left or 0 for f in counted)
    finished = sum(f.state == "finished" for f in forecasts)
    unknown = len(forecasts) - len(counted)
    parts = [f"{len(forecasts)} runs, {finished} of them finished"]
    if counted:
        parts.append(f"about {steps:,} steps, {rest:,} of them left")
    if unknown:
        parts.append(f"steps of {unknown} runs unknown: their data is not there to be counted")
    return "; ".join(parts)
