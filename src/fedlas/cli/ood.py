"""``fedlas runs ood``: measures how well runs detect out-of-distribution data."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, check_choice, suggestion
from fedlas._core.progress import show_status
from fedlas._core.terminal import print_lines, print_renderable
from fedlas.cli.arguments import AddSubcommand, add_data_folder, add_flag, add_option, add_path
from fedlas.cli.recipe_options import add_set
from fedlas.predictions.tables.outputs import check_report_files

if TYPE_CHECKING:
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.lab.studies.ood.measure import ScoreSelection


def add_ood(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs ood``."""
    parser = add(_run, "RUN [RUN ...]")
    add_path(parser, "runs", "RUN", "folders of finished runs, or of a bench", nargs="+")
    add_option(
        parser,
        "--data",
        "NAME[:ROOT]",
        "data sets to detect, or LABEL=NAME:ROOT (default: the classes that the run held out)",
        nargs="+",
        default=[],
    )
    add_option(
        parser,
        "--scores",
        "SCORE",
        "scores, see 'fedlas list ood' (default: all)",
        nargs="+",
        default=[],
    )
    add_set(parser, "SCORE.KEY=VALUE", "set an option of a score, e.g. knn.k=10")
    add_path(
        parser,
        "--out",
        "FOLDER",
        "folder of the report (default: the run, or the folder of all runs)",
    )
    add_data_folder(parser, "folder of the runs' own data", flag="--run-data")
    add_option(
        parser,
        "--replicates",
        "N",
        "replicates of intervals, at least 39 (default: %(default)s)",
        type=int,
        default=1000,
    )
    add_flag(parser, "--details", "print every table and how to read it (default: the ranking)")


def _run(args: argparse.Namespace) -> int:
    from fedlas.lab.recipes.recipe import parse_options
    from fedlas.lab.report.ood import (
        SELECTION_NOTE,
        TERMINAL_METRICS,
        best_score_sentences,
        explanation_sentences,
        method_tables,
        score_tables,
        warning_sentences,
        write_ood_report,
    )
    from fedlas.lab.results.detection import Detection
    from fedlas.lab.runs.bench_folder import warn_skipped
    from fedlas.lab.studies.ood.measure import measure_ood_detection
    from fedlas.lab.studies.ood.sets import parse_datasets
    from fedlas.present.page import OOD_PAGE, require_page_packages
    from fedlas.present.table import terminal_table
    from fedlas.stats.intervals import check_bootstrap_options

    require_page_packages()
    named = parse_datasets(args.data)
    chosen = choose_scores(args.scores, parse_options(args.set))
    check_bootstrap_options(
        confidence_level=0.95, replicates=args.replicates, seed=0, method="percentile"
    )
    runs, skipped = _find_finished_runs(args.runs, args.run_data)
    target = args.out or _common_folder(runs)
    check_report_files(target, "ood.html", OOD_PAGE, ("ood.csv",))
    with show_status() as tell:
        measured = []
        for run in runs:
            try:
                measured.append(
                    measure_ood_detection(
                        run,
                        named,
                        chosen,
                        replicates=args.replicates,
                        strict=bool(args.scores),
                        show=tell,
                    )
                )
            except InputError as error:
                # A damaged run does not keep the others from being measured.
                if run.path in args.runs or (run == runs[-1] and not measured):
                    raise
                skipped.append(warn_skipped(run.name, error))
    # Losses keep the order in which they were named, and each has its seeds in a row.
    losses = list(dict.fromkeys(result.loss for result in measured))
    measured.sort(key=lambda result: (losses.index(result.loss), result.seed))
    detection = Detection(measured, chosen, args.replicates, skipped)
    command = shlex.join(["fedlas", *sys.argv[1:]])
    table_file, page = write_ood_report(target, detection, command=command)
    print_lines(*best_score_sentences(detection), wrap=True)
    # The files hold every table; the terminal shows only those that answer the question.
    compared = method_tables(detection) if len(losses) > 1 else []
    tables = (
        [*compared, *score_tables(detection)]
        if args.details
        else compared[::2] or score_tables(detection, TERMINAL_METRICS[:1])
    )
    for table in tables:
        print_renderable(terminal_table(table))
    print_lines(
        SELECTION_NOTE,
        *(explanation_sentences(detection) if args.details else warning_sentences(detection)),
        wrap=True,
    )
    print_lines(f"report: {page}", f"        {table_file}")
    return 0


def choose_scores(scores: Sequence[str], options: Mapping[str, Any]) -> ScoreSelection:
    """Return the OOD scores to compute, all if none is named; raise InputError for unknown names or options."""
    from fedlas.lab.studies.ood.measure import ScoreSelection
    from fedlas.zoo.ood import OOD_SCORES
    from fedlas.zoo.ood.base import INPUTS

    names = list(scores) or list(OOD_SCORES)
    for name in names:
        check_choice("--scores", name, OOD_SCORES)
    if len(set(names)) != len(names):
        raise InputError("--scores must be distinct", " ".join(names), "Name each score once.")
    for name, values in options.items():
        if name not in names or not isinstance(values, Mapping):
            raise InputError(
                "--set must be SCORE.KEY=VALUE for a computed score",
                name,
                suggestion(name, names)
                if name not in names
                else f"Write e.g. --set {name}.KEY=VALUE.",
            )
        # A misspelled option must not pass unnoticed and leave the default in place.
        OOD_SCORES.resolve_options(name, values, INPUTS)
    return ScoreSelection(names, options)


def _find_finished_runs(
    folders: Sequence[Path], data: str | None
) -> tuple[list[RunFolder], list[str]]:
    """Return the finished runs in the folders, and the reasons why other runs are skipped."""
    from fedlas.lab.runs.begin import require_finished
    from fedlas.lab.runs.bench_folder import find_runs
    from fedlas.lab.runs.collection import check_same_settings

    runs, skipped = find_runs(folders, _reason_to_skip, content="finished runs", data=data)
    shown = ", ".join(str(folder.path) for folder in runs)
    for folder in runs:
        require_finished(folder)
    fix = "Name only runs of one recipe with the same settings; measure others in a call of their own."
    check_same_settings([(folder.name, folder.run.config()) for folder in runs], fix)
    if len({(folder.run.loss, folder.run.seed) for folder in runs}) != len(runs):
        raise InputError("runs must differ in loss or seed", shown, "Omit the repeated run.")
    return runs, skipped


def _reason_to_skip(folder: RunFolder) -> str | None:
    from fedlas.lab.runs.begin import read_metrics_if_finished

    if folder.config is None:
        return None
    if folder.is_derived:
        return "it is built from other runs and has no model of its own."
    return "it is not finished." if read_metrics_if_finished(folder.run, folder) is None else ""


def _common_folder(runs: Sequence[RunFolder]) -> Path:
    if len(runs) == 1:
        return runs[0].path
    parents = {run.path.resolve().parent for run in runs}
    if len(parents) > 1:
        raise InputError(
            "--out is required for runs in different folders",
            ", ".join(sorted(map(str, parents))),
            "Name the folder of the report with --out.",
        )
    return runs[0].path.parent
