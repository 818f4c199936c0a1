"""``fedlas runs train``: trains one run, a recipe with a loss and a seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.check import check_count
from fedlas._core.terminal import say
from fedlas.cli.arguments import AddSubcommand, add_path, option
from fedlas.cli.bench_group import add_recipe, add_track, recipe_of

if TYPE_CHECKING:
    from fedlas.lab.recipes.recipe import Recipe


def add_train(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs train``."""
    parser = add(
        lambda args: train(recipe_of(args), loss=args.loss, seed=args.seed, out=args.out), "RECIPE"
    )
    add_recipe(parser)
    add_track(parser)
    option(parser, "--loss", "NAME", "loss to train with (default: %(default)s)", default="fedlas")
    option(
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
    from fedlas.lab.recipes.planning import Run, plan
    from fedlas.lab.runs.execution import execute
    from fedlas.lab.runs.measure import alarms_of
    from fedlas.lab.runs.train import limited_to
    from fedlas.lab.runs.workload import threads_for
    from fedlas.present.metric_tables import short_table
    from fedlas.present.table import show_blocks

    check_count("seed", seed, low=0)
    planned = plan(recipe, losses=[loss], seeds=[seed])[0]
    run = planned if out is None else Run(recipe, loss, seed, out)
    with limited_to(threads_for(run)):
        metrics = execute(run)
    columns = {
        "test": metrics["test"],
        f"after temperature {metrics['temperature']:.3f}": metrics["test_calibrated"],
    }
    show_blocks(
        [
            short_table(
                columns,
                title=f"{run.name} on {recipe.name}, test set, epoch {metrics['best_epoch']}",
            )
        ]
    )
    say(*metrics["notes"], *alarms_of([run], run.folder), wrap=True)
    say(f"run folder: {run.folder}")
    return 0
