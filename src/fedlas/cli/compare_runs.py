"""``fedlas compare-runs``: methods of benches side by side, or pre-specified differences, over seeds and data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.check import InputError
from fedlas._core.terminal import say
from fedlas.cli.arguments import AddSubcommand, add_method, add_path, add_replicates, flag, option
from fedlas.predictions.tables.outputs import Output, check_outputs

if TYPE_CHECKING:
    from fedlas.lab.report.result import BenchResult
    from fedlas.present.table import Block


def add_compare_runs(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_compare_runs, "FOLDER [FOLDER ...] [A:B ...]")
    text = (
        "folders of benches, and pairs of methods that you planned to compare: A minus B, e.g. fedlas:ls, or "
        "ce@auto:ce@temperature with calibrators"
    )
    option(parser, "names", "NAME", text, nargs="+")
    metrics = "metrics (default: ece for pairs in one bench, else nll ece)"
    option(parser, "--metrics", "NAME", metrics, nargs="+", default=[])
    add_calibrators(parser)
    text = "before or after a calibrator, without its name in the table (default: raw)"
    option(parser, "--stage", "NAME", text, default="raw")
    text = "terminal, markdown or latex (default: %(default)s)"
    forms = ("terminal", "markdown", "latex")
    option(parser, "--format", None, text, choices=forms, default="terminal")
    parser.add_argument(
        "--markdown",
        dest="format",
        action="store_const",
        const="markdown",
        help="the same as --format markdown (default: --format)",
    )
    text = (
        "over several benches, also the probability that one method is better, by Bayesian signed ranks; differences "
        "up to X in the metric are equivalent, e.g. 0.005 for half a point of an ECE (default: none)"
    )
    option(parser, "--rope", "X", text, type=float)
    title = "title of the tables (default: the recipe, or the number of data sets)"
    option(parser, "--title", "TEXT", title, default="")
    text = "also draw them: .svg, .png or .pdf; seed by seed, or ranks over several benches (default: none)"
    add_path(parser, "--plot", "FILE", text, nargs="+", default=[])
    add_replicates(parser)
    flag(parser, "--details", "show means or deviations, too (default: what fits)")


def add_calibrators(parser: argparse.ArgumentParser) -> None:
    """Add ``--method``."""
    text = "calibrators after each loss, e.g. raw temperature auto; nothing is trained again (default: none)"
    add_method(parser, "--calibrators", text, nargs="+", default=[])


def _compare_runs(args: argparse.Namespace) -> int:
    from fedlas.lab.report.result import METRICS_SHOWN
    from fedlas.present.page import PICTURE, write_picture

    pairs = [name for name in args.names if ":" in name and not Path(name).is_dir()]
    folders = [Path(name) for name in args.names if name not in pairs]
    if not folders:
        raise InputError("a folder of a bench must be named", args.names, "Name its --out first.")
    check_outputs([Output("--plot", path, PICTURE) for path in args.plot], folders)
    result = _result(args, folders, pairs)
    metrics = [metric.lower() for metric in args.metrics] or METRICS_SHOWN
    ropes = [] if args.rope is None else [args.rope]
    bayes = [result.bayes_table(metric, rope, pairs) for rope in ropes for metric in metrics]
    if pairs and len(folders) == 1:
        return _differences(args, result, pairs)
    for path in args.plot:
        write_picture(result.figure(metrics[0]).figure, path)
    blocks: list[Block] = [result.pairs_table(pairs, metric) for metric in metrics if pairs]
    if not pairs and args.format == "latex":
        say(*result.to_latex(metrics).split("\n"))
    elif not pairs:
        blocks = result.blocks(metrics, details=args.details)
    _show(args, [*blocks, *bayes])
    return 0


def _show(args: argparse.Namespace, blocks: Sequence[Block], caption: str = "") -> None:
    """Print sentences and tables in the chosen form; LaTeX is tables alone."""
    from fedlas.present.table import Table, latex, show_blocks

    if args.format != "latex":
        show_blocks(blocks, as_markdown=args.format == "markdown", details=args.details)
    for block in blocks:
        if args.format == "latex" and isinstance(block, Table):
            text = f"{block.title}. {caption or ' '.join(block.notes)}"
            say(*latex(block, caption=text).split("\n"))


def _result(args: argparse.Namespace, folders: list[Path], pairs: list[str]) -> BenchResult:
    """Return the benches with the methods that the arguments name."""
    from fedlas.lab.report.read_benches import bench_result

    named = [side.partition("@")[2] or "raw" for pair in pairs for side in pair.split(":")]
    calibrators = args.method or list(dict.fromkeys(named)) or ["raw"]
    about = {"replicates": args.replicates, "name": args.title}
    if args.stage == "raw":
        return bench_result(folders, calibrators, **about)
    if args.method or any("@" in pair for pair in pairs):
        raise InputError(
            "--stage is for methods without a calibrator", args.stage, "Leave --stage out."
        )
    return bench_result(folders, [args.stage], named=False, **about)


def _differences(args: argparse.Namespace, result: BenchResult, pairs: list[str]) -> int:
    """Show pre-specified differences between methods of one bench, with tests over seeds."""
    from fedlas.lab.report.compare import (
        CAPTION,
        NARROW,
        differences_figure,
        differences_table,
        sentence,
    )
    from fedlas.lab.results.differences import method_differences
    from fedlas.present.page import write_picture

    (model,) = result.models.values()
    summary = model.summary
    metrics = [metric.lower() for metric in args.metrics or ("ece",)]
    by_metric = {name: method_differences(summary, pairs, metric=name) for name in metrics}
    for path in args.plot:
        write_picture(differences_figure(by_metric), path)
    when = "as trained, " if args.stage == "raw" else f"after {args.stage}, "
    if any("@" in pair for pair in pairs):
        when = ""
    blocks: list[Block] = []
    for metric, each in by_metric.items():
        table = differences_table(each, metric, f"{when}{summary.recipe}")
        whole = args.details or args.format != "terminal"
        blocks += [
            *(sentence(difference, metric) for difference in each),
            table if whole else table.where(NARROW),
        ]
    _show(args, [*blocks, CAPTION], CAPTION)
    return 0
