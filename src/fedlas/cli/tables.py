"""``fedlas calibrate`` fits a calibrator to a labeled table; ``fedlas apply`` adds calibrated scores to any table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, truncated_list
from fedlas._core.files import ensure_name, parse_file_name, parse_path, write_json
from fedlas._core.outputs import STANDARD_STREAM
from fedlas._core.progress import ProgressBar
from fedlas._core.terminal import print_lines
from fedlas._core.text import pluralize, quote_path, wrap_command
from fedlas.cli.arguments import (
    AddSubcommand,
    add_files,
    add_flag,
    add_option,
    add_path,
    add_sample_columns,
    add_score_columns,
    parse_columns,
)
from fedlas.predictions.tables.files import (
    FORMATS,
    find_files,
    local_copies,
    local_table_files,
    store_address,
)
from fedlas.predictions.tables.formats.compression import data_suffix, full_suffix
from fedlas.predictions.tables.outputs import Output, check_not_read, check_outputs
from fedlas.predictions.tables.roles import Columns

if TYPE_CHECKING:
    from fedlas.calibrators import Calibrator

_SILENT_SECONDS = 5.0
"""Seconds of a fit without a word."""
_SUFFIX = ".calibration.json"
_FILES_HELP = (
    f"{', '.join(FORMATS)}); several files or '*.csv' are one table; - reads standard input, "
)
_FILES_HELP += "s3://... what fsspec does"


def add_calibrate(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas calibrate``."""
    parser = add(_run_calibrate, "VAL [VAL ...]")
    add_files(parser, "files", "VAL", f"held-out scores with labels ({_FILES_HELP}", nargs="+")
    add_score_columns(parser)
    add_sample_columns(parser)
    add_option(
        parser,
        "--method",
        "NAME",
        "calibrator; see 'fedlas list calibrators' (default: auto)",
        default="auto",
    )
    add_option(
        parser,
        "--method-set",
        "KEY=VALUE",
        "set an option of the calibrator, e.g. num_folds=10; may be repeated (default: none)",
        action="append",
        default=[],
    )
    text = "use only files with this year, quarter, month or day in their names, as 2026-05, or a later one"
    add_option(parser, "--since", "DATE", f"{text} (default: all)")
    add_path(parser, "--out", "JSON", f"file to write (default: VAL with {_SUFFIX})")
    add_flag(parser, "--details", "also print the weights of a mixture (default: no)")


def _run_calibrate(args: argparse.Namespace) -> int:
    from fedlas.calibrated.tables.files import calibrate_table
    from fedlas.calibrated.tables.since import files_since
    from fedlas.calibrated.tables.table_calibration import CALIBRATION

    columns = parse_columns(args) or Columns()
    out = _default_calibration_path(args.files[0]) if args.out is None else args.out
    check_outputs([Output("--out", out, CALIBRATION)], args.files)
    calibrator = build_calibrator(args.method, args.method_set)
    example = args.files[0]
    with local_copies(args.files) as files:
        if args.since is not None:
            late = files_since(files, args.since)
            files = [*late]
            counted = [file.name for file in late]
            print_lines(
                f"{pluralize(len(late), 'file')} since {args.since}: {truncated_list(counted, 12)}.",
                wrap=True,
            )
            example = str(late[0].path)
        with ProgressBar(f"fitting {args.method}", total=None, delay=_SILENT_SECONDS):
            calibration = calibrate_table(files, calibrator, columns)
    calibration.save(out)
    print_lines(*(f"note: {note}" for note in calibration.notes), stderr=True)
    noun = "classes" if calibration.label_names is None else "labels"
    classes = f", {noun} {truncated_list(calibration.classes, 8)}" if calibration.classes else ""
    print_lines(f"{calibration.rows:,} rows{classes}.", wrap=True)
    if calibration.cross_fitted is not None:
        print_lines(str(calibration.cross_fitted), wrap=True)
    if args.details:
        print_lines(str(calibration.fitted), wrap=True)
    print_lines(f"calibration: {out}", *wrap_command(apply_command(out, example), prefix="next: "))
    return 0


def build_calibrator(name: str, settings: Sequence[str]) -> str | Calibrator:
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


def apply_command(out: Path, file: str) -> str:
    """Return the ``fedlas apply`` command for a calibration."""
    if Path(file).is_dir() or (store_address(file) is not None and not Path(file).suffix):
        return f"fedlas apply {quote_path(out)} LIVE --out LIVE.calibrated.parquet"
    suffix = full_suffix(Path(file)) if file != STANDARD_STREAM else ".csv"
    return f"fedlas apply {quote_path(out)} LIVE{suffix} --out LIVE.calibrated{suffix}"


def _default_calibration_path(file: str) -> Path:
    if file == STANDARD_STREAM or set(file) & set("*?[") or store_address(file) is not None:
        raise InputError(
            "--out is required when VAL is not a single local file",
            "no --out",
            "Add --out cal.json.",
        )
    return ensure_name(Path(file)).with_suffix(_SUFFIX)


