"""``fedlas tune``: searches options of losses on the validation part."""

from __future__ import annotations

import argparse
from functools import partial

from fedlas._core.collective import is_main_process
from fedlas._core.extras import require
from fedlas._core.files import path_argument
from fedlas._core.terminal import console, say, show
from fedlas.cli.arguments import AddSubcommand, add_details, add_recipe, overrides_of
from fedlas.cli.bench import workers_number
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.report.table import terminal
from fedlas.lab.tune.best import next_commands
from fedlas.lab.tune.dry_run import dry_run
from fedlas.lab.tune.plan import Tuning, plan_tuning
from fedlas.lab.tune.report import methods_table, write_numbers, write_page
from fedlas.lab.tune.study import run_study
from fedlas.lab.tune.summary import notes, verdicts, what_was_run


def add_tune(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(
        "tune",
        _tune,
        "Search the options of losses on validation, the same budget for each. Rerun to resume.",
        "RECIPE",
    )
    add_recipe(parser)
    parser.add_argument(
        "--losses", nargs="+", default=[], metavar="LOSS", help="losses to tune, or 'all' (default: the recipe's)"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="settings to try of each loss, the recipe's own first (default: %(default)s)",
    )
    parser.add_argument(
        "--objective",
        default="nll",
        metavar="METRIC",
        help="metric of the validation part, see 'fedlas list metrics' (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="SEED",
        help="seeds to run each setting with; the objective is their mean (default: 0)",
    )
    parser.add_argument(
        "--space",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=RANGE",
        help="where to search, e.g. alpha=0.01:0.3:log, fedlas.beta=0.5,1,2,4 or optimizer.lr=0.01:0.3:log; one value "
        "fixes an option (default: 'fedlas list tuning', see it with --dry-run)",
    )
    parser.add_argument(
        "--out", type=path_argument, help="folder of the trials and the report (default: runs/tune/RECIPE)"
    )
    parser.add_argument(
        "--sampler-seed", type=int, default=0, metavar="N", help="seed of what is drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep every trial's checkpoint (default: that of each loss's best)"
    )
    parser.add_argument(
        "--workers",
        type=workers_number,
        metavar="N",
        help="trials at a time, which come to the same as one at a time; 'auto' is one a core, where the "
        "model is small and there is no GPU, else one (default: auto)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="trials of a loss that are drawn at a time after the first five, so that N can be done at a time; each "
        "knows less than if it were drawn alone (default: %(default)s)",
    )
    add_details(parser, "print parameters and how to read the numbers (default: the verdict)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print ranges, trials, steps and folders; do nothing (default: do)"
    )


def _tune(args: argparse.Namespace) -> int:
    tuning = plan_tuning(
        args.recipe,
        overrides_of(args),
        losses=args.losses,
        trials=args.trials,
        objective=args.objective,
        seeds=args.seeds,
        space=args.space,
        draws=args.sampler_seed,
        out=args.out,
        data=args.data,
        batch=args.batch,
    )
    if args.dry_run:
        return dry_run(tuning)
    return tune(tuning, keep=args.keep, details=args.details, workers=args.workers)


def tune(tuning: Tuning, *, keep: bool = False, details: bool = False, workers: int | None = 1) -> int:
    """Do the trials that have not ended, write the report, print its table and what to run next.

    Args:
        tuning: From :func:`fedlas.lab.tune.plan.plan_tuning`.
        keep: Keep the checkpoints of all trials.
        workers: Trials at a time; None is as many as there are cores for.
        details: Print the best parameters, what was run, and how to read it.

    Returns:
        0, or 1 if a method has no trial that is done.

    Raises:
        InputError: As :func:`fedlas.lab.tune.study.run_study`.
    """
    require("optuna", extra="tune")
    require_page_packages()
    trials = sum(method.trials(tuning.budget) for method in tuning.methods)
    methods = ", ".join(method.name for method in tuning.methods)
    say(f"{tuning.recipe.name}: {trials} trials of {methods}, in {tuning.folder}", stderr=True)
    after_round = partial(write_numbers, tuning)
    run_study(tuning, console=console(stderr=True), keep=keep, workers=workers, after_round=after_round)
    # With several processes only one writes and prints.
    if not is_main_process():
        return 0
    outcomes = write_numbers(tuning)
    page = write_page(tuning, outcomes)
    say(*verdicts(tuning, outcomes), wrap=True)
    table = methods_table(tuning, outcomes)
    show(terminal(table if details else table.where((0, 1, 2, 3, 5))))
    if details:
        say(what_was_run(tuning, outcomes), *notes(tuning, outcomes), wrap=True)
    for name in ("tune.md", "tune.json", "best.yaml"):
        if (tuning.folder / name).exists():
            say(f"written: {tuning.folder / name}")
    say(f"report: {page}")
    for what, command in next_commands(tuning, outcomes):
        say(f"next, {what}:", f"  {command}")
    return 0 if all(outcome.best is not None for outcome in outcomes) else 1
