"""``fedlas compare``: pre-specified differences between methods of a bench, or two files of predictions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from fedlas._core.check import InputError
from fedlas._core.files import path_argument
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_columns, add_details, add_replicates, columns_of
from fedlas.lab.report.compare import (
    A_AND_B,
    CAPTION,
    NARROW,
    SHORT_CAPTION,
    STAGES,
    differences,
    differences_figure,
    differences_table,
    sentence,
)
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.intervals import with_estimates
from fedlas.predictions import Columns, Reader, Table
from fedlas.predictions.tables import FORMATS
from fedlas.present.page import write_picture
from fedlas.present.table import markdown as markdown_table
from fedlas.present.table import terminal
from fedlas.present.two_models import better_in, differences_of_models
from fedlas.stats.estimates import REPLICATES, check_replicates
from fedlas.stats.two_models import compare as compare_models

_OWNER = "fedlas compare"


def add_compare(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_compare, "FOLDER A:B [A:B ...] | FILE FILE")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a bench, or a file of predictions")
    parser.add_argument(
        "pairs",
        nargs="+",
        metavar="A:B",
        help="two methods: A minus B, e.g. fedlas:ls; or another model's file of the same samples",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="what to compare (default: ece; of files accuracy, nll, brier, ece)",
    )
    parser.add_argument(
        "--stage", choices=list(STAGES), default="before", help="before or after temperature scaling (default: before)"
    )
    parser.add_argument("--markdown", action="store_true", help="a Markdown table (default: one for the terminal)")
    parser.add_argument(
        "--plot",
        type=path_argument,
        metavar="FILE",
        help="also draw the differences, seed by seed: .svg, .png or .pdf (default: none)",
    )
    parser.add_argument("--theme", choices=["light", "dark"], default="light", help="of the picture (default: light)")
    add_details(parser, "show the other tests, A and B, too (default: the verdict)")
    add_columns(parser, top_label=True)
    parser.add_argument(
        "--num-bins", type=int, default=15, help="of two files: bins of calibration errors (default: %(default)s)"
    )
    add_replicates(parser)
    parser.add_argument("--json", action="store_true", help="of two files: print JSON (default: a table)")


def _compare(args: argparse.Namespace) -> int:
    columns, file = columns_of(args), args.folder
    if not file.is_file() and (file.is_dir() or file.suffix not in FORMATS):
        if columns is not None or args.json:
            fix = "Leave the options of columns out, or name two files."
            raise InputError(_OWNER, "columns and --json are for two files of predictions", f"the folder {file}", fix)
        return compare(
            file,
            args.pairs,
            metrics=args.metrics or ("ece",),
            stage=args.stage,
            markdown=args.markdown,
            plot=args.plot,
            theme=args.theme,
            details=args.details,
        )
    if len(args.pairs) != 1 or args.plot is not None:
        got = "--plot" if args.plot is not None else f"{1 + len(args.pairs)} files"
        fix = "Name two; compare more in pairs, and --plot needs runs."
        raise InputError(_OWNER, "two files of predictions can be compared, in a table", got, fix)
    return compare_files(
        file,
        Path(args.pairs[0]),
        columns,
        metrics=args.metrics,
        num_bins=args.num_bins,
        replicates=args.replicates,
        markdown=args.markdown,
        as_json=args.json,
    )


def compare_files(
    a: Path,
    b: Path,
    columns: Columns | None = None,
    *,
    metrics: Sequence[str] | None = None,
    num_bins: int = 15,
    replicates: int = REPLICATES,
    markdown: bool = False,
    as_json: bool = False,
) -> int:
    """Print in which metrics one of two models is better on the same samples.

    Args:
        a: Predictions of one model, in any form that ``fedlas evaluate`` reads.
        b: Those of another, of the same samples in the same order.
        columns: Which columns hold what in both.
        metrics: Registry names; None for accuracy, NLL, Brier score and ECE, as far as the files allow.
        num_bins: Bins of the calibration errors.
        replicates: Of the paired bootstrap.
        markdown: A Markdown table rather than one for the terminal.
        as_json: Print JSON instead.

    Returns:
        0.

    Raises:
        InputError: If a file cannot be read, the files hold different samples, or a metric cannot be had.
    """
    if replicates == 0:
        raise InputError(_OWNER, "replicates must be at least 39", 0, "Leave --replicates out, or ask for 1000.")
    check_replicates(_OWNER, replicates)
    reader = Reader(columns)
    reads = [reader.read(path) for path in (a, b)]
    _check_labels(*reads)
    say(*(f"note: {note}" for note in reader.notes), stderr=True)
    options: dict[str, int] = {"num_bins": num_bins, "replicates": replicates}
    found = compare_models(reads[0].predictions, reads[1].predictions, metrics, **options)
    if as_json:
        content = {name: {**asdict(each), "difference": each.difference} for name, each in found.items()}
        say(*json.dumps(content, indent=2).split("\n"))
        return 0
    names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    title = f"A: {names[0]}, B: {names[1]}, {reads[0].predictions.num_samples:,} samples"
    whole = differences_of_models(found, title=title)
    say(*better_in(found, names), wrap=True)
    if markdown:
        say("", *markdown_table(whole).split("\n"))
    else:
        show(terminal(whole))
    return 0


def _check_labels(a: Table, b: Table) -> None:
    """Compare the labels of top labels, which their predictions do not hold."""
    if a.labels is None or b.labels is None:
        if a.predictions.num_samples == b.predictions.num_samples and (a.has_no_labels or b.has_no_labels):
            say(
                "note: a file holds no labels: nothing shows that both hold the same samples in one order.", stderr=True
            )
        return
    differ = [row for row, pair in enumerate(zip(a.labels, b.labels, strict=False), start=1) if pair[0] != pair[1]]
    if differ and len(a.labels) == len(b.labels):
        got = f"labels that differ in {len(differ):,} of {len(a.labels):,} rows, first in row {differ[0]:,}"
        fix = "Sort both files by sample, or write them without shuffling."
        raise InputError(_OWNER, "both files must hold the same samples, in the same order", got, fix)


def compare(
    folder: Path,
    pairs: Sequence[str],
    *,
    metrics: Sequence[str] = ("ece",),
    stage: str = "before",
    markdown: bool = False,
    plot: Path | None = None,
    theme: Literal["light", "dark"] = "light",
    details: bool = False,
) -> int:
    """Print the differences between methods of a bench, with tests over seeds.

    Args:
        folder: Folder of the bench.
        pairs: ``A:B`` each: A minus B.
        metrics: Registered metrics that the runs measured.
        stage: ``before`` or ``after`` temperature scaling.
        markdown: A Markdown table rather than one for the terminal.
        plot: Picture to write of the differences, seed by seed, a panel for each metric; the end of its name (.svg,
            .png, .pdf) says of which kind.
        theme: Palette of the picture.
        details: Show the other tests, and A and B with their intervals and noise floors, too.

    Returns:
        0.

    Raises:
        InputError: If the folder holds no finished run, a pair is none, a method or metric is not there, a pair has
            no seed in common, or the picture cannot be written.
    """
    summary = with_estimates(collect(folder), replicates=0)  # that which is kept: nothing new is computed here
    asked = {metric: differences(summary, pairs, metric=metric, stage=STAGES[stage]) for metric in metrics}
    if plot is not None:
        write_picture(differences_figure(asked, theme=theme), plot)
    for metric, found in asked.items():
        whole = differences_table(found, metric, f"{stage} temperature scaling, {summary.recipe}")
        if markdown:
            say(whole.title, "", *markdown_table(whole).split("\n"), "")
            continue
        say(*(sentence(difference, metric) for difference in found), wrap=True)
        show(terminal(whole if details else whole.where(NARROW)))
    say(CAPTION if details or markdown else SHORT_CAPTION, wrap=not markdown)
    if (markdown or details) and any(any(difference.noise) for found in asked.values() for difference in found):
        say("", A_AND_B, wrap=not markdown)
    return 0
