"""``fedlas runs report``: writes the report of finished runs and prints its verdict and table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import fedlas
from fedlas._core.check import InputError
from fedlas._core.defaults import REPLICATES
from fedlas._core.files import write_text
from fedlas._core.terminal import print_lines, print_renderable
from fedlas.cli.arguments import (
    AddSubcommand,
    add_flag,
    add_option,
    add_path,
    add_replicates,
)
from fedlas.cli.markup import add_markup_flags

if TYPE_CHECKING:
    from fedlas.lab.results.result import Result
    from fedlas.present.table import Table


def add_report(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs report``."""
    parser = add(_run, "FOLDER")
    add_path(parser, "folder", "FOLDER", "folder of a bench, or of one run")
    add_markup_flags(parser, "verdict and table")
    add_flag(
        parser, "--details", "print every number and how to read it (default: verdict and table)"
    )
    add_option(
        parser, "--title", "TEXT", "title of the page (default: it names recipe or run)", default=""
    )
    add_replicates(parser)


def _run(args: argparse.Namespace) -> int:
    return report_folder(
        args.folder,
        replicates=args.replicates,
        details=args.details,
        markup=args.markup,
        heading=args.title,
    )


def require_report_packages() -> None:
    """Raise MissingExtraError if a package that a report needs is not installed."""
    from fedlas.present.page import require_page_packages

    require_page_packages()


def _latex_table(table: Table, model: Result, folder: Path) -> str:
    """Return the LaTeX table of a bench, with a caption on seeds and tests."""
    from fedlas.lab.report.result import BenchResult
    from fedlas.present.table import latex_table

    name = folder.resolve().name
    caption = BenchResult(name, {name: model}).caption(table)
    return latex_table(table, caption=f"{table.title or name}. {caption}", label=name)


def report_folder(
    folder: Path,
    *,
    replicates: int = REPLICATES,
    details: bool = False,
    markup: str | None = None,
    heading: str = "",
    failures: Mapping[str, str] | None = None,
) -> int:
    """Write the report of a bench folder or run, and print its verdict and table."""
    from fedlas.lab.report.bench_tables import short_bench_table
    from fedlas.lab.report.report import read_report, write_report
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.present.table import markdown_table
    from fedlas.stats.estimates import check_replicates

    check_replicates(replicates)
    require_report_packages()
    if RunFolder(folder).is_finished:
        if markup is not None:
            raise InputError(
                "--markdown and --latex require a bench folder",
                f"the run {folder}",
                "Omit the option, or call fedlas.report(predictions).to_latex() in Python.",
            )
        return _report_run(folder, heading, replicates=replicates, details=details)
    model = read_report(folder, replicates=replicates, failures=failures)
    # Shown first: on a full disk the page cannot be written.
    if markup is not None:
        table = short_bench_table(model, aurc=True)
        print_lines(
            *(
                _latex_table(table, model, folder) if markup == "latex" else markdown_table(table)
            ).split("\n")
        )
        write_report(model, heading=heading)
        return 0
    print_bench(model, details=details)
    written = write_report(model, heading=heading)
    print_lines(f"report: {written.html}")
    if details:
        print_lines(f"        {written.markdown}  {written.csv}")
    return 0


def _report_run(folder: Path, heading: str, *, replicates: int, details: bool) -> int:
    """Report a single run: its test predictions before and after temperature scaling."""
    from fedlas.lab.report.bench_tables import PAGE
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.lab.studies.run_parts import load_held_out, load_test_predictions
    from fedlas.present.table import print_blocks

    run = RunFolder(folder)
    evaluation = fedlas.report(
        load_test_predictions(folder),
        on=load_held_out(folder),
        num_bins=run.num_bins,
        replicates=replicates,
        name=run.name,
        title=heading,
    )
    print_blocks(evaluation.blocks(details=details), details=details)
    print_lines(f"report: {write_text(run.require_inside(folder / PAGE), evaluation.html())}")
    return 0


def print_bench(model: Result, *, details: bool = False) -> None:
    """Print the verdict and the table of a bench: the short table, or all numbers with ``details``."""
    from fedlas.lab.report.bench_tables import detailed_bench_table, short_bench_table
    from fedlas.lab.report.verdict import answers, missing_notes, short_legend, verdict_sentence
    from fedlas.present.table import terminal_table

    lines = [f"{answer.question}: {answer.text}" for answer in answers(model)]
    print_lines(*(lines if details else filter(None, [verdict_sentence(model)])), wrap=True)
    if details:
        print_renderable(terminal_table(detailed_bench_table(model), details=True, arrows=False))
    else:
        print_renderable(terminal_table(short_bench_table(model), arrows=False))
        print_lines(*short_legend(model), style="dim", wrap=True)
        print_lines(*missing_notes(model), wrap=True)
