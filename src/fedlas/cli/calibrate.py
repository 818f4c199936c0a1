"""``fedlas calibrate``: fits a calibrator on a table with labels, and writes it for ``fedlas apply``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import read_json
from fedlas._core.terminal import say
from fedlas.calibrated.table import FORMAT
from fedlas.calibrated.table_files import STANDARD, calibrate_table
from fedlas.cli.arguments import (
    AddSubcommand,
    add_columns,
    add_path,
    add_samples,
    columns_of,
    option,
)
from fedlas.predictions import Columns
from fedlas.predictions.cells import few

_SUFFIX = ".calibration.json"


def add_calibrate(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_calibrate, "VAL [VAL ...]")
    text = "held-out scores with labels (.csv, .jsonl, .parquet, .npz); several files or '*.csv' are one table; - reads"
    option(parser, "files", "VAL", f"{text} standard input", nargs="+")
    add_columns(parser)
    add_samples(parser)
    option(
        parser,
        "--method",
        "NAME",
        "calibrator; see 'fedlas list calibrators' (default: auto)",
        default="auto",
    )
    add_path(parser, "--out", "JSON", f"file to write (default: VAL with {_SUFFIX})")


def _calibrate(args: argparse.Namespace) -> int:
    columns = columns_of(args) or Columns()
    out = _out(args.files[0]) if args.out is None else args.out
    check_place(out)
    calibration = calibrate_table(args.files, args.method, columns)
    calibration.save(out)
    say(*(f"note: {note}" for note in calibration.notes), stderr=True)
    classes = f", classes {few(calibration.classes, 8)}" if calibration.classes else ""
    say(f"{calibration.rows:,} rows{classes}.", wrap=True)
    if calibration.cross_fitted is not None:
        say(str(calibration.cross_fitted), wrap=True)
    say(f"{args.method}: {calibration.carries}", wrap=True)
    say(f"calibration: {out}", f"next: {apply_line(out, args.files[0])}")
    return 0


def apply_line(out: Path, file: str) -> str:
    """Return the command that applies a calibration."""
    live = f"LIVE{Path(file).suffix if file != STANDARD else '.csv'}"
    return f"fedlas apply {shlex.quote(str(out))} {live} --out LIVE.calibrated{Path(live).suffix}"


def _out(file: str) -> Path:
    if file == STANDARD or set(file) & set("*?["):
        fix = "Add --out cal.json."
        raise InputError(
            "--out must name the file to write, where VAL is no single file", "no --out", fix
        )
    return Path(file).with_suffix(_SUFFIX)


def check_place(out: Path) -> None:
    """Refuse to replace a file that is no calibration.

    Raises:
        InputError: If one is there.
    """
    if out.suffix.lower() != ".json":
        raise InputError("--out must end in .json", out, "Name it cal.json.")
    if not out.exists():
        return
    try:
        is_calibration = read_json(out)["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_calibration = False
    if not is_calibration:
        fix = "Choose another --out, or move that file away."
        raise InputError("what is there must be a calibration, to be replaced", out, fix)
