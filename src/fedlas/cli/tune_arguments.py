"""``fedlas tune`` on the command line."""

from __future__ import annotations

import argparse

from fedlas._core.files import path_argument
from fedlas.cli.evaluate import AddVerb
from fedlas.cli.recipe_arguments import add_recipe_arguments, overrides_of


def add_tune(add: AddVerb) -> None:
    """Add the verb that searches options of losses."""
    tune = add(
        "tune",
        _tune,
        "Search the options of losses on validation, the same budget for each. Rerun to resume.",
        "RECIPE",
    )
    add_recipe_arguments(tune)
    tune.add_argument(
        "--losses", nargs="+", default=[], metavar="LOSS", help="losses to tune, or 'all' (default: the recipe's)"
    )
    tune.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="settings to try of each loss, the recipe's own first (default: %(default)s)",
    )
    tune.add_argument(
        "--objective",
        default="nll",
        metavar="METRIC",
        help="metric of the validation part, see 'fedlas list metrics' (default: %(default)s)",
    )
    tune.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="SEED",
        help="seeds to run each setting with; the objective is their mean (default: 0)",
    )
    tune.add_argument(
        "--space",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=RANGE",
        help="where to search, e.g. alpha=0.01:0.3:log, fedlas.beta=0.5,1,2,4 or optimizer.lr=0.01:0.3:log; one value "
        "fixes an option (default: 'fedlas list tuning', see it with --dry-run)",
    )
    tune.add_argument(
        "--out", type=path_argument, help="folder of the trials and the report (default: runs/tune/RECIPE)"
    )
    tune.add_argument(
        "--sampler-seed", type=int, default=0, metavar="N", help="seed of what is drawn (default: %(default)s)"
    )
    tune.add_argument(
        "--keep", action="store_true", help="keep every trial's checkpoint (default: that of each loss's best)"
    )
    tune.add_argument(
        "--details", action="store_true", help="print parameters and how to read the numbers (default: the verdict)"
    )
    tune.add_argument(
        "--dry-run", action="store_true", help="print ranges, trials, steps and folders; do nothing (default: do)"
    )


def _tune(args: argparse.Namespace) -> int:
    from fedlas.cli.tune import tune
    from fedlas.lab.tune.dry_run import dry_run
    from fedlas.lab.tune.plan import plan_tuning

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
    )
    return dry_run(tuning) if args.dry_run else tune(tuning, keep=args.keep, details=args.details)
