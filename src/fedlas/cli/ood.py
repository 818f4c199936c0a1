"""``fedlas runs ood``: measures how well runs detect out-of-distribution data."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, check_choice, suggestion
from fedlas._core.progress import status
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_data_folder, add_path, flag, option
from fedlas.cli.bench_group import add_set
from fedlas.predictions.tables.outputs import check_report

if TYPE_CHECKING:
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.lab.studies.ood.measure import Chosen


def add_ood(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs ood``."""
    parser = add(_ood, "RUN [RUN ...]")
    add_path(parser, "runs", "RUN", "folders of finished runs, or of a bench", nargs="+")
    option(
        parser,
        "--data",
        "NAME[:ROOT]",
        "data sets to detect, or LABEL=NAME:ROOT (default: the classes that the run held out)",
        nargs="+",
        default=[],
    )
    option(
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
    option(
        parser,
        "--replicates",
        "N",
        "replicates of intervals, at least 39 (default: %(default)s)",
        type=int,
        default=1000,
    )
    flag(parser, "--details", "print every table and how to read it (default: the ranking)")


def _ood(args: argparse.Namespace) -> int:
    from fedlas.lab.recipes.recipe import parse_options
    from fedlas.lab.report.ood import (
        MAIN,
        SELECTION,
        method_tables,
        score_tables,
        statement,
        verdicts,
        warnings,
        write_files,
    )
    from fedlas.lab.results.detection import Detection
    from fedlas.lab.runs.bench_folder import leave_out
    from fedlas.lab.studies.ood.measure import measure_run
    from fedlas.lab.studies.ood.sets import parse_sets
    from fedlas.present.page import OOD_PAGE, require_page_packages
    from fedlas.present.table import terminal
    from fedlas.stats.intervals import check_bootstrap

    require_page_packages()
    named = parse_sets(args.data)
    chosen = choose_scores(args.scores, parse_options(args.set))
    check_bootstrap(confidence_level=0.95, replicates=args.replicates, seed=0, method="percentile")
    runs, skipped = _chosen_runs(args.runs, args.run_data)
    target = args.out or _common_folder(runs)
    check_report(target, "ood.html", OOD_PAGE, ("ood.csv",))
    with status() as tell:
        measured = []
        for run in runs:
            try:
                measured.append(
                    measure_run(
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
                skipped.append(leave_out(run.name, error))
    # Losses keep the order in which they were named, and each has its seeds in a row.
    losses = list(dict.fromkeys(result.loss for result in measured))
    measured.sort(key=lambda result: (losses.index(result.loss), result.seed))
    detection = Detection(measured, chosen, args.replicates, skipped)
    command = shlex.join(["fedlas", *sys.argv[1:]])
    table_file, page = write_files(target, detection, command=command)
    say(*verdicts(detection), wrap=True)
    # The files hold every table; the terminal shows only those that answer the question.
    compared = method_tables(detection) if len(losses) > 1 else []
    tables = (
        [*compared, *score_tables(detection)]
        if args.details
        else compared[::2] or score_tables(detection, MAIN[:1])
    )
    for table in tables:
        show(terminal(table))
    say(SELECTION, *(statement(detection) if args.details else warnings(detection)), wrap=True)
    say(f"report: {page}", f"        {table_file}")
    return 0


def choose_scores(scores: Sequence[str], options: Mapping[str, Any]) -> Chosen:
    """Return the OOD scores to compute, all if none is named; raise InputError for unknown names or options."""
    from fedlas.lab.studies.ood.measure import Chosen
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
        OOD_SCORES.check_options(name, values, INPUTS)
    return Chosen(names, options)


def _chosen_runs(folders: Sequence[Path], data: str | None) -> tuple[list[RunFolder], list[str]]:
    """Return the finished runs in the folders, and the reasons why other runs are skipped."""
    from fedlas.lab.runs.begin import must_be_finished
    from fedlas.lab.runs.bench_folder import find_runs
    from fedlas.lab.runs.collection import check_alike

    runs, skipped = find_runs(folders, _why_not, content="finished runs", data=data)
    shown = ", ".join(str(folder.path) for folder in runs)
    for folder in runs:
        must_be_finished(folder)
    fix = "Name only runs of one recipe with the same settings; measure others in a call of their own."
    check_alike([(folder.name, folder.run.config()) for folder in runs], fix)
    if len({(folder.run.loss, folder.run.seed) for folder in runs}) != len(runs):
        raise InputError("runs must differ in loss or seed", shown, "Omit the repeated run.")
    return runs, skipped


def _why_not(folder: RunFolder) -> str | None:
    from fedlas.lab.runs.begin import finished

    if folder.config is None:
        return None
    if folder.is_derived:
        return "it is built from other runs and has no model of its own."
    return "it is not finished." if finished(folder.run, folder) is None else ""


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
