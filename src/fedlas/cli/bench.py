"""The subcommand fedlas bench: trains a recipe, or a group of recipes, with several losses and seeds, and reports."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.terminal import is_main_process, print_lines
from fedlas.cli.arguments import (
    AddSubcommand,
    ExtendValues,
    add_bench_calibrators,
    add_flag,
    add_option,
    add_path,
)
from fedlas.cli.recipe_options import add_recipe, add_track, recipe_overrides
from fedlas.cli.report import report_folder, require_report_packages

if TYPE_CHECKING:
    from fedlas.lab.benches.executors import Executor
    from fedlas.lab.benches.suite import RecipeGroup
    from fedlas.lab.recipes.recipe import Recipe

_EXECUTOR_OPTIONS = ("workers", "gpus_per_run", "cpus_per_run")


def add_bench(add: AddSubcommand) -> None:
    """Add the subcommand fedlas bench."""
    parser = add(_run, "RECIPE")
    add_recipe(parser)
    add_track(parser)
    add_losses(parser, "losses to run")
    add_option(
        parser,
        "--seeds",
        "SEED",
        "seeds to run (default: the recipe's)",
        nargs="+",
        type=int,
        default=[],
    )
    add_bench_calibrators(parser)
    add_path(parser, "--out", "FOLDER", "folder of the runs and the report (default: runs/RECIPE)")
    add_flag(
        parser,
        "--dry-run",
        "print every run with its steps and folder, without running it (default: run)",
    )
    add_flag(
        parser, "--details", "print every number and how to read it (default: verdict and table)"
    )
    title = "title of the report, or of a group's comparison (default: it names the recipe)"
    add_option(parser, "--title", "TEXT", title, default="")
    add_executor(parser)


def add_losses(parser: argparse.ArgumentParser, description: str) -> None:
    """Add ``--losses``; names may be separated by spaces or commas."""
    add_option(
        parser,
        "--losses",
        "LOSS",
        f"{description}, or 'all' (default: the recipe's)",
        nargs="+",
        action=_ExtendNames,
        default=[],
    )


class _ExtendNames(ExtendValues):
    """Argparse action for names separated by spaces or commas."""

    def split(self, values: Any) -> list[str]:
        return [name for value in values for name in value.split(",") if name]


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose an executor."""
    add_option(
        parser,
        "--executor",
        "NAME",
        "place of the runs: local, ray, slurm (default: %(default)s)",
        default="local",
    )
    add_option(
        parser,
        "--workers",
        "N",
        "runs at a time; 'auto' is one for each core where the model is small (a forward pass of a batch takes "
        "under 5 billion operations) and there is no GPU, else one; on other machines as many as fit "
        "(default: auto)",
        type=parse_workers,
    )
    add_option(
        parser,
        "--gpus-per-run",
        "N",
        "GPUs of a run; with 0.5 two share one (default: the executor's)",
        type=float,
    )
    add_option(
        parser, "--cpus-per-run", "N", "threads of a run (default: the executor's)", type=int
    )
    add_option(
        parser,
        "--executor-set",
        "KEY=VALUE",
        "set another option, e.g. retries=5; may be repeated; see 'fedlas list executors' (default: none)",
        action="append",
        default=[],
    )


