"""``fedlas evaluate``: measures predictions, of a run or of anybody."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import path_argument
from fedlas._core.terminal import say, show, status
from fedlas.cli.arguments import (
    AddSubcommand,
    add_columns,
    add_data,
    add_details,
    add_replicates,
    add_samples,
    columns_of,
)
from fedlas.cli.metrics_table import show_metrics
from fedlas.cli.positive_class import show_positive_class
from fedlas.cli.ranking_table import show_ranking
from fedlas.cli.reject import check_reject, plain, rejections, show_rejections
from fedlas.cli.watch import watch
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.run_parts import run_held_out
from fedlas.metrics import evaluate
from fedlas.predictions import Columns, Predictions, Reader
from fedlas.predictions.predictions import AnyPredictions, check_predictions
from fedlas.present.calibrate import ALL, Calibrated, HeldOut, calibrated, remarks
from fedlas.present.evaluation import COMPARED, classes_of, size_of, verdicts, write_evaluation
from fedlas.present.groups import MOST, groups_table, plain_groups, whole_of, worst_group
from fedlas.present.intervals import estimates_by_stage
from fedlas.present.page import require_page_packages
from fedlas.present.positive_class import positive_as_json, positive_class
from fedlas.present.ranking import ranking
from fedlas.present.table import terminal
from fedlas.stats import GroupEstimate, group_estimates
from fedlas.stats.estimates import REPLICATES, check_replicates


def add_evaluate(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_evaluate, "FILE")
    parser.add_argument("file", type=Path, metavar="FILE", help="predictions, or a run folder")
    add_columns(parser, top_label=True)
    add_samples(parser)
    parser.add_argument("--watch", action="store_true", help="measure again when FILE changes (default: once)")
    parser.add_argument("--num-bins", type=int, default=15, help="bins of calibration errors (default: %(default)s)")
    add_replicates(parser)
    parser.add_argument(
        "--calibrate",
        metavar="NAME",
        help="calibrator to fit on --on and apply, e.g. temperature, or 'all' to compare them (default: none)",
    )
    parser.add_argument(
        "--on", type=Path, metavar="FILE", help="held-out predictions to fit on (default: a run folder's val)"
    )
    parser.add_argument(
        "--reject",
        type=float,
        nargs="+",
        default=(),
        metavar="RISK",
        help="reject option (selective classification): from which confidence on at most this share is wrong, e.g. "
        "0.05, chosen on --on and applied to FILE (default: none)",
    )
    parser.add_argument(
        "--report",
        type=path_argument,
        metavar="HTML",
        help="where to write a page with reliability diagrams (default: nowhere)",
    )
    add_details(parser, "print every metric with its interval (default: the main ones)")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, fractions in full precision (default: a table in percent)"
    )
    add_data(parser, "where a run's data is, if a calibrator needs its model")


def _evaluate(args: argparse.Namespace) -> int:
    measure = functools.partial(
        evaluate_file,
        args.file,
        num_bins=args.num_bins,
        replicates=args.replicates,
        calibrate=args.calibrate,
        on=args.on,
        reject=args.reject,
        html=args.report,
        as_json=args.json,
        data=args.data,
        table=columns_of(args),
        details=args.details,
    )
    if not args.watch:
        return measure()
    file = RunFolder(args.file).part_path("test") if args.file.is_dir() else args.file
    return watch([path for path in (file, args.on) if path is not None], measure)


def evaluate_file(
    file: Path,
    *,
    num_bins: int = 15,
    replicates: int = REPLICATES,
    calibrate: str | None = None,
    on: Path | None = None,
    reject: Sequence[float] = (),
    html: Path | None = None,
    as_json: bool = False,
    data: str | None = None,
    table: Columns | None = None,
    details: bool = False,
) -> int:
    """Measure predictions, before and after an optional calibrator, or after every one that can run.

    Args:
        file: ``.npz`` with ``logits`` and ``target``, or with ``confidence`` and ``correct``; or a run folder, whose
            test predictions are taken (and whose validation predictions calibrate); with ``table`` also CSV, JSON
            lines or Parquet.
        num_bins: Bins of the calibration errors.
        replicates: Of intervals and noise floors; 0 computes none.
        calibrate: Registry name of a calibrator to fit on ``on``, or ``"all"`` to compare those that can run.
        on: Validation predictions; needed with ``calibrate`` and ``reject`` unless ``file`` is a run folder.
        reject: Wanted shares of wrong among accepted predictions, each in (0, 1): print the confidence to accept from.
        html: Where to write a page with tables and reliability diagrams.
        as_json: Print JSON with fractions in full precision instead of a table.
        data: Where a run's data is, for calibrators that are fitted on predictions that its model must make.
        table: Which columns of ``file`` and ``on`` hold scores and labels; None for what Predictions.save writes.
        details: Print every metric with its interval, noise floor and p-value.

    Raises:
        InputError: For files that are not predictions, an unknown calibrator or one that cannot run, ``calibrate``
            without ``on`` or the reverse, a risk out of range, ``on`` that is ``file``, or ``html`` that is one of
            them or does not end in ``.html``.
    """
    # What cannot be meant is refused before anything is read.
    check_replicates("fedlas evaluate", replicates)
    check_reject(reject, calibrate, held_out=on is not None or file.is_dir())
    if on is not None and calibrate is None and not reject:
        fix = "Name one, e.g. --calibrate temperature."
        raise InputError("fedlas evaluate", "--on needs --calibrate or --reject", on, fix)
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise InputError("fedlas evaluate", "--report must end in .html", html, "Name a page, e.g. --report out.html.")
    if html is not None:
        require_page_packages()
    folder = file if file.is_dir() else None
    if folder is not None and table is not None:
        raise InputError("fedlas evaluate", "columns are for files", f"the run {file}", "Leave their options out.")
    if table is not None and table.groups is not None and calibrate == ALL:
        fix = "Name one calibrator, or leave --groups out."
        raise InputError("fedlas evaluate", "--groups goes with one calibrator at most", "--calibrate all", fix)
    if folder is not None:
        file = RunFolder(folder).part_path("test")
    if html is not None and html.resolve() in [path.resolve() for path in (file, on) if path is not None]:
        raise InputError("fedlas evaluate", "--report must be another file", html, "It would replace predictions.")
    if on is not None and on.resolve() == file.resolve():
        raise InputError(
            "fedlas evaluate",
            "--on must be other predictions than FILE",
            on,
            "Pass held-out ones, such as val.npz; fitting on what is measured would flatter it.",
        )
    # The predictions, and what the calibrators make of them.
    read = Reader(table)
    found = read.read(file)
    stages: dict[str, AnyPredictions] = {"as predicted": found.predictions}
    of_all_classes: dict[str, Predictions] = {}  # what calibrators take, and thresholds
    if calibrate is not None or reject:
        owner = "--reject" if calibrate is None else "--calibrate"
        of_all_classes["as predicted"] = check_predictions(owner, found.predictions)
    outcome, held_out = Calibrated({}), HeldOut(None)
    if calibrate is not None and on is None and folder is None:
        raise InputError(
            "fedlas evaluate",
            "--calibrate needs held-out predictions",
            "no --on",
            "Pass --on val.npz; fitting on the test set would flatter it.",
        )
    if calibrate is not None or reject:
        with status() as tell:
            val = None if on is None else read(on)
            held_out = (
                HeldOut(val, show=tell) if folder is None else run_held_out(folder, val=val, data=data, show=tell)
            )
            if calibrate is not None:
                outcome = calibrated(calibrate, of_all_classes["as predicted"], held_out)
    say(*(f"note: {note}" for note in outcome.notes), stderr=True)
    if calibrate is not None:
        of_all_classes |= {f"after {name}": predictions for name, predictions in outcome.predictions.items()}
        stages |= of_all_classes
    rejected = rejections(of_all_classes, reject, calibrate, held_out)
    say(*(f"note: {note}" for note in read.notes), stderr=True)
    # Their metrics and intervals.
    columns = {stage: evaluate(predictions, num_bins=num_bins) for stage, predictions in stages.items()}
    noise = estimates_by_stage(
        stages,
        COMPARED if calibrate == ALL else list(columns["as predicted"]),
        num_bins=num_bins,
        replicates=replicates,
        values=columns,
    )
    groups: dict[str, dict[str, GroupEstimate]] = {}
    if found.groups is not None:
        for stage, each in stages.items():
            groups[stage] = group_estimates(each, found.groups, num_bins=num_bins, replicates=replicates)
    group_tables = [
        (
            worst_group(by_name),
            groups_table(
                by_name,
                title=f"Groups by {table.groups if table else ''}, {stage}",
                whole=whole_of(columns[stage], noise.get(stage, {}), found.predictions.num_samples),
                most=None if details else MOST,
            ),
        )
        for stage, by_name in groups.items()
    ]
    positive = positive_class(stages, replicates=replicates)
    # JSON, or the verdict and a table; and the page.
    if as_json:
        chance = {"intervals": {stage: {k: v.plain() for k, v in known.items()} for stage, known in noise.items()}}
        content: dict[str, Any] = {
            **columns,
            **(chance if noise else {}),
            **({"groups": {stage: plain_groups(by_name) for stage, by_name in groups.items()}} if groups else {}),
            **positive_as_json(positive),
            **({"not run": dict(outcome.not_run)} if calibrate == ALL else {}),
            **(plain(rejected) if rejected else {}),
            **({"ranking": [asdict(place) for place in ranking(columns, of_all_classes)]} if calibrate == ALL else {}),
        }
        say(*json.dumps(content, indent=2).split("\n"))
    else:
        title = f"{file.name}: {size_of(found.predictions)}, {num_bins} bins"
        if calibrate == ALL:
            show_ranking(columns, of_all_classes, title=title, noise=noise, details=details)
        else:
            said = [*verdicts(columns, noise, found.predictions.num_samples), *(text for text, _ in group_tables)]
            say(*said, wrap=True)
        if calibrate != ALL and (details or not groups):  # a table of groups and one of metrics do not fit a terminal
            classes = classes_of(found.predictions)
            show_metrics(columns, title=title, noise=noise, details=details, num_classes=classes)
        if not groups:
            show_positive_class(stages, positive, details=details)
        for _, rows in group_tables:
            show(terminal(rows, details=details))
        say(*remarks(outcome, short=calibrate == ALL), wrap=True)
        show_rejections(rejected)
    if html is not None:
        write_evaluation(
            html,
            stages,
            columns,
            name=file.name,
            num_bins=num_bins,
            remarks=[*remarks(outcome), *read.notes],
            noise=noise,
            groups=group_tables,
            positive=positive,
        )
        if not as_json:
            say(f"report: {html}")
    return 0
