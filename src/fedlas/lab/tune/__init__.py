"""Hyperparameter search for losses on validation data with optuna, with the same budget for every method.

Input: a recipe and search spaces. Output: ``optuna.log`` with every trial, and a recipe with the best settings.

``space`` finds the parameters of each method and their ranges, ``study`` plans and runs the trials, ``best`` writes the
outcome.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.tune.best import outcome_table, rank_trials, write_best_recipe
    from fedlas.lab.tune.study import plan_tuning, run_study

__all__ = ["outcome_table", "plan_tuning", "rank_trials", "run_study", "write_best_recipe"]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "best": "outcome_table rank_trials write_best_recipe",
            "study": "plan_tuning run_study",
        },
    )
