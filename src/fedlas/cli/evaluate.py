"""``fedlas evaluate``: measures predictions, of a run or of anybody."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import path_argument
from fedlas._core.terminal import say, show, status
from fedlas.cli.arguments import AddSubcommand, add_columns, add_data, add_details, add_replicates, columns_of
from fedlas.cli.metrics_table import show_metrics
from fedlas.cli.positive_class import show_positive_class
from fedlas.cli.watch import watch
from fedlas.lab.report.evaluation import COMPARED, SELECTION, stages_table, verdicts, write_evaluation
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.report.positive_class import positive_as_json, positive_class
from fedlas.lab.report.table import terminal
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import estimates_by_stage
from fedlas.lab.studies.calibrate import ALL, Calibrated, HeldOut, calibrated, remarks
from fedlas.metrics import evaluate
from fedlas.predictions import Columns, Reader
from fedlas.stats.estimates import REPLICATES, check_replicates


def add_evaluate(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(
        "evaluate", _evaluate, "Measure predictions: .npz, .csv, .parquet, .jsonl, or a run's test set.", "FILE"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="predictions, or a run folder")
    add_columns(parser)
    parser.add_argument("--watch", action="store_true", help="measure again when FILE changes (default: once)")
    parser.add_argument("--num-bins", type=int, default=15, help="bins of calibration errors (default: %(default)s)")
    add_replicates(parser)
    parser.add_argument(
        "--calibrate",
        metavar="NAME",
        help="calibrator to fit on --on and apply, e.g. temperature, or 'all' to compare them (default: none)",
    )
    parser.add_argument(
        "--on", type=Path, metavar="FILE", help="predictions to fit the calibrator on (default: a run folder's val)"
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
    html: Path | None = None,
    as_json: bool = False,
    data: str | None = None,
    table: Columns | None = None,
    details: bool = False,
) -> int:
    """Measure predictions, before and after an optional calibrator, or after every one that can run.

    Args:
        file: ``.npz`` with ``logits`` and ``target``, or a run folder, whose test predictions are taken (and whose
            validation predictions calibrate); with ``table`` also CSV, JSON lines or Parquet.
        num_bins: Bins of the calibration errors.
        replicates: Of intervals and noise floors; 0 computes none.
        calibrate: Registry name of a calibrator to fit on ``on``, or ``"all"`` to compare those that can run.
        on: Validation predictions; needed with ``calibrate`` unless ``file`` is a run folder.
        html: Where to write a page with tables and reliability diagrams.
        as_json: Print JSON with fractions in full precision instead of a table.
        data: Where a run's data is, for calibrators that are fitted on predictions that its model must make.
        table: Which columns of ``file`` and ``on`` hold scores and labels; None for what Predictions.save writes.
        details: Print every metric with its interval, noise floor and p-value.

    Raises:
        InputError: For files that are not predictions, an unknown calibrator or one that cannot run, one of
            ``calibrate`` and ``on`` without the other, ``on`` that is ``file``, or ``html`` that is one of them or does
            not end in ``.html``.
    """
    # What cannot be meant is refused before anything is read.
    check_replicates("fedlas evaluate", replicates)
    if on is not None and calibrate is None:
        raise InputError("fedlas evaluate", "--on needs --calibrate", on, "Name one, e.g. --calibrate temperature.")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise InputError("fedlas evaluate", "--report must end in .html", html, "Name a page, e.g. --report out.html.")
    if html is not None:
        require_page_packages()
    folder = file if file.is_dir() else None
    if folder is not None and table is not None:
        raise InputError("fedlas evaluate", "columns are for files", f"the run {file}", "Leave --logits/--probs out.")
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
    stages = {"as predicted": read(file)}
    outcome = Calibrated({})
    if calibrate is not None:
        if on is None and folder is None:
            raise InputError(
                "fedlas evaluate",
                "--calibrate needs held-out predictions",
                "no --on",
                "Pass --on val.npz; fitting on the test set would flatter it.",
            )
        with status() as tell:
            outcome = calibrated(calibrate, stages["as predicted"], HeldOut(on, folder, data, tell, read))
        say(*(f"note: {note}" for note in outcome.notes), stderr=True)
        stages |= {f"after {name}": predictions for name, predictions in outcome.predictions.items()}
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
    positive = positive_class(stages, replicates=replicates)
    # JSON, or the verdict and a table; and the page.
    if as_json:
        chance = {"intervals": {stage: {k: v.plain() for k, v in found.items()} for stage, found in noise.items()}}
        content: dict[str, Any] = {
            **columns,
            **(chance if noise else {}),
            **positive_as_json(positive),
            **({"not run": dict(outcome.not_run)} if calibrate == ALL else {}),
        }
        say(*json.dumps(content, indent=2).split("\n"))
    else:
        predictions = stages["as predicted"]
        title = f"{file.name}: {predictions.num_samples:,} samples, {predictions.num_classes} classes, {num_bins} bins"
        say(*verdicts(columns, noise, predictions.num_samples), wrap=True)
        if details and calibrate == ALL:
            show(terminal(stages_table(columns, title=title, noise=noise), details=True))
        else:
            show_metrics(columns, title=title, noise=noise, details=details, num_classes=predictions.num_classes)
        show_positive_class(stages, positive, details=details)
        say(*([SELECTION] if calibrate == ALL else []), *remarks(outcome), wrap=True)
    if html is not None:
        write_evaluation(
            html,
            stages,
            columns,
            name=file.name,
            num_bins=num_bins,
            remarks=[*remarks(outcome), *read.notes],
            noise=noise,
            positive=positive,
        )
        if not as_json:
            say(f"report: {html}")
    return 0
