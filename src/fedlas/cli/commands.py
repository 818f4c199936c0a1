"""What the subcommands do once their arguments are parsed; each returns an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlas._core.check import InputError, check_count
from fedlas._core.collective import is_main_process
from fedlas._core.extras import require
from fedlas._core.terminal import Cell, say, show, table
from fedlas.cli.evaluation import show_metrics
from fedlas.cli.listing import listing
from fedlas.lab.bench.executors import Executor
from fedlas.lab.bench.run_all import run_all
from fedlas.lab.recipes.plan import Run, plan
from fedlas.lab.recipes.recipe import Recipe
from fedlas.lab.report.bench_tables import long_table, short_table
from fedlas.lab.report.model import ReportModel
from fedlas.lab.report.notes import missing_notes, short_legend
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.report.report import write_report
from fedlas.lab.report.run_page import write_run_report
from fedlas.lab.report.table import terminal
from fedlas.lab.report.verdict import answers
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.tracking import hints
from fedlas.stats.estimates import REPLICATES, check_replicates


def bench(
    recipe: Recipe,
    *,
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (),
    out: Path | None = None,
    executor: Executor | None = None,
    details: bool = False,
    pages: bool = False,
) -> int:
    """Run a recipe with several losses and seeds, write the report, print its verdict and table.

    Args:
        recipe: What to run.
        losses: As :func:`fedlas.lab.recipes.plan.plan`.
        seeds: As :func:`fedlas.lab.recipes.plan.plan`.
        out: As :func:`fedlas.lab.recipes.plan.plan`.
        executor: Where the runs happen; None is one after the other in this process.
        details: As in :func:`report`.
        pages: As there.

    Returns:
        0, or 1 if a run failed (the others are done and reported all the same).

    Raises:
        InputError: If the recipe, a loss or the data cannot be used; nothing has started then. Or if no run finished.
        MissingExtraError: If a package of the report is not installed; nothing has started then.
    """
    # Plan the runs and say how many are left.
    _require_report_packages()
    runs = plan(recipe, losses=losses, seeds=seeds, out=out)
    folder = runs[0].folder.parent
    methods = list(dict.fromkeys(run.loss for run in runs))
    ready = sum(RunFolder(run.folder).is_finished for run in runs)
    say(
        f"{recipe.name}: {len(methods)} losses x {len(runs) // len(methods)} seeds = {len(runs)} runs"
        f"{f', {ready} of them finished before' if ready else ''}, in {folder}",
        wrap=True,
        stderr=True,
    )
    # Run them; a run that fails does not stop the others.
    outcome = run_all(runs, executor=executor)
    if outcome.pending:
        return 1 if outcome.failed else 0
    if outcome.failed and not outcome.finished:
        run, error = next(iter(outcome.failed.items()))
        raise InputError(
            "fedlas bench",
            "a run must finish",
            f"{len(outcome.failed)} failed, {run} first: {error.splitlines()[0]}",
            f"See error.txt in the folders in {folder}.",
        )
    if not outcome.finished:
        raise InputError(
            "fedlas bench",
            "a run must be free",
            f"{len(outcome.busy)} in {folder}, all of which other processes are working on",
            "Wait for them, or choose another --out.",
        )
    # Report what finished.
    if is_main_process():
        report(folder, details=details, pages=pages)
        _say_where(recipe, folder)
    if outcome.failed:
        failed = f"failed: {', '.join(outcome.failed)} (see error.txt in each)"
        say(failed, style="bold red", wrap=True, stderr=True)
    return 1 if outcome.failed else 0


def train(recipe: Recipe, *, loss: str, seed: int, out: Path | None = None) -> int:
    """Do one run, or go on with it, and print its metrics.

    Raises:
        InputError: As :func:`fedlas.lab.runs.execute.execute`.
    """
    check_count("fedlas train", "seed", seed, low=0)
    planned = plan(recipe, losses=[loss], seeds=[seed])[0]
    run = planned if out is None else Run(recipe, loss, seed, out)
    metrics = execute(run)
    columns = {"test": metrics["test"], f"after temperature {metrics['temperature']:.3f}": metrics["test_calibrated"]}
    show_metrics(columns, title=f"{run.name} on {recipe.name}, test set, epoch {metrics['best_epoch']}")
    say(*metrics["notes"], wrap=True)
    say(f"run folder: {run.folder}")
    _say_where(recipe, run.folder.parent)
    return 0


def _require_report_packages() -> None:
    require_page_packages()
    require("scipy.stats", extra="stats")


def _say_where(recipe: Recipe, folder: Path) -> None:
    """How to look at the runs in the trackers that they were shown to."""
    say(*hints(recipe.trackers, folder))


def report(
    folder: Path,
    *,
    replicates: int = REPLICATES,
    data: str | None = None,
    details: bool = False,
    pages: bool = False,
) -> int:
    """Write the report over a bench folder, or the page of a single run, and print its verdict, table and place.

    Args:
        folder: Folder of a bench, or of a run.
        replicates: Of intervals and noise floors; 0 computes none.
        data: Where the runs' data is, for images; None searches the usual places.
        details: Print every number with its interval, noise floor and p-value, and how to read them.
        pages: Write a page for each run of a bench, too.

    Raises:
        InputError: If no run in it has finished, or it cannot be written to, or there are too few replicates.
    """
    check_replicates("fedlas report", replicates)
    _require_report_packages()
    if RunFolder(folder).is_finished:
        page, run = write_run_report(folder, replicates=replicates, data=data)
        keys = {"test": "test", "after temperature": "test_calibrated"}
        columns = {stage: run.measured[key] for stage, key in keys.items() if run.measured[key]}
        noise = {stage: run.estimates.stages.get(key, {}) for stage, key in keys.items()} if run.estimates else {}
        show_metrics(columns, title=f"{run.name}, test set", noise=noise, details=details)
        say(*(f"{reason}." for reason in (run.estimates.reasons if run.estimates else ())), f"report: {page}")
        return 0
    written = write_report(folder, replicates=replicates, data=data, pages=pages)
    show_bench(written.model, details=details)
    say(*written.notes, f"report: {written.html}")
    if details:
        say(f"        {written.markdown}  {written.csv}")
    return 0


def show_bench(model: ReportModel, *, details: bool = False) -> None:
    """Print the verdict of a bench and its table: short, or with everything that is known."""
    say(*(f"{answer.question}: {answer.text}" for answer in answers(model)), wrap=True)
    if details:
        show(terminal(long_table(model), details=True, arrows=False))
    else:
        show(terminal(short_table(model), arrows=False))
        say(*short_legend(model), style="dim", wrap=True)
        say(*missing_notes(model), wrap=True)


def print_listing(kind: str, *, markdown: bool = False) -> int:
    """Print what can be named in a recipe or on the command line.

    Args:
        kind: See :data:`fedlas.cli.listing.KINDS`.
        markdown: As a Markdown table, with every column, instead of one that fits a terminal.

    Raises:
        InputError: For an unknown kind; the nearest is named.
    """
    found = listing(kind)
    if markdown:
        say(*found.markdown().split("\n"))
        return 0
    rows: list[Sequence[Cell]] = []
    for row in found.rows:
        details = found.details(row)
        rows.append(([(row["name"], "bold")], [row["what it is"], *([(f"\n{details}", "dim")] if details else [])]))
    show(table(("name", "what it is"), rows, box=None, pad_edge=False))
    return 0