def add_apply(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas apply``."""
    parser = add(_run_apply, "CALIBRATION FILE [FILE ...]")
    add_path(parser, "calibration", "CALIBRATION", "file of fedlas calibrate")
    add_files(parser, "files", "FILE", f"scores, with labels or not ({_FILES_HELP}", nargs="+")
    text = f"{', '.join(FORMATS)}, here or in a store; - is standard output"
    add_option(
        parser,
        "--out",
        "FILE",
        f"file to write, {text} (default: FILE.calibrated)",
        type=_parse_output_path,
    )
    add_option(
        parser,
        "--missing",
        None,
        "rows without a score: error refuses the file, empty keeps them with an empty cell (default: empty for answers "
        "of language models, else error)",
        choices=("error", "empty"),
    )
    add_option(
        parser,
        "--max-missing",
        "SHARE",
        "refuse the file if more rows lack a score, as 1%% or 0.01 (default: any number may)",
        type=_parse_share,
    )
    add_path(
        parser,
        "--summary",
        "JSON",
        "also write status, counts and notes for a scheduler, even if the file is refused (default: none)",
    )
    add_option(
        parser, "--sep", "CHAR", "separator of a CSV file (default: as detected)", dest="separator"
    )


def _parse_output_path(text: str) -> Path | str:
    text = parse_file_name(text)
    return parse_path(text) if store_address(text) is None else text


def _parse_share(text: str) -> float:
    from fedlas.calibrated.tables.missing import parse_share

    try:
        share = parse_share(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(
            f"must be a share from 0 to 1, or 0% to 100%; got {text!r}"
        )
    return share


def _run_apply(args: argparse.Namespace) -> int:
    """Write the calibrated table, and with ``--summary`` a status file, also on failure."""
    from fedlas.calibrated.tables.files import SUMMARY, SUMMARY_FORMAT

    read = (*args.files, args.calibration)
    table = args.out
    with suppress(InputError):  # what is wrong with it is for the summary, too
        table = _table_output_path(args)
    check_not_read("--summary", args.summary, (table,), "--out")
    check_outputs([Output("--summary", args.summary, SUMMARY)], read)
    summary = {"calibration": str(args.calibration), "files": args.files, "format": SUMMARY_FORMAT}
    if args.summary is not None:  # a process that is killed leaves no "complete" of an earlier call
        write_json(args.summary, {"status": "running", **summary})
    try:
        summary |= {"status": "complete", **_write_table(args, read)}
    except InputError as error:
        summary |= {"status": "refused", "error": str(error)}
        raise
    finally:
        if args.summary is not None:
            write_json(args.summary, {"status": "failed", **summary})
    return 0


def _write_table(args: argparse.Namespace, read: Sequence[str | Path]) -> dict[str, Any]:
    """Write the calibrated table and print a summary; return the summary as a dict."""
    from fedlas.calibrated.tables.files import CALIBRATED_TABLE, apply_to_files, are_live_logs
    from fedlas.calibrated.tables.missing import Missing
    from fedlas.calibrated.tables.table_calibration import TableCalibration

    out = _table_output_path(args)
    place = None if str(out) == STANDARD_STREAM else out
    option = "--out" if args.out is not None else "--out (by default FILE.calibrated)"
    check_outputs([Output(option, place, CALIBRATED_TABLE)], read)
    calibration = TableCalibration.load(args.calibration)
    with local_table_files(args.files) as files:
        paths = [file.path for file in files]
        is_log = are_live_logs(calibration, paths)
        if is_log and place is not None:  # the samples of a log hold more than columns
            _check_output_suffix(place, [data_suffix(paths[0])])
        missing = Missing(args.missing or calibration.missing, args.max_missing)
        applied = apply_to_files(
            calibration, files, place, missing=missing, separator=args.separator
        )
    print_lines(*(f"note: {note}" for note in applied.notes), stderr=True)
    names = ", ".join(applied.columns[:6]) + (
        f" and {len(applied.columns) - 6} more" * (len(applied.columns) > 6)
    )
    logits = calibration.columns.kind == "logits" and not is_log
    unit = "logits" if logits else "probabilities from 0 to 1"
    print_lines(f"{applied.rows:,} rows; added {names}: {unit}.", wrap=True, stderr=place is None)
    if place is not None:
        print_lines(f"table: {out}")
    return {"out": str(out), **applied.to_dict()}


def _table_output_path(args: argparse.Namespace) -> Path | str:
    """Return the path or address of the table to write."""
    if args.out is None and any(map(store_address, args.files)):
        raise InputError(
            "--out is required when FILE is in a store",
            "no --out",
            "Add --out with a path or an address.",
        )
    if args.out is None and STANDARD_STREAM not in args.files:
        folder = ensure_name(Path(args.files[0]))
        if folder.is_dir():
            return folder.with_name(f"{folder.name}.calibrated.parquet")
        first = find_files(args.files)[0].path
        suffix = full_suffix(first)
        return first.with_name(f"{first.name.removesuffix(suffix)}.calibrated{suffix}")
    out: Path | str = Path(STANDARD_STREAM) if args.out is None else args.out
    if str(out) != STANDARD_STREAM:
        _check_output_suffix(out, FORMATS)
    return out


def _check_output_suffix(out: Path | str, suffixes: Collection[str]) -> None:
    if data_suffix(Path(out)) not in suffixes:
        ends = ", ".join(suffixes)
        raise InputError(f"--out must end in {ends}", out, "Rename the output file.")
