"""``fedlas tune``: searches options of losses on the validation part."""

from __future__ import annotations

import argparse

from fedlas._core.extras import require
from fedlas._core.terminal import is_main_process, say, show
from fedlas.cli.arguments import AddSubcommand, add_path, flag, option
from fedlas.cli.bench import add_losses, workers_number
from fedlas.cli.bench_group import add_recipe, overrides_of
from fedlas.lab.tune.best import next_command, outcome_table, outcomes_of, tuning_verdict, write_best
from fedlas.lab.tune.study import STORAGE, dry_run_study, plan_tuning, run_study
from fedlas.present.table import terminal


def add_tune(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_tune, "RECIPE")
    add_recipe(parser)
    add_losses(parser, "losses to tune")
    option(
        parser,
        "--trials",
        "N",
        "trials of each loss, the recipe's setting first (default: %(default)s)",
        type=int,
        default=20,
    )
    option(
        parser,
        "--objective",
        "METRIC",
        "metric on the validation part, see 'fedlas list metrics'; or refined_nll, the NLL after a temperature "
        "(default: %(default)s)",
        default="refined_nll",
    )
    option(
        parser,
        "--seeds",
        "SEED",
        "seeds of each trial; the objective is their mean (default: 0)",
        nargs="+",
        type=int,
        default=[0],
    )
    option(
        parser,
        "--space",
        "KEY=RANGE",
        "ranges to search, e.g. alpha=0.01:0.3:log, fedlas.beta=0.5,1,2,4 or optimizer.lr=0.01:0.3:log; one value "
        "fixes an option (default: those of 'fedlas list tuning')",
        nargs="+",
        action="extend",
        default=[],
    )
    add_path(parser, "--out", "FOLDER", "folder of the trials (default: runs/tune/RECIPE)")
    option(
        parser,
        "--workers",
        "N",
        "trials at a time; 'auto' is one for each core where the model is small and there is no GPU, else one "
        "(default: auto)",
        type=workers_number,
    )
    flag(parser, "--dry-run", "print ranges, runs and steps, without running (default: run)")


def _tune(args: argparse.Namespace) -> int:
    tuning = plan_tuning(
        args.recipe,
        overrides_of(args),
        losses=args.losses,
        trials=args.trials,
        objective=args.objective,
        seeds=args.seeds,
        space=args.space,
        out=args.out,
        data=args.data,
    )
    if args.dry_run:
        dry_run_study(tuning)
        return 0
    require("optuna", extra="tune")
    say(f"{tuning.recipe.name}: {tuning.budget} trials a method, in {tuning.folder}", stderr=True)
    run_study(tuning, workers=args.workers)
    if not is_main_process():
        return 0
    outcomes = outcomes_of(tuning)
    show(terminal(outcome_table(tuning, outcomes)))
    say(*tuning_verdict(tuning, outcomes), wrap=True)
    if (recipe := write_best(tuning, outcomes)) is not None:
        say(f"written: {recipe}; look at all trials with: optuna-dashboard {tuning.folder / STORAGE}")
        say("next, on the test part with seeds that tuning did not use:", f"  {next_command(tuning)}")
    return 0 if all(outcome.value is not None for outcome in outcomes) else 1
