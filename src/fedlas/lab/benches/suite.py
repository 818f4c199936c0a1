"""Groups of recipes, such as the cells of a table, and the dry run of a bench."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedlas._core.files import require_inside
from fedlas._core.terminal import print_lines
from fedlas.lab.recipes.planning import Run, plan_runs
from fedlas.lab.recipes.recipe import Recipe, load_recipe, require_known_keys, require_list
from fedlas.lab.recipes.text import is_recipe_group, read_recipe_file
from fedlas.lab.runs.bench_folder import check_bench_folder
from fedlas.lab.runs.workload import Forecast, count_train_images, forecast_run

_GROUP_KEYS = ("title", "recipes", "methods", "seeds", "then")


@dataclass(frozen=True)
class RecipeGroup:
    """Named group of recipes that one bench runs.

    Attributes:
        name: Name of the group.
        title: One-line description.
        recipes: The recipes; a single recipe is a group of one.
        then: Commands that make the group's table or figure from the finished runs.
    """

    name: str
    title: str
    recipes: tuple[Recipe, ...]
    then: tuple[str, ...] = ()

    def folder(self, recipe: Recipe, out: Path | None) -> Path:
        """Return the folder of a recipe's runs: ``out``, or its subfolder in a group; by default ``runs/RECIPE``.

        Two groups that share a recipe share its runs, unless ``out`` differs.
        """
        if out is None:
            return Path("runs") / recipe.name
        return out / Path(recipe.name).name if len(self.recipes) > 1 else out

    def plan(
        self, *, losses: Sequence[str] = (), seeds: Sequence[int] = (), out: Path | None = None
    ) -> list[tuple[Recipe, list[Run]]]:
        """Return each recipe with its planned runs; all runs are checked before any run starts.

        Raises:
            InputError: As planning each recipe alone.
        """
        folders = [self.folder(recipe, out) for recipe in self.recipes]
        for folder in folders:
            if out not in (None, folder):  # a folder in the one that the user named
                require_inside(folder.parent, folder / "results.csv")
        return [
            (recipe, plan_runs(recipe, losses=losses, seeds=seeds, out=folder))
            for recipe, folder in zip(self.recipes, folders, strict=True)
        ]


def load_recipe_group(
    name: str,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    trackers: Sequence[str] = (),
) -> RecipeGroup:
    """Return a group of recipes; a single recipe becomes a group of one.

    Args:
        name: As for :func:`fedlas.lab.recipes.recipe.load_recipe`, or the name of a group; files that it names are
            in the same folder.
        overrides: Applied to every recipe.
        data: Data folder of every recipe; None keeps the folders of the recipes.
        trackers: Trackers of every recipe's runs, in addition to the recipe's own.

    Raises:
        InputError: As :func:`fedlas.lab.recipes.recipe.load_recipe`, for any of the recipes.
    """
    overrides = list(overrides)
    _, content = read_recipe_file(name)
    if not is_recipe_group(content):
        recipe = load_recipe(name, overrides)
        return RecipeGroup(
            name, recipe.title, (recipe.with_data_root(data).with_trackers(trackers),)
        )
    require_known_keys("", content, _GROUP_KEYS)
    for key in content.keys() - {"title"}:
        require_list(content[key], f"{key} of a group")
    # The command line overrides the group, and the group overrides its recipes.
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
    return RecipeGroup(
        name, str(content.get("title", name)), recipes, tuple(map(str, content.get("then", ())))
    )


def dry_run_bench(
    group: RecipeGroup,
    *,
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (),
    out: Path | None = None,
) -> int:
    """Check a bench and print what it would run, without training or writing anything.

    Returns:
        0.

    Raises:
        InputError: As the bench itself would raise before its first run.
    """
    if len(group.recipes) > 1:
        print_lines(f"{group.name}: {group.title}")
    forecasts: list[Forecast] = []
    for recipe, runs in group.plan(losses=losses, seeds=seeds, out=out):
        check_bench_folder(runs[0].folder.parent)
        run_forecasts = [forecast_run(run) for run in runs]
        images = count_train_images(runs[0])
        size = "an unknown number of images" if images is None else f"about {images:,} images"
        train = recipe.train
        weights = recipe.model.weights
        weights_note = (
            f"missing: pre-trained weights {weights}; name their file with --set model.weights=FILE"
        )
        print_lines(
            "",
            f"{recipe.name}: {recipe.title}",
            f"  {recipe.model.name} on {size} of {recipe.data.name}, {train.epochs} epochs, batch {train.batch_size}",
            *(f"  {line}" for line in _forecast_lines(run_forecasts)),
            *([] if weights is None or Path(weights).is_file() else [f"  {weights_note}"]),
        )
        forecasts += run_forecasts
    print_lines("", _forecast_summary(forecasts), *(f"then: {command}" for command in group.then))
    return 0


def _forecast_lines(forecasts: Sequence[Forecast]) -> list[str]:
    """Return the lines of a table with one row per run: name, steps, state and folder."""
    rows = [
        (f.run.name, "?" if f.steps is None else f"{f.steps:,}", f.state, str(f.run.folder))
        for f in forecasts
    ]
    rows = [("run", "steps", "state", "folder"), *rows]
    name, steps, state = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:{name}}  {row[1]:>{steps}}  {row[2]:{state}}  {row[3]}" for row in rows]


def _forecast_summary(forecasts: Sequence[Forecast]) -> str:
    """Return one line with the numbers of runs and steps, and how many of them are left."""
    counted = [f for f in forecasts if f.steps is not None and f.left is not None]
    steps = sum(f.steps or 0 for f in counted)
    rest = sum(f.left or 0 for f in counted)
    finished = sum(f.state == "finished" for f in forecasts)
    unknown = len(forecasts) - len(counted)
    parts = [f"{len(forecasts)} runs, {finished} of them finished"]
    if counted:
        parts.append(f"about {steps:,} steps, {rest:,} of them left")
    if unknown:
        parts.append(f"steps of {unknown} runs unknown, since their data was not found")
    return "; ".join(parts)
