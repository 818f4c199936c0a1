"""Run a recipe: plan its runs, execute them, or forecast them in a dry run.

In: recipes, losses, seeds, an executor. Out: finished run folders.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.benches.all_runs import run_all
    from fedlas.lab.benches.suite import RecipeGroup, dry_run_bench, load_recipe_group

__all__ = ["RecipeGroup", "dry_run_bench", "load_recipe_group", "run_all"]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "all_runs": "run_all",
            "suite": "RecipeGroup dry_run_bench load_recipe_group",
        },
    )
