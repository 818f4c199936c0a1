"""``fedlas calibrate`` fits a calibrator to a labeled table; ``fedlas apply`` adds calibrated scores to any table."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, few
from fedlas._core.files import file_argument, path_argument, write_json
from fedlas._core.outputs import STANDARD
from fedlas._core.progress import Bar
from fedlas._core.terminal import say
from fedlas._core.text import command_lines, number_of
from fedlas.cli.arguments import (
    AddSubcommand,
    add_columns,
    add_files,
    add_path,
    add_samples,
    columns_of,
    flag,
    option,
)
from fedlas.predictions.tables.files import (
    FORMATS,
    address_of,
    files_of,
    local_files,
    local_names,
)
from fedlas.predictions.tables.formats.compression import suffix_of, whole_suffix
from fedlas.predictions.tables.outputs import Output, check_apart, check_outputs
from fedlas.predictions.tables.roles import Columns

if TYPE_CHECKING:
    from fedlas.calibrators import Calibrator

_SHORT_FIT = 5.0
"""Seconds of a fit without a word."""
_SUFFIX = ".calibration.json"
_FILES = f"{', '.join(FORMATS)}); several files or '*.csv' are one table; - reads standard input, "
_FILES += "s3://... what fsspec does"


def add_calibrate(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas calibrate``."""
    parser = add(_calibrate, "VAL [VAL ...]")
    add_files(parser, "files", "VAL", f"held-out scores with labels ({_FILES}", nargs="+")
    add_columns(parser)
    add_samples(parser)
    option(
        parser,
        "--method",
        "NAME",
        "calibrator; see 'fedlas list calibrators' (default: auto)",
        default="auto",
    )
    option(
        parser,
        "--method-set",
        "KEY=VALUE",
        "set an option of the calibrator, e.g. num_folds=10; may be repeated (default: none)",
        action="append",
        default=[],
    )
    text = "use only files with this year, quarter, month or day in their names, as 2026-05, or a later one"
    option(parser, "--since", "DATE", f"{text} (default: all)")
    add_path(parser, "--out", "JSON", f"file to write (default: VAL with {_SUFFIX})")
    flag(parser, "--details", "also print the weights of a mixture (default: no)")


def _calibrate(args: argparse.Namespace) -> int:
    from fedlas.calibrated.tables.files import calibrate_table
    from fedlas.calibrated.tables.since import files_since
    from fedlas.calibrated.tables.table_calibration import CALIBRATION

    columns = columns_of(args) or Columns()
    out = _place_of_calibration(args.files[0]) if args.out is None else args.out
    check_outputs([Output("--out", out, CALIBRATION)], args.files)
    calibrator = method_of(args.method, args.method_set)
    example = args.files[0]
    with local_names(args.files) as files:
        if args.since is not None:
            late = files_since(files, args.since)
            files = [*late]
            counted = [file.name for file in late]
            say(
                f"{number_of(len(late), 'file')} since {args.since}: {few(counted, 12)}.", wrap=True
            )
            example = str(late[0].path)
        with Bar(f"fitting {args.method}", total=None, after=_SHORT_FIT):
            calibration = calibrate_table(files, calibrator, columns)
    calibration.save(out)
    say(*(f"note: {note}" for note in calibration.notes), stderr=True)
    noun = "classes" if calibration.label_names is None else "labels"
    classes = f", {noun} {few(calibration.classes, 8)}" if calibration.classes else ""
    say(f"{calibration.rows:,} rows{classes}.", wrap=True)
    if calibration.cross_fitted is not None:
        say(str(calibration.cross_fitted), wrap=True)
    if args.details:
        say(str(calibration.fitted), wrap=True)
    say(f"calibration: {out}", *command_lines(apply_line(out, example), first="next: "))
    return 0


def method_of(name: str, settings: Sequence[str]) -> str | Calibrator:
    """Build the calibrator ``name`` with options ``KEY=VALUE`` (JSON or text); without options return the name.

    Raises:
        InputError: For an unknown name or option, or one without a value.
    """
    from fedlas.calibrated.calibration import unfitted_calibrator
    from fedlas.calibrators import CALIBRATORS

    if not settings:
        return name
    options: dict[str, Any] = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise InputError(
                "--method-set must be KEY=VALUE",
                repr(text),
                "Write e.g. --method-set num_folds=10.",
            )
        with suppress(ValueError):
            value = json.loads(value)
        options[key] = value
    unfitted_calibrator(name, multi_label=False)
    calibrator: Calibrator = CALIBRATORS.build(name, options)
    return calibrator


def apply_line(out: Path, file: str) -> str:
    """Return the ``fedlas apply`` command for a calibration."""
    if Path(file).is_dir() or (address_of(file) is not None and not Path(file).suffix):
        return f"fedlas apply {shlex.quote(str(out))} LIVE --out LIVE.calibrated.parquet"
    suffix = whole_suffix(Path(file)) if file != STANDARD else ".csv"
    return f"fedlas apply {shlex.quote(str(out))} LIVE{suffix} --out LIVE.calibrated{suffix}"


def _place_of_calibration(file: str) -> Path:
    if file == STANDARD or set(file) & set("*?[") or address_of(file) is not None:
        raise InputError(
            "--out is required when VAL is not a single local file",
            "no --out",
            "Add --out cal.json.",
        )
    return _with_name(Path(file)).with_suffix(_SUFFIX)


