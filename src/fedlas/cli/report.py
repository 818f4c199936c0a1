"""``fedlas report``: writes the report over finished runs and prints its verdict and table."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedlas._core.extras import require
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_data, add_replicates
from fedlas.lab.report.bench_tables import long_table, short_table
from fedlas.lab.report.model import ReportModel
from fedlas.lab.report.notes import missing_notes, short_legend
from fedlas.lab.report.report import write_report
from fedlas.lab.report.run_page import write_run_report
from fedlas.lab.report.verdict import answers
from fedlas.lab.runs.folder import RunFolder
from fedlas.present.blocks import show_blocks
from fedlas.present.metric_tables import metric_blocks
from fedlas.present.page import require_page_packages
from fedlas.present.table import terminal
from fedlas.stats.estimates import REPLICATES, check_replicates


def add_report(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_report, "FOLDER")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a bench, or of one run")
    add_report_options(parser)
    add_replicates(parser)
    add_data(parser, "where the runs' data is, for the images of the pages")


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--details`` and ``--pages``."""
    parser.add_argument(
        "--details", action="store_true", help="print every number and how to read it (default: verdict and table)"
    )
    parser.add_argument("--pages", action="store_true", help="also write a page for each run (default: none)")


def _report(args: argparse.Namespace) -> int:
    return report(
        args.folder,
        replicates=args.replicates,
        data=args.data,
        details=args.details,
        pages=args.pages,
    )


def require_report_packages() -> None:
    """Say now which package a report lacks, and not after hours of training."""
    require_page_packages()
    require("scipy.stats", extra="stats")


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
    require_report_packages()
    if RunFolder(folder).is_finished:
        page, run = write_run_report(folder, replicates=replicates, data=data)
        keys = {"test": "test", "after temperature": "test_calibrated"}
        columns = {stage: run.measured[key] for stage, key in keys.items() if run.measured[key]}
        noise = {stage: run.estimates.stages.get(key, {}) for stage, key in keys.items()} if run.estimates else {}
        show_blocks(
            metric_blocks(columns, title=f"{run.name}, test set", noise=noise, details=details), details=details
        )
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
