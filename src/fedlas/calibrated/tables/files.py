"""Streaming application of a calibration to tables in files, in memory independent of the number of rows."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from numpy.typing import NDArray

from fedlas._core.check import InputError, check_choice, describe
from fedlas._core.kinds import check_argument_types
from fedlas._core.outputs import FileKind, has_json_format
from fedlas._core.terminal import copy_to_output
from fedlas.calibrated.tables.apply import Applied, apply_rows, open_table_source
from fedlas.calibrated.tables.missing import Missing
from fedlas.calibrated.tables.table_calibration import TableCalibration
from fedlas.predictions.tables.files import (
    FORMATS,
    Name,
    find_files,
    local_table_files,
    write_local_or_remote,
)
from fedlas.predictions.tables.formats.by_suffix import open_format as file_source
from fedlas.predictions.tables.formats.by_suffix import open_writer
from fedlas.predictions.tables.formats.compression import compressed_writer, data_suffix
from fedlas.predictions.tables.formats.delimited import detect_separator
from fedlas.predictions.tables.formats.lines import open_lines
from fedlas.predictions.tables.outputs import Output, check_outputs
from fedlas.predictions.tables.roles import ADDED

if TYPE_CHECKING:
    from fedlas.calibrators import Calibrator, MultiLabelCalibration
    from fedlas.predictions import Columns
    from fedlas.predictions.tables.formats.format import Format, Writer

SUMMARY_FORMAT = "fedlas.summary/1"
SUMMARY = FileKind("a summary of fedlas apply", lambda path: has_json_format(path, SUMMARY_FORMAT))


def is_calibrated(path: Path) -> bool:
    """Return whether a table file has columns that ``fedlas apply`` added.

    Raises:
        InputError: If it cannot be read.
        OSError: As there.
    """
    suffix = data_suffix(path)
    if suffix not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        return any(name.startswith(ADDED) for name in file_source(path).names)
    # Of text the first line says it, without the rows from which a reader learns the units.
    with open_lines(path) as file:
        first = next(filter(str.strip, file), "")
    if suffix in (".jsonl", ".ndjson"):  # they may lie in an object of each line
        return f'"{ADDED}' in first
    names = next(csv.reader([first], delimiter=detect_separator(first, suffix)), [])
    return any(name.strip().startswith(ADDED) for name in names)


CALIBRATED_TABLE = FileKind("a table of fedlas apply", is_calibrated)


def open_live(
    calibration: TableCalibration,
    names: Sequence[Name],
    missing: Missing,
    separator: str | None = None,
) -> Format:
    """Return files opened as one table, or as lm-evaluation-harness logs if the fit was on such logs.

    Raises:
        InputError: If a file does not exist or cannot be read, or the files are not alike; or for logs, if the fit was
            by ranges of length, which every log has of its own.
    """
    files = find_files(names)
    are_logs = are_live_logs(calibration, [file.path for file in files])
    if are_logs and calibration.columns.groups == "length":
        raise InputError(
            "groups must be a column that all logs share",
            "length, whose ranges differ between logs",
            "Fit the calibration with --covariates length, which counts words.",
        )
    return open_table_source(
        calibration,
        files,
        "lm-eval" if are_logs else "table",
        separator=separator,
        drop_missing=missing.policy == "empty",
        live=calibration.columns.kind,
    )


def are_live_logs(calibration: TableCalibration, paths: Sequence[Path]) -> bool:
    """Return whether the files and the files of the fit are logs of lm-evaluation-harness."""
    if calibration.columns.format != "lm-eval":
        return False
    from fedlas.predictions.language.lm_eval import starts_with_lm_eval_sample

    return all(map(starts_with_lm_eval_sample, paths))


@check_argument_types
def apply_to_files(
    calibration: TableCalibration,
    names: Sequence[Name],
    out: str | Path | None,
    suffix: str = "",
    missing: Missing | None = None,
    separator: str | None = None,
) -> Applied:
    """Write the rows of table files with the calibrated columns added, atomically, and return the result.

    Logs of lm-evaluation-harness are written as they were, with a calibrated confidence in each sample.

    Args:
        calibration: The calibration.
        names: The files, one after another.
        out: The file, or its address in a store; None is standard output.
        suffix: Format, as the end of a name; empty for that of ``out``, or of what is read.
        missing: Policy for rows without a score; None is the calibration's default.
        separator: Separator of a CSV file; None notices it.

    Raises:
        InputError: As :func:`open_live`, or if a column is missing, a value is no score (row and column are named),
            there are no rows, or the file cannot be written or is another than a table of ``fedlas apply``.
    """
    result: list[Applied] = []
    if len(names) == 0 or not all(isinstance(name, Name) for name in names):
        raise InputError("names must be paths", describe(names), "Pass ['live.csv'].")
    check_outputs([Output("out", out, CALIBRATED_TABLE)], names)
    missing = missing or Missing(calibration.missing)
    source = open_live(calibration, names, missing, separator)
    named = None if out is None else Path(out)
    suffix = suffix or data_suffix(named or find_files(names)[0].path)
    check_choice("the end of out", suffix, FORMATS)

    def write(file: IO[bytes]) -> None:
        with compressed_writer(named, file) as packed:
            writer = open_writer(source, packed, calibration.scores, ADDED, suffix)
            try:
                result.append(_write_calibrated_rows(calibration, source, writer, missing))
            except BaseException:
                writer.discard()
                raise
            writer.close()

    if out is not None:
        write_local_or_remote(out, write)
        return result[0]
    with tempfile.TemporaryFile() as file:
        write(file)
        file.seek(0)
        copy_to_output(file)
    return result[0]


def _write_calibrated_rows(
    calibration: TableCalibration, source: Format, writer: Writer, missing: Missing
) -> Applied:
    """Calibrate and write each chunk of rows while the next chunk is read."""
    writing: list[Future[None]] = []

    def write(columns: Callable[[], list[NDArray[Any]]]) -> None:
        if writing:
            writing.pop().result()
        # The next rows may be another file's before these are written.
        file = source.current_file
        rows = file.rows
        writing.append(pool.submit(lambda: writer.write(file, rows, columns())))

    with ThreadPoolExecutor(1) as pool:
        done = apply_rows(calibration, source, missing, write)
        missing.check(done.rows, source.label)
        for task in writing:
            task.result()
    return replace(done, columns=writer.added, notes=(*done.notes, *missing.notes(done.rows)))


def calibrate_table(
    table: object, method: str | Calibrator | MultiLabelCalibration, columns: Columns
) -> TableCalibration:
    """Fit a calibration to a labeled table, a frame or files; see :func:`fedlas.calibrate`."""
    if not isinstance(table, str | Path | list | tuple):
        return TableCalibration.fit(table, columns, method)
    with local_table_files([table] if isinstance(table, str | Path) else table) as paths:
        return TableCalibration.fit(paths, columns, method)
