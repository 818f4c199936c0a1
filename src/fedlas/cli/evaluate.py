"""``fedlas evaluate`` on the command line, and the options that say which columns of a table hold what."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import path_argument
from fedlas.predictions.columns import OWNER, Columns, split_names

AddVerb = Callable[[str, Callable[[argparse.Namespace], int], str, str], Any]
"""``add(name, run, summary, positional)``: a parser for a new verb."""


def add_evaluate(add: AddVerb) -> None:
    """Add the verb that measures predictions, of a run or of anybody."""
    evaluate = add(
        "evaluate", _evaluate, "Measure predictions: .npz, .csv, .parquet, .jsonl, or a run's test set.", "FILE"
    )
    evaluate.add_argument("file", type=Path, metavar="FILE", help="predictions, or a run folder")
    add_column_arguments(evaluate)
    evaluate.add_argument("--watch", action="store_true", help="measure again when FILE changes (default: once)")
    evaluate.add_argument("--num-bins", type=int, default=15, help="bins of calibration errors (default: %(default)s)")
    evaluate.add_argument(
        "--replicates",
        type=int,
        default=1000,
        metavar="N",
        help="replicates of intervals and noise floors; 0 computes none (default: %(default)s)",
    )
    evaluate.add_argument(
        "--calibrate",
        metavar="NAME",
        help="calibrator to fit on --on and apply, e.g. temperature, or 'all' to compare them (default: none)",
    )
    evaluate.add_argument(
        "--on", type=Path, metavar="FILE", help="predictions to fit the calibrator on (default: a run folder's val)"
    )
    evaluate.add_argument(
        "--report",
        type=path_argument,
        metavar="HTML",
        help="where to write a page with reliability diagrams (default: nowhere)",
    )
    evaluate.add_argument(
        "--details", action="store_true", help="print every metric with its interval (default: the main ones)"
    )
    evaluate.add_argument(
        "--json", action="store_true", help="print JSON, fractions in full precision (default: a table in percent)"
    )
    evaluate.add_argument(
        "--data",
        metavar="FOLDER",
        help="where a run's data is, if a calibrator needs its model (default: $FEDLAS_DATA, then the usual places)",
    )


def add_column_arguments(parser: Any) -> None:
    """Add ``--logits``, ``--probs``, ``--target`` and ``--classes``."""
    parser.add_argument(
        "--logits",
        metavar="COLUMNS",
        help="columns of logits in the order of the classes, a,b,c or 'logit_*'; one column: of two classes' second, "
        "or of lists (default: an .npz's array logits)",
    )
    parser.add_argument(
        "--probs", metavar="COLUMNS", help="columns of probabilities instead, named in the same ways (default: none)"
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of the labels: class names, or numbers from 0 (default: none)"
    )
    parser.add_argument(
        "--classes", metavar="A,B,C", help="class names in the order of the columns (default: what * stands for)"
    )


def columns_of(args: argparse.Namespace) -> Columns | None:
    """What these options say; None if none was given, as for an ``.npz`` with ``logits`` and ``target``.

    Raises:
        InputError: If they say half of it, or contradict each other.
    """
    if args.logits is None and args.probs is None:
        if args.target is None and args.classes is None:
            return None
        got = "--target" if args.target is not None else "--classes"
        raise InputError(OWNER, f"{got} goes with --logits or --probs", "neither", "Say which columns hold the scores.")
    return Columns(args.logits, args.probs, args.target, split_names(args.classes))


def _evaluate(args: argparse.Namespace) -> int:
    from fedlas.cli.evaluation import evaluate_file
    from fedlas.cli.watch import watch

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
    from fedlas.lab.runs.folder import RunFolder

    file = RunFolder(args.file).part_path("test") if args.file.is_dir() else args.file
    return watch([path for path in (file, args.on) if path is not None], measure)
