"""``fedlas tune``: searches hyperparameters of losses on the validation part."""

from __future__ import annotations

import argparse
import shlex

from fedlas._core.terminal import print_lines, print_renderable
from fedlas.cli.arguments import AddSubcommand, add_flag, add_option, add_path
from fedlas.cli.bench import add_executor, add_losses, build_executor
from fedlas.cli.recipe_options import add_recipe, recipe_overrides


def add_tune(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas tune``."""
    parser = add(_run, "RECIPE")
    add_recipe(parser)
    add_losses(parser, "losses to tune")
    trials = "trials of each loss, the recipe's setting first (default: %(default)s)"
    add_option(parser, "--trials", "N", trials, type=int, default=20)
    objective = (
        "metric on the validation part, see 'fedlas list metrics'; or refined_nll, the NLL after a temperature "
        "(default: %(default)s)"
    )
    add_option(parser, "--objective", "METRIC", objective, default="refined_nll")
    seeds = "seeds of each trial; the objective is their mean (default: 0)"
    add_option(parser, "--seeds", "SEED", seeds, nargs="+", type=int, default=[0])
    space = (
        "ranges to search, e.g. alpha=0.01:0.3:log, fedlas.beta=0.5,1,2,4 or optimizer.lr=0.01:0.3:log; one value "
        "fixes an option (default: those of 'fedlas list tuning')"
    )
    add_option(parser, "--space", "KEY=RANGE", space, nargs="+", default=[])
    add_path(parser, "--out", "FOLDER", "folder of the trials (default: runs/tune/RECIPE)")
    add_flag(parser, "--dry-run", "print ranges, runs and steps, without running (default: run)")
    add_executor(parser)


def _run(args: argparse.Namespace) -> int:
    from fedlas.lab.tune.best import outcome_table, rank_trials, write_best_recipe
    from fedlas.lab.tune.study import STORAGE, plan_tuning, print_study_plan, run_study
    from fedlas.present.table import terminal_table

    executor = build_executor(args)
    names = ("losses", "trials", "objective", "seeds", "space", "out", "data")
    tuning = plan_tuning(
        args.recipe, recipe_overrides(args), **{name: getattr(args, name) for name in names}
    )
    if args.dry_run:
        print_study_plan(tuning)
        return 0
    print_lines(
        f"{tuning.recipe.name}: {tuning.budget} trials per method, in {tuning.folder}", stderr=True
    )
    run_study(tuning, executor)
    ranked = rank_trials(tuning)
    print_renderable(terminal_table(outcome_table(tuning, ranked)))
    if (recipe := write_best_recipe(tuning, ranked)) is None:
        print_lines("Every trial diverged. Lower the learning rate or narrow the ranges.")
        return 1
    optimistic = "The best trial's validation metric is optimistic: it selected the trial. No test data were used."
    print_lines(optimistic, wrap=True)
    print_lines(
        f"written: {recipe}; look at all trials with: optuna-dashboard {tuning.folder / STORAGE}"
    )
    bench = shlex.join(["fedlas", "bench", str(recipe), "--out", str(tuning.folder / "bench")])
    print_lines("next, on the test part with seeds that tuning did not use:", f"  {bench}")
    return 0 if all(trials[0].value is not None for trials in ranked.values()) else 1
