"""Recipes: checked configurations from YAML and overrides, and the runs planned from them.

In: the name of a preset or file, ``KEY=VALUE`` overrides. Out: a ``Recipe``, and a list of ``Run``.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import at_first_use

if TYPE_CHECKING:
    from fedlas.lab.recipes.objects import recipe_of_objects
    from fedlas.lab.recipes.planning import Run, build_loss, plan
    from fedlas.lab.recipes.recipe import (
        Recipe,
        load_recipe,
        parse_options,
        recipe_from,
        recipe_names,
    )
    from fedlas.lab.recipes.starter import Starter, choose_settings, starter_recipe
    from fedlas.lab.recipes.text import is_group, parse_value, read_content, shipped_names
    from fedlas.lab.recipes.yaml_text import dump_yaml, parse_yaml

__all__ = [
    "Recipe",
    "Run",
    "Starter",
    "build_loss",
    "choose_settings",
    "dump_yaml",
    "is_group",
    "load_recipe",
    "parse_options",
    "parse_value",
    "parse_yaml",
    "plan",
    "read_content",
    "recipe_from",
    "recipe_names",
    "recipe_of_objects",
    "shipped_names",
    "starter_recipe",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = at_first_use(
        __name__,
        {
            "objects": "recipe_of_objects",
            "planning": "Run build_loss plan",
            "recipe": "Recipe load_recipe parse_options recipe_from recipe_names",
            "starter": "Starter choose_settings starter_recipe",
            "text": "is_group parse_value read_content shipped_names",
            "yaml_text": "dump_yaml parse_yaml",
        },
    )
