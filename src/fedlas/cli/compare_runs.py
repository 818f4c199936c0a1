"""``fedlas compare FOLDER``: compares the methods of benches over seeds and data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.check import InputError
from fedlas._core.terminal import print_lines
from fedlas.cli.markup import print_in_format
from fedlas.predictions.tables.outputs import Output, check_outputs

if TYPE_CHECKING:
    from fedlas.lab.report.result import BenchResult
    from fedlas.present.table import Block


def compare_runs(args: argparse.Namespace) -> int:
    """Compare all methods of benches, or the named pairs; return the exit status."""
    from fedlas.lab.report.result import METRICS_SHOWN
    from fedlas.present.page import PICTURE_KIND, write_picture

    pairs = [name for name in args.names if ":" in name and not Path(name).is_dir()]
    folders = [Path(name) for name in args.names if name not in pairs]
    if not folders:
        raise InputError(
            "a pair A:B requires a bench folder",
            args.names,
            "Name the bench folder before the pairs.",
        )
    check_outputs([Output("--plot", path, PICTURE_KIND) for path in args.plot], folders)
    result = _read_result(args, folders, pairs)
    # A comparison that was planned is of one measure.
    default = METRICS_SHOWN[:1] if pairs else METRICS_SHOWN
    metrics = [metric.lower() for metric in args.metrics or default]
    ropes = [] if args.rope is None else [args.rope]
    bayes = [result.bayes_table(metric, rope, pairs) for rope in ropes for metric in metrics]
    if pairs and len(folders) == 1:
        return _print_planned_differences(args, result, pairs, metrics)
    for path in args.plot:
        write_picture(result.figure(metrics[0]).figure, path)
    blocks: list[Block] = [result.pairs_table(pairs, metric) for metric in metrics if pairs]
    if not pairs and args.markup == "latex":
        print_lines(*result.to_latex(metrics).split("\n"))
    elif not pairs:
        blocks = result.blocks(metrics, details=args.details)
    print_in_format(args, [*blocks, *bayes])
    return 0


def _read_result(args: argparse.Namespace, folders: list[Path], pairs: list[str]) -> BenchResult:
    """Return the result of the benches for the calibrators that the arguments name."""
    from fedlas.lab.report.read_benches import read_bench_result

    named = [side.partition("@")[2] or "raw" for pair in pairs for side in pair.split(":")]
    calibrators = args.method or list(dict.fromkeys(named)) or ["raw"]
    about = {"replicates": args.replicates, "name": args.title}
    if args.stage == "raw":
        return read_bench_result(folders, calibrators, **about)
    if args.method or any("@" in pair for pair in pairs):
        raise InputError(
            "--stage must not be combined with --method or A@CALIBRATOR",
            args.stage,
            "Omit --stage.",
        )
    return read_bench_result(folders, [args.stage], with_calibrator_names=False, **about)


def _print_planned_differences(
    args: argparse.Namespace, result: BenchResult, pairs: list[str], metrics: list[str]
) -> int:
    """Print pre-specified differences between methods of a bench, with tests over seeds."""
    from fedlas.lab.report.compare import differences_figure
    from fedlas.lab.results.differences import method_differences
    from fedlas.present.differences import (
        NARROW_COLUMNS,
        SEEDS_LEGEND,
        difference_sentence,
        differences_table,
    )
    from fedlas.present.page import write_picture
    from fedlas.present.table import metric_column

    (model,) = result.models.values()
    summary = model.summary
    by_metric = {name: method_differences(summary, pairs, metric=name) for name in metrics}
    for path in args.plot:
        write_picture(differences_figure(by_metric), path)
    when = "as trained, " if args.stage == "raw" else f"after {args.stage}, "
    if any("@" in pair for pair in pairs):
        when = ""
    blocks: list[Block] = []
    for metric, each in by_metric.items():
        about = metric_column(metric)
        title = f"{f'{about.title} {about.unit}'.strip()}, {when}{summary.recipe}"
        table = differences_table(each, title=title, row_label="pair")
        whole = args.details or args.markup is not None
        blocks += [
            *(difference_sentence(difference) for difference in each),
            table if whole else table.where(NARROW_COLUMNS),
        ]
    print_in_format(args, [*blocks, SEEDS_LEGEND], SEEDS_LEGEND)
    return 0
