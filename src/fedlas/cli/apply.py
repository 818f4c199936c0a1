"""``fedlas apply``: adds calibrated scores to a table; every other column, and the order of rows, stays."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.terminal import say
from fedlas.calibrated.table import TableCalibration
from fedlas.calibrated.table_files import STANDARD, apply_to_files, local_files, open_tables
from fedlas.cli.arguments import AddSubcommand, add_path, option
from fedlas.predictions.tables import FORMATS


def add_apply(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_apply, "CALIBRATION FILE [FILE ...]")
    option(parser, "calibration", "CALIBRATION", "file of fedlas calibrate", type=Path)
    text = "scores (.csv, .jsonl, .parquet, .npz), with labels or not; several files or '*.csv' are one table; - reads"
    option(parser, "files", "FILE", f"{text} standard input", nargs="+")
    add_path(
        parser,
        "--out",
        "FILE",
        "file to write, .csv, .jsonl, .parquet or .npz; - is standard output (default: FILE.calibrated)",
    )
    option(
        parser, "--sep", "CHAR", "separator of a CSV file (default: as detected)", dest="separator"
    )


def _apply(args: argparse.Namespace) -> int:
    calibration = TableCalibration.load(args.calibration)
    separator = args.separator or calibration.columns.separator
    with local_files(args.files) as files:
        out = _out(args, files)
        to_standard = str(out) == STANDARD
        table = open_tables(files, separator)
        applied = apply_to_files(calibration, table, None if to_standard else out)
    say(*(f"note: {note}" for note in applied.notes), stderr=True)
    names = ", ".join(applied.columns[:6]) + (
        f" and {len(applied.columns) - 6} more" * (len(applied.columns) > 6)
    )
    unit = "logits" if calibration.columns.kind == "logits" else "probabilities from 0 to 1"
    say(f"{applied.rows:,} rows; added {names}: {unit}.", wrap=True, stderr=to_standard)
    if not to_standard:
        say(f"table: {out}")
    return 0


def _out(args: argparse.Namespace, files: Sequence[Path]) -> Path:
    """Return the file to write, which is none that is read."""
    if args.out is None and STANDARD not in args.files:
        return files[0].with_name(f"{files[0].stem}.calibrated{files[0].suffix}")
    if args.out is None or str(args.out) == STANDARD:
        return Path(STANDARD)
    if args.out.resolve() in [path.resolve() for path in (*files, args.calibration)]:
        raise InputError("--out must be another file", args.out, "It would replace what is read.")
    if args.out.suffix.lower() not in FORMATS:
        fix = f"Name a file that ends in {files[0].suffix}."
        raise InputError(f"--out must end in {', '.join(FORMATS)}", args.out, fix)
    return Path(args.out)
