"""Several recipes under one name, such as the cells of a paper's table, and running them one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedlas._core.check import InputError, suggestion
from fedlas.lab.recipes.plan import Run, plan
from fedlas.lab.recipes.recipe import Recipe, load_recipe
from fedlas.lab.recipes.text import is_group, read_content

_KEYS = ("title", "recipes", "methods", "seeds", "then")


@dataclass(frozen=True)
class Group:
    """What one name stands for.

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
        """Where the runs of a recipe go: below ``out`` for a group, in it for one recipe, ``runs/RECIPE`` for None.

        Two groups that share a recipe share its runs, unless they are told otherwise.
        """
        if out is None:
            return Path("runs") / recipe.name
        return out / Path(recipe.name).name if len(self.recipes) > 1 else out

    def plan(
        self, *, losses: Sequence[str] = (), seeds: Sequence[int] = (), out: Path | None = None
    ) -> list[tuple[Recipe, list[Run]]]:
        """The runs of each recipe, all checked before the first one starts.

        Raises:
            InputError: As :func:`fedlas.lab.recipes.plan.plan`.
        """
        return [
            (recipe, plan(recipe, losses=losses, seeds=seeds, out=self.folder(recipe, out))) for recipe in self.recipes
        ]


def load_group(
    name: str, overrides: Iterable[str] = (), *, data: str | None = None, trackers: Sequence[str] = ()
) -> Group:
    """A group of recipes, or one recipe as a group of its own.

    Args:
        name: As for :func:`fedlas.lab.recipes.recipe.load_recipe`, or the name of a group; files that it names are
            beside it.
        overrides: Applied to every recipe.
        data: Where every recipe's data is; None for the recipes' own places.
        trackers: Trackers that every recipe's runs are shown to, besides the recipe's own.

    Raises:
        InputError: As :func:`fedlas.lab.recipes.recipe.load_recipe`, for any of the recipes.
    """
    overrides = list(overrides)
    _, content = read_content(name)
    if not is_group(content):
        recipe = load_recipe(name, overrides)
        return Group(name, recipe.title, (recipe.with_data_root(data).with_trackers(trackers),))
    for key in content:
        if key not in _KEYS:
            raise InputError("recipe", f"a group may have {', '.join(_KEYS)}", repr(key), suggestion(str(key), _KEYS))
    for key in ("recipes", "methods", "seeds", "then"):
        if key in content and not (isinstance(content[key], list) and content[key]):
            raise InputError("recipe", f"{key} of a group must be a list", content[key], f"Write e.g. {key}: [...].")
    # The command line counts more than the group, and the group more than its recipes.
    said = {override.partition("=")[0].strip() for override in overrides}
    own = {key: content[key] for key in ("methods", "seeds") if key in content and key not in said}
    recipes = tuple(
        replace(load_recipe(_place(name, str(member)), overrides), **own).with_data_root(data).with_trackers(trackers)
        for member in content["recipes"]
    )
    return Group(name, str(content.get("title", name)), recipes, tuple(map(str, content.get("then", ()))))


def _place(group: str, member: str) -> str:
    """A member's name; a file lies beside the group's own, as what a recipe extends does."""
    return str(Path(group).parent / member) if member.endswith((".yaml", ".yml")) else member
