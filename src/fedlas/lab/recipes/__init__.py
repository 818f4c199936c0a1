"""Recipes: checked configurations from YAML and overrides, and the runs planned from them.

In: the name of a preset or file, ``KEY=VALUE`` overrides. Out: a ``Recipe``, and a list of ``Run``.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.recipes.objects import recipe_from_objects
    from fedlas.lab.recipes.planning import Run, build_loss, plan_runs
    from fedlas.lab.recipes.recipe import (
        Recipe,
        load_recipe,
        parse_options,
        recipe_from_content,
        recipe_names,
    )
    from fedlas.lab.recipes.starter import (
        StarterSettings,
        choose_starter_settings,
        render_starter_recipe,
    )
    from fedlas.lab.recipes.text import (
        is_recipe_group,
        parse_yaml_value,
        read_recipe_file,
        shipped_recipe_names,
    )
    from fedlas.lab.recipes.yaml_text import dump_yaml, parse_yaml

__all__ = [
    "Recipe",
    "Run",
    "StarterSettings",
    "build_loss",
    "choose_starter_settings",
    "dump_yaml",
    "is_recipe_group",
    "load_recipe",
    "parse_options",
    "parse_yaml",
    "parse_yaml_value",
    "plan_runs",
    "read_recipe_file",
    "recipe_from_content",
    "recipe_from_objects",
    "recipe_names",
    "render_starter_recipe",
    "shipped_recipe_names",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "objects": "recipe_from_objects",
            "planning": "Run build_loss plan_runs",
            "recipe": "Recipe load_recipe parse_options recipe_from_content recipe_names",
            "starter": "StarterSettings choose_starter_settings render_starter_recipe",
            "text": "is_recipe_group parse_yaml_value read_recipe_file shipped_recipe_names",
            "yaml_text": "dump_yaml parse_yaml",
        },
    )