def _with_name(path: Path) -> Path:
    """Return the path, resolved if it has no name, as ``.`` and ``..``."""
    return path.resolve() if path.name in ("", "..") else path


def add_apply(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas apply``."""
    parser = add(_apply, "CALIBRATION FILE [FILE ...]")
    add_path(parser, "calibration", "CALIBRATION", "file of fedlas calibrate")
    add_files(parser, "files", "FILE", f"scores, with labels or not ({_FILES}", nargs="+")
    text = f"{', '.join(FORMATS)}, here or in a store; - is standard output"
    option(
        parser, "--out", "FILE", f"file to write, {text} (default: FILE.calibrated)", type=_out_of
    )
    option(
        parser,
        "--missing",
        None,
        "rows without a score: error refuses the file, empty keeps them with an empty cell (default: empty for answers "
        "of language models, else error)",
        choices=("error", "empty"),
    )
    option(
        parser,
        "--max-missing",
        "SHARE",
        "refuse the file if more rows lack a score, as 1%% or 0.01 (default: any number may)",
        type=_share,
    )
    add_path(
        parser,
        "--summary",
        "JSON",
        "also write status, counts and notes for a scheduler, even if the file is refused (default: none)",
    )
    option(
        parser, "--sep", "CHAR", "separator of a CSV file (default: as detected)", dest="separator"
    )


def _out_of(text: str) -> Path | str:
    text = file_argument(text)
    return path_argument(text) if address_of(text) is None else text


def _share(text: str) -> float:
    from fedlas.calibrated.tables.missing import share_of

    try:
        share = share_of(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(
            f"must be a share from 0 to 1, or 0% to 100%; got {text!r}"
        )
    return share


def _apply(args: argparse.Namespace) -> int:
    """Write the calibrated table, and with ``--summary`` a status file, also on failure."""
    from fedlas.calibrated.tables.files import SUMMARY, SUMMARY_FORMAT

    read = (*args.files, args.calibration)
    table = args.out
    with suppress(InputError):  # what is wrong with it is for the summary, too
        table = _place_of_table(args)
    check_apart("--summary", args.summary, (table,), "--out")
    check_outputs([Output("--summary", args.summary, SUMMARY)], read)
    summary = {"calibration": str(args.calibration), "files": args.files, "format": SUMMARY_FORMAT}
    if args.summary is not None:  # a process that is killed leaves no "complete" of an earlier call
        write_json(args.summary, {"status": "running", **summary})
    try:
        summary |= {"status": "complete", **_applied(args, read)}
    except InputError as error:
        summary |= {"status": "refused", "error": str(error)}
        raise
    finally:
        if args.summary is not None:
            write_json(args.summary, {"status": "failed", **summary})
    return 0


def _applied(args: argparse.Namespace, read: Sequence[str | Path]) -> dict[str, Any]:
    """Write the calibrated table and print a summary; return the summary as a dict."""
    from fedlas.calibrated.tables.files import CALIBRATED_TABLE, apply_to_files, are_live_logs
    from fedlas.calibrated.tables.missing import Missing
    from fedlas.calibrated.tables.table_calibration import TableCalibration

    out = _place_of_table(args)
    place = None if str(out) == STANDARD else out
    option = "--out" if args.out is not None else "--out (by default FILE.calibrated)"
    check_outputs([Output(option, place, CALIBRATED_TABLE)], read)
    calibration = TableCalibration.load(args.calibration)
    with local_files(args.files) as files:
        paths = [file.path for file in files]
        is_log = are_live_logs(calibration, paths)
        if is_log and place is not None:  # the samples of a log hold more than columns
            _check_suffix(place, [suffix_of(paths[0])])
        missing = Missing(args.missing or calibration.missing, args.max_missing)
        applied = apply_to_files(
            calibration, files, place, missing=missing, separator=args.separator
        )
    say(*(f"note: {note}" for note in applied.notes), stderr=True)
    names = ", ".join(applied.columns[:6]) + (
        f" and {len(applied.columns) - 6} more" * (len(applied.columns) > 6)
    )
    logits = calibration.columns.kind == "logits" and not is_log
    unit = "logits" if logits else "probabilities from 0 to 1"
    say(f"{applied.rows:,} rows; added {names}: {unit}.", wrap=True, stderr=place is None)
    if place is not None:
        say(f"table: {out}")
    return {"out": str(out), **applied.plain()}


def _place_of_table(args: argparse.Namespace) -> Path | str:
    """Return the path or address of the table to write."""
    if args.out is None and any(map(address_of, args.files)):
        raise InputError(
            "--out is required when FILE is in a store",
            "no --out",
            "Add --out with a path or an address.",
        )
    if args.out is None and STANDARD not in args.files:
        folder = _with_name(Path(args.files[0]))
        if folder.is_dir():
            return folder.with_name(f"{folder.name}.calibrated.parquet")
        first = files_of(args.files)[0].path
        suffix = whole_suffix(first)
        return first.with_name(f"{first.name.removesuffix(suffix)}.calibrated{suffix}")
    out: Path | str = Path(STANDARD) if args.out is None else args.out
    if str(out) != STANDARD:
        _check_suffix(out, FORMATS)
    return out


def _check_suffix(out: Path | str, suffixes: Collection[str]) -> None:
    if suffix_of(Path(out)) not in suffixes:
        ends = ", ".join(suffixes)
        raise InputError(f"--out must end in {ends}", out, "Rename the output file.")
