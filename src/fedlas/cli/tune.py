"""``fedlas tune``: searches hyperparameters of losses on the validation part."""

from __future__ import annotations

import argparse
import shlex

from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_path, flag, option
from fedlas.cli.bench import add_executor, add_losses, executor_of
from fedlas.cli.bench_group import add_recipe, overrides_of


def add_tune(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas tune``."""
    parser = add(_tune, "RECIPE")
    add_recipe(parser)
    add_losses(parser, "losses to tune")
    trials = "trials of each loss, the recipe's setting first (default: %(default)s)"
    option(parser, "--trials", "N", trials, type=int, default=20)
    objective = (
        "metric on the validation part, see 'fedlas list metrics'; or refined_nll, the NLL after a temperature "
        "(default: %(default)s)"
    )
    option(parser, "--objective", "METRIC", objective, default="refined_nll")
    seeds = "seeds of each trial; the objective is their mean (default: 0)"
    option(parser, "--seeds", "SEED", seeds, nargs="+", type=int, default=[0])
    space = (
        "ranges to search, e.g. alpha=0.01:0.3:log, fedlas.beta=0.5,1,2,4 or optimizer.lr=0.01:0.3:log; one value "
        "fixes an option (default: those of 'fedlas list tuning')"
    )
    option(parser, "--space", "KEY=RANGE", space, nargs="+", default=[])
    add_path(parser, "--out", "FOLDER", "folder of the trials (default: runs/tune/RECIPE)")
    flag(parser, "--dry-run", "print ranges, runs and steps, without running (default: run)")
    add_executor(parser)


def _tune(args: argparse.Namespace) -> int:
    from fedlas.lab.tune.best import outcome_table, ranked_trials, write_best
    from fedlas.lab.tune.study import STORAGE, dry_run_study, plan_tuning, run_study
    from fedlas.present.table import terminal

    executor = executor_of(args)
    names = ("losses", "trials", "objective", "seeds", "space", "out", "data")
    tuning = plan_tuning(
        args.recipe, overrides_of(args), **{name: getattr(args, name) for name in names}
    )
    if args.dry_run:
        dry_run_study(tuning)
        return 0
    say(f"{tuning.recipe.name}: {tuning.budget} trials per method, in {tuning.folder}", stderr=True)
    run_study(tuning, executor)
    ranked = ranked_trials(tuning)
    show(terminal(outcome_table(tuning, ranked)))
    if (recipe := write_best(tuning, ranked)) is None:
        say("Every trial diverged. Lower the learning rate or narrow the ranges.")
        return 1
    optimistic = "The best trial's validation metric is optimistic: it selected the trial. No test data were used."
    say(optimistic, wrap=True)
    say(f"written: {recipe}; look at all trials with: optuna-dashboard {tuning.folder / STORAGE}")
    bench = shlex.join(["fedlas", "bench", str(recipe), "--out", str(tuning.folder / "bench")])
    say("next, on the test part with seeds that tuning did not use:", f"  {bench}")
    return 0 if all(trials[0].value is not None for trials in ranked.values()) else 1
