"""``fedlas runs report``: writes the report of finished runs and prints its verdict and table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import fedlas
from fedlas._core.check import InputError
from fedlas._core.defaults import REPLICATES
from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_path, add_replicates, flag, option

if TYPE_CHECKING:
    from fedlas.lab.results.result import Result
    from fedlas.present.table import Table


def add_report(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs report``."""
    parser = add(_report, "FOLDER")
    add_path(parser, "folder", "FOLDER", "folder of a bench, or of one run")
    option(
        parser,
        "--format",
        None,
        "print only the table, to paste into a document (default: verdict and table)",
        choices=("markdown", "latex"),
    )
    flag(parser, "--details", "print every number and how to read it (default: verdict and table)")
    option(
        parser, "--title", "TEXT", "title of the page (default: it names recipe or run)", default=""
    )
    add_replicates(parser)


def _report(args: argparse.Namespace) -> int:
    return report_folder(
        args.folder,
        replicates=args.replicates,
        details=args.details,
        language=args.format,
        heading=args.title,
    )


def require_report_packages() -> None:
    """Raise MissingExtraError if a package that a report needs is not installed."""
    from fedlas.present.page import require_page_packages

    require_page_packages()
    require("scipy.stats", extra="tables")


def _latex(table: Table, model: Result, folder: Path) -> str:
    """Return the LaTeX table of a bench, with a caption on seeds and tests."""
    from fedlas.lab.report.result import BenchResult
    from fedlas.present.table import latex

    name = folder.resolve().name
    caption = BenchResult(name, {name: model}).caption(table)
    return latex(table, caption=f"{table.title or name}. {caption}", label=name)


def report_folder(
    folder: Path,
    *,
    replicates: int = REPLICATES,
    details: bool = False,
    language: str | None = None,
    heading: str = "",
    failures: Mapping[str, str] | None = None,
) -> int:
    """Write the report of a bench folder or run, and print its verdict and table."""
    from fedlas.lab.report.bench_tables import short_bench_table
    from fedlas.lab.report.report import read_report, write_report
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.present.table import markdown
    from fedlas.stats.estimates import check_replicates

    check_replicates(replicates)
    require_report_packages()
    if RunFolder(folder).is_finished:
        if language is not None:
            raise InputError(
                "--format requires a bench folder",
                f"the run {folder}",
                "Omit --format, or call fedlas.report(predictions).to_latex() in Python.",
            )
        return _report_run(folder, heading, replicates=replicates, details=details)
    model = read_report(folder, replicates=replicates, failures=failures)
    # Shown first: on a full disk the page cannot be written.
    if language is not None:
        table = short_bench_table(model, aurc=True)
        say(*(_latex(table, model, folder) if language == "latex" else markdown(table)).split("\n"))
        write_report(model, heading=heading)
        return 0
    show_bench(model, details=details)
    written = write_report(model, heading=heading)
    say(f"report: {written.html}")
    if details:
        say(f"        {written.markdown}  {written.csv}")
    return 0


def _report_run(folder: Path, heading: str, *, replicates: int, details: bool) -> int:
    """Report a single run: its test predictions before and after temperature scaling."""
    from fedlas.lab.report.bench_tables import PAGE
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.lab.studies.run_parts import run_held_out, test_part
    from fedlas.present.table import show_blocks

    run = RunFolder(folder)
    evaluation = fedlas.report(
        test_part(folder),
        on=run_held_out(folder),
        num_bins=run.num_bins,
        replicates=replicates,
        name=run.name,
        title=heading,
    )
    show_blocks(evaluation.blocks(details=details), details=details)
    say(f"report: {write_text(run.writable(folder / PAGE), evaluation.html())}")
    return 0


def show_bench(model: Result, *, details: bool = False) -> None:
    """Print the verdict and the table of a bench: the short table, or all numbers with ``details``."""
    from fedlas.lab.report.bench_tables import long_table, short_bench_table
    from fedlas.lab.report.verdict import answers, missing_notes, short_legend, verdict
    from fedlas.present.table import terminal

    lines = [f"{answer.question}: {answer.text}" for answer in answers(model)]
    say(*(lines if details else filter(None, [verdict(model)])), wrap=True)
    if details:
        show(terminal(long_table(model), details=True, arrows=False))
    else:
        show(terminal(short_bench_table(model), arrows=False))
        say(*short_legend(model), style="dim", wrap=True)
        say(*missing_notes(model), wrap=True)
