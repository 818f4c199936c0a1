"""Tables in files, with calibrated columns added: one pass, in memory that does not depend on the number of rows."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from fedlas._core.check import InputError
from fedlas._core.files import no_device, write_atomically
from fedlas._core.terminal import copy_to_output, standard_input
from fedlas.calibrated.row_writers import row_writer
from fedlas.calibrated.table import (
    PREFIX,
    TableCalibration,
    calibrated_columns,
    columns_of_arrow,
    live_reader,
    live_samples,
)
from fedlas.calibrators import Calibrator
from fedlas.predictions import Columns
from fedlas.predictions.language import Answers
from fedlas.predictions.lm_eval import SampleLog
from fedlas.predictions.read import open_source, paths_of
from fedlas.predictions.tables import source_of
from fedlas.predictions.tables.table import Joined

STANDARD = "-"
"""In place of a file: standard input or output."""
CONFIDENCE = f"{PREFIX}confidence"
PROBS = f"{PREFIX}probs"
"""Fields that are added to samples of language models."""
_MAGIC = {b"PAR1": ".parquet", b"PK\x03\x04": ".npz"}


@dataclass(frozen=True)
class Applied:
    """What :func:`apply_to_files` wrote.

    Attributes:
        rows: Rows in the table.
        columns: Columns that were added.
        notes: Sentences on how the table was read.
        edge: Counts of rows with covariates unlike those of the fit, see :class:`EdgeCount`.
    """

    rows: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    edge: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def local_files(names: Sequence[str | Path]) -> Iterator[list[Path]]:
    """Give the files of names, of patterns with ``*``, ``?`` or ``[``, and of ``-``, which is standard input.

    Raises:
        InputError: If a pattern matches none.
    """
    with tempfile.TemporaryDirectory(prefix="fedlas-") as folder:
        here = [
            _standard_input(Path(folder)) if str(name) == STANDARD else str(name) for name in names
        ]
        yield [no_device(path) for path in paths_of(here) or ()]


def open_tables(names: Sequence[str | Path], separator: str | None = None) -> Joined:
    """Return the table that files hold together.

    Raises:
        InputError: If a file does not exist or cannot be read, or the files are not alike.
    """
    return Joined([source_of(path, separator) for path in paths_of(list(names)) or ()])


def _standard_input(folder: Path) -> Path:
    """Return a file with the bytes of standard input, named by its format."""
    stream = standard_input()
    head = stream.read(1 << 16)
    suffix = _MAGIC.get(head[:4]) or (".jsonl" if head.lstrip()[:1] == b"{" else ".csv")
    path = folder / f"standard-input{suffix}"
    with path.open("wb") as file:
        file.write(head)
        shutil.copyfileobj(stream, file, 1 << 20)
    return path


def apply_to_files(
    calibration: TableCalibration, table: Joined, out: Path | None, suffix: str = ""
) -> Applied:
    """Write the rows of a table with the calibrated columns added; the file is complete, or is not there.

    Args:
        calibration: The calibration.
        table: What :func:`open_tables` returns.
        out: The file; None is standard output.
        suffix: Format, as the end of a name; empty for that of ``out``, or of what is read.

    Raises:
        InputError: If a column is missing, a value is no score (row and column are named), there are no rows, or the
            file cannot be written.
    """
    result: list[Applied] = []
    suffix = suffix or (out or table.tables[0].path).suffix.lower()

    def write(file: IO[bytes]) -> None:
        result.append(_write(calibration, table, file, suffix))

    _place(out, write)
    return result[0]


def _place(out: Path | None, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file as a whole, or standard output if it is None."""
    if out is not None:
        write_atomically(out, write)
        return
    with tempfile.TemporaryFile() as file:
        write(file)
        file.seek(0)
        copy_to_output(file)


def _write(calibration: TableCalibration, table: Joined, file: IO[bytes], suffix: str) -> Applied:
    reader = live_reader(calibration, table)
    edge = calibration.edge_count()
    rows = 0
    writing: Future[None] | None = None
    added = row_writer(table, file, suffix, calibration.added, calibration.scores)
    # One chunk is calibrated and written while the next is read.
    with ThreadPoolExecutor(1) as pool, added as writer:
        for samples in live_samples(reader):
            if writing is not None:
                writing.result()
            rows += len(samples.scores)
            edge.add(samples.features)
            # The next chunk may be another file's before this one is written.
            source = table.current
            part = getattr(source, "rows", None)
            writing = pool.submit(_chunk, calibration, samples, part, source, writer)
        if writing is None:
            raise InputError(
                "there must be at least one row", f"none in {table.label}", "Check the file."
            )
        writing.result()
    return Applied(rows, calibration.added, (*reader.notes(), *edge.notes()), edge.plain())


def apply_to_logs(
    calibration: TableCalibration, paths: Sequence[Path], out: Path | None
) -> Applied:
    """Write logs of lm-evaluation-harness with a calibrated confidence in each sample; every field stays as it was.

    ``calibrated_confidence`` is that of the answer, None where none can be read and for samples of further filters. In
    multiple choice ``calibrated_probs`` is an object of the probability of each choice, by its text.

    Args:
        calibration: What was fitted on such a log.
        paths: The logs, one after another.
        out: The file; None is standard output.

    Raises:
        InputError: As :func:`apply_to_files`, or if the fit was by ranges of length, which every log has of its own.
    """
    if calibration.columns.groups == "length":
        raise InputError(
            "groups must have names that all logs share",
            "ranges of length",
            "Fit it with --covariates length, which takes numbers of words.",
        )
    log = SampleLog(paths, Columns(format="lm-eval", drop_missing=True))
    if CONFIDENCE in log.names:
        raise InputError(
            "a log must not be calibrated yet",
            f"{CONFIDENCE!r} in {log.label}",
            "Calibrate the scores once: apply it to the log as the harness wrote it.",
        )
    reader = live_reader(calibration, log)
    reader.answers = Answers()  # those that state nothing stay
    parts = []
    answers: list[int] = []
    for each in live_samples(reader):
        parts.append(calibrated_columns(calibration, each, log.label)[0])
        # The harness takes the choice of the highest score, also where calibration prefers another.
        answers += each.scores.reshape(len(each.scores), -1).argmax(dim=1).tolist()
    fields = {
        (path, row): _fields(values, names, answer)
        for values, (path, row, names), answer in zip(
            np.concatenate(parts), log.places(), answers, strict=True
        )
    }

    def write(file: IO[bytes]) -> None:
        for path in paths:
            with path.open("rb") as lines:
                for row, line in enumerate(filter(bytes.strip, lines), 1):
                    more = json.dumps(fields.get((path, row), {CONFIDENCE: None}))
                    file.write(line.strip()[:-1] + b", " + more[1:].encode() + b"\n")

    _place(out, write)
    notes = [each.replace("and were left out", "and have null") for each in log.answers.notes()]
    added = tuple(next(iter(fields.values())))
    return Applied(len(fields), added, (*reader.notes(), *notes))


def _fields(values: Any, names: Sequence[str], answer: int) -> dict[str, Any]:
    """Return what is added to a sample, of a confidence ``()`` or logits ``(C,)`` of choices."""
    if not values.ndim:
        return {CONFIDENCE: float(values)}
    probs = torch.from_numpy(values).softmax(0).tolist()
    return {CONFIDENCE: probs[answer], PROBS: dict(zip(names, probs, strict=True))}


def _chunk(
    calibration: TableCalibration, samples: Any, rows: Any, source: Any, writer: Any
) -> None:
    writer.write(source, rows, calibrated_columns(calibration, samples, source.label))


def is_table(value: object) -> bool:
    """Return whether a value is a table: a path, paths, or a frame."""
    if isinstance(value, str | Path):
        return Path(value).suffix.lower() != ".onnx"  # that is a model
    if isinstance(value, Mapping):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, str | Path) for each in value)
    return hasattr(value, "columns") and not isinstance(value, nn.Module)


def calibrate_table(table: Any, method: str | Calibrator, columns: Columns) -> TableCalibration:
    """Fit a calibrator on a table with labels; see :func:`fedlas.calibrate`."""
    if not isinstance(table, str | Path | list | tuple):
        return TableCalibration.fit(columns_of_arrow(table), columns, method)
    with local_files([table] if isinstance(table, str | Path) else table) as paths:
        return TableCalibration.fit(*open_source(paths, columns), method)
