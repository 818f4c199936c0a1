"""``fedlas runs train``: trains one run, a recipe with a loss and a seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.check import check_count
from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import AddSubcommand, add_option, add_path
from fedlas.cli.recipe_options import add_recipe, add_track, load_chosen_recipe

if TYPE_CHECKING:
    from fedlas.lab.recipes.recipe import Recipe


def add_train(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs train``."""
    parser = add(
        lambda args: train(load_chosen_recipe(args), loss=args.loss, seed=args.seed, out=args.out),
        "RECIPE",
    )
    add_recipe(parser)
    add_track(parser)
    add_option(
        parser, "--loss", "NAME", "loss to train with (default: %(default)s)", default="fedlas"
    )
    add_option(
        parser,
        "--seed",
        "N",
        "seed of split, data order, weights (default: %(default)s)",
        type=int,
        default=0,
    )
    add_path(parser, "--out", "FOLDER", "run folder (default: runs/RECIPE/LOSS-sSEED)")


def train(recipe: Recipe, *, loss: str, seed: int, out: Path | None = None) -> int:
    """Train or resume a run, and print its metrics."""
    from fedlas.lab.recipes.planning import Run, plan_runs
    from fedlas.lab.runs.execution import execute
    from fedlas.lab.runs.measure import summarize_alarms
    from fedlas.lab.runs.train import limit_threads
    from fedlas.lab.runs.workload import choose_threads
    from fedlas.present.metric_tables import short_table
    from fedlas.present.table import print_blocks

    check_count("seed", seed, low=0)
    planned = plan_runs(recipe, losses=[loss], seeds=[seed])[0]
    run = planned if out is None else Run(recipe, loss, seed, out)
    with limit_threads(choose_threads(run)):
        metrics = execute(run)
    columns = {
        "test": metrics["test"],
        f"after temperature {metrics['temperature']:.3f}": metrics["test_calibrated"],
    }
    print_blocks(
        [
            short_table(
                columns,
                title=f"{run.name} on {recipe.name}, test set, epoch {metrics['best_epoch']}",
            )
        ]
    )
    print_lines(*metrics["notes"], *summarize_alarms([run], run.folder), wrap=True)
    print_lines(f"run folder: {run.folder}")
    return 0