def parse_workers(text: str) -> int | None:
    """Parse a number of workers; ``auto`` becomes None."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or auto; got {text!r}") from None


def build_executor(args: argparse.Namespace) -> Executor:
    """Build the executor from parsed arguments."""
    from fedlas.lab.benches.executors import EXECUTORS
    from fedlas.lab.recipes.recipe import parse_options

    options = {
        name: getattr(args, name) for name in _EXECUTOR_OPTIONS if getattr(args, name) is not None
    }
    for key, value in parse_options(args.executor_set).items():
        if key in options:
            flag = f"--{key.replace('_', '-')}"
            raise InputError(
                f"{key} must be set once, by --executor-set or by {flag}",
                "both",
                f"Omit {flag}.",
            )
        options[key] = value
    return EXECUTORS.build(args.executor, options)


def _run(args: argparse.Namespace) -> int:
    from fedlas.lab.benches.suite import dry_run_bench, load_recipe_group
    from fedlas.lab.results.stages import check_calibrators

    group = load_recipe_group(
        args.recipe, recipe_overrides(args), data=args.data, trackers=args.track
    )
    executor = build_executor(args)
    check_calibrators(args.method)
    chosen: dict[str, Any] = {"losses": args.losses, "seeds": args.seeds, "out": args.out}
    if args.dry_run:
        return dry_run_bench(group, **chosen)
    options = {"calibrators": args.method, "details": args.details, "title": args.title}
    return run_bench_group(group, **chosen, executor=executor, **options)


def run_bench(
    recipe: Recipe,
    *,
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (),
    out: Path | None = None,
    calibrators: Sequence[str] = (),
    executor: Executor | None = None,
    details: bool = False,
    title: str = "",
) -> int:
    """Run a recipe with several losses and seeds, and report; return 1 if a run failed."""
    from fedlas.lab.benches.all_runs import run_all
    from fedlas.lab.recipes.planning import plan_runs
    from fedlas.lab.results.stages import check_calibrators
    from fedlas.lab.runs.folder import RunFolder

    # Plan the runs and say how many are left.
    require_report_packages()
    check_calibrators(calibrators)
    runs = plan_runs(recipe, losses=losses, seeds=seeds, out=out)
    folder = runs[0].folder.parent
    methods = list(dict.fromkeys(run.loss for run in runs))
    ready = sum(RunFolder(run.folder).is_finished for run in runs)
    print_lines(
        f"{recipe.name}: {len(methods)} losses x {len(runs) // len(methods)} seeds = {len(runs)} runs"
        f"{f', {ready} of them finished before' if ready else ''}, in {folder}",
        wrap=True,
        stderr=True,
    )
    # Run them; a run that fails does not stop the others.
    outcome = run_all(runs, executor=executor)
    if outcome.pending:
        return 1 if outcome.failed else 0
    outcome.require_finished(folder)
    # Report what finished.
    if is_main_process():
        report_folder(folder, details=details, heading=title, failures=outcome.failed)
        if calibrators:
            _show_comparison([folder], calibrators, folder, name=title, failures=outcome.failed)
    if outcome.failed:
        noted = all(RunFolder(folder / name).error_path.is_file() for name in outcome.failed)
        failed = f"failed: {', '.join(outcome.failed)}{' (see error.txt in each)' * noted}"
        print_lines(failed, style="bold red", wrap=True, stderr=True)
    return 1 if outcome.failed else 0


def run_bench_group(
    group: RecipeGroup,
    *,
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (),
    out: Path | None = None,
    **options: Any,
) -> int:
    """Run every recipe of a group, and compare them; return 1 if a run or a recipe failed."""
    if len(group.recipes) == 1:
        return run_bench(group.recipes[0], losses=losses, seeds=seeds, out=out, **options)
    calibrators = options.get("calibrators", ())
    title = options.pop("title", "")
    planned = group.plan(losses=losses, seeds=seeds, out=out)
    status = 0
    failed: list[str] = []
    for number, (recipe, _) in enumerate(planned, start=1):
        print_lines(
            "", f"{group.name} [{number}/{len(planned)}]", style="bold", wrap=True, stderr=True
        )
        try:
            # A recipe that cannot be run does not stop the others of its group.
            done = run_bench(
                recipe, losses=losses, seeds=seeds, out=group.folder(recipe, out), **options
            )
        except InputError as error:
            print_lines(f"{recipe.name} cannot be run: {error}", style="red", stderr=True)
            done = 1
        if done:
            failed.append(recipe.name)
        status = max(status, done)
    if failed:
        print_lines(f"not complete: {', '.join(failed)}", style="bold red", wrap=True, stderr=True)
    if losses or len({tuple(recipe.methods) for recipe in group.recipes}) == 1:
        _compare_recipes(group, out, calibrators, title=title, left_out=failed)
    print_lines(*(f"then: {command}" for command in group.then), stderr=True)
    return status


def _compare_recipes(
    group: RecipeGroup,
    out: Path | None,
    calibrators: Sequence[str],
    *,
    title: str,
    left_out: Sequence[str],
) -> None:
    """Print a comparison of the group's recipes, which have the same methods."""
    folders = [group.folder(each, out) for each in group.recipes if each.name not in left_out]
    if len(folders) > 1 and is_main_process():
        print_lines("", f"{group.name}: {len(folders)} recipes", style="bold")
        place = out or Path("runs") / Path(group.name).stem
        _show_comparison(folders, calibrators or ["raw"], place, name=title)


def _show_comparison(
    folders: Sequence[Path],
    calibrators: Sequence[str],
    out: Path,
    *,
    name: str = "",
    failures: Mapping[str, str] | None = None,
) -> None:
    """Print a comparison of finished benches, and write its page, LaTeX and figures."""
    from fedlas.lab.report.read_benches import read_bench_result
    from fedlas.present.table import print_blocks

    reasons = {folders[0].name: failures or {}}
    result = read_bench_result(folders, calibrators, name=name, failures=reasons)
    print_blocks(result.blocks())
    page, table, *_ = result.write(out)
    print_lines(f"comparison: {page}", f"            {table}")
