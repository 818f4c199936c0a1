"""Tables in files, with calibrated columns added: one pass, in memory that does not depend on the number of rows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from fedlas._core.check import InputError
from fedlas._core.terminal import copy_to_output
from fedlas.calibrated.direction import ScoreDirection
from fedlas.calibrated.missing import Missing
from fedlas.calibrated.table import (
    PREFIX,
    TableCalibration,
    calibrated_columns,
    filled_columns,
    live_rows,
    live_table,
)
from fedlas.calibrators import Calibrator
from fedlas.predictions import Columns
from fedlas.predictions.lm_eval import SampleLog
from fedlas.predictions.read import open_source
from fedlas.predictions.tables import source_of, writer_of
from fedlas.predictions.tables.files import Name, files_of, local_files, write_whole
from fedlas.predictions.tables.format import Format, Joined, Writer
from fedlas.predictions.tables.frame import is_lazy
from fedlas.predictions.tables.json_lines import json_rows
from fedlas.predictions.tables.packed import packed_as, suffix_of

CONFIDENCE = f"{PREFIX}confidence"
PROBS = f"{PREFIX}probs"
"""Fields that are added to samples of language models."""


@dataclass(frozen=True)
class Applied:
    """What :func:`apply_to_files` wrote.

    Attributes:
        rows: Rows in the table.
        columns: Columns that were added.
        notes: Sentences on how the table was read.
        edge: Counts of rows with covariates unlike those of the fit, see :class:`EdgeCount`.
        missing: ``count`` of the rows without a score, whose cells are empty, and the ``first`` of them.
    """

    rows: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    edge: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return what was written as plain values for JSON."""
        return asdict(self)


def open_tables(names: Sequence[Name], separator: str | None = None) -> Format:
    """Return the table that files hold together.

    Raises:
        InputError: If a file does not exist or cannot be read, or the files are not alike.
    """
    return Joined([source_of(file, separator) for file in files_of(names)])


def apply_to_files(
    calibration: TableCalibration,
    table: Format,
    out: str | Path | None,
    suffix: str = "",
    missing: Missing | None = None,
) -> Applied:
    """Write the rows of a table with the calibrated columns added; the file is complete, or is not there.

    Args:
        calibration: The calibration.
        table: What :func:`open_tables` returns.
        out: The file, or its address in a store; None is standard output.
        suffix: Format, as the end of a name; empty for that of ``out``, or of what is read.
        missing: What happens to rows without a score; None is what the calibration says.

    Raises:
        InputError: If a column is missing, a value is no score (row and column are named), there are no rows, or the
            file cannot be written.
    """
    result: list[Applied] = []
    missing = missing or Missing(calibration.missing)
    named = None if out is None else Path(out)
    suffix = suffix or suffix_of(named or table.files[0].path)

    def write(file: IO[bytes]) -> None:
        with packed_as(named, file) as packed:
            result.append(_write(calibration, table, packed, suffix, missing))

    _place(out, write)
    return result[0]


def _place(out: str | Path | None, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file as a whole, or standard output if it is None."""
    if out is not None:
        write_whole(out, write)
        return
    with tempfile.TemporaryFile() as file:
        write(file)
        file.seek(0)
        copy_to_output(file)


def _write(
    calibration: TableCalibration, table: Format, file: IO[bytes], suffix: str, missing: Missing
) -> Applied:
    writer = writer_of(table, file, calibration.scores, PREFIX, suffix)
    try:
        applied = _rows_written(calibration, table, writer, missing)
    except BaseException:
        writer.discard()
        raise
    writer.close()
    return applied


def _rows_written(
    calibration: TableCalibration, table: Format, writer: Writer, missing: Missing
) -> Applied:
    reader = live_table(calibration, table, missing)
    edge = calibration.edge_count()
    direction = ScoreDirection(calibration, table)
    rows = 0
    writing: Future[None] | None = None
    # One chunk is calibrated and written while the next is read.
    with ThreadPoolExecutor(1) as pool:
        for chunk, index, values in live_rows(reader, missing):
            if writing is not None:
                writing.result()
            rows += len(chunk.rows)
            if values:
                edge.add(values.get("features"))
                direction.add(values)
            # The next chunk may be another file's before this one is written.
            source = table.current
            content = getattr(source, "rows", None)
            writing = pool.submit(
                _chunk, calibration, (chunk, index, values), content, source, writer
            )
        missing.check(rows, table.label)
        if writing is not None:
            writing.result()
    names = tuple(table.name_beside(name, PREFIX) for name in calibration.scores)
    notes = (*reader.notes(), *missing.notes(rows), *direction.notes(), *edge.notes())
    return Applied(rows, names, notes, edge.plain(), missing.plain())


def apply_to_logs(
    calibration: TableCalibration,
    paths: Sequence[Path],
    out: str | Path | None,
    missing: Missing | None = None,
) -> Applied:
    """Write logs of lm-evaluation-harness with a calibrated confidence in each sample; every field stays as it was.

    ``calibrated_confidence`` is that of the answer, None where none can be read and for samples of further filters. In
    multiple choice ``calibrated_probs`` is an object of the probability of each choice, by its text.

    Args:
        calibration: What was fitted on such a log.
        paths: The logs, one after another.
        out: The file, or its address in a store; None is standard output.
        missing: What happens to answers without a confidence; None leaves theirs empty.

    Raises:
        InputError: As :func:`apply_to_files`, or if the fit was by ranges of length, which every log has of its own.
    """
    if calibration.columns.groups == "length":
        raise InputError(
            "groups must have names that all logs share",
            "ranges of length",
            "Fit it with --covariates length, which takes numbers of words.",
        )
    missing = missing or Missing(calibration.missing)
    log = SampleLog(paths, Columns(format="lm-eval", drop_missing=missing.policy == "empty"))
    if CONFIDENCE in log.names:
        raise InputError(
            "a log must not be calibrated yet",
            f"{CONFIDENCE!r} in {log.label}",
            "Calibrate the scores once: apply it to the log as the harness wrote it.",
        )
    reader = live_table(calibration, log, Missing("empty"))
    reader.answers = None  # those that state nothing stay
    parts = []
    answers: list[int] = []
    edge = calibration.edge_count()
    for _, _, values in live_rows(reader, Missing("empty")):
        if not values:
            continue
        edge.add(values.get("features"))
        parts.append(calibrated_columns(calibration, values, log.label)[0])
        # The harness takes the choice of the highest score, also where calibration prefers another.
        scores = values["scores"]
        answers += scores.reshape(len(scores), -1).argmax(dim=1).tolist()
    fields = {
        (path, row): _fields(calibrated, names, answer)
        for calibrated, (path, row, names), answer in zip(
            np.concatenate(parts), log.places(), answers, strict=True
        )
    }

    def write(file: IO[bytes]) -> None:
        with packed_as(None if out is None else Path(out), file) as packed:
            for path in paths:
                for row, sample in json_rows(path):
                    more = fields.get((path, row), {CONFIDENCE: None})
                    packed.write(json.dumps({**sample, **more}).encode() + b"\n")

    missing.add(log.answers.rows, log.label, several=False)
    rows = len(fields) + missing.count
    missing.check(rows, log.label)
    _place(out, write)
    notes = (
        *reader.notes(),
        *log.answers.notes(dropped=False),
        *missing.notes(rows),
        *edge.notes(),
    )
    added = tuple(next(iter(fields.values())))
    return Applied(rows, added, notes, edge.plain(), missing.plain())


def _fields(values: Any, names: Sequence[str], answer: int) -> dict[str, Any]:
    """Return what is added to a sample, of a confidence ``()`` or logits ``(C,)`` of choices."""
    if not values.ndim:
        return {CONFIDENCE: float(values)}
    probs = torch.from_numpy(values).softmax(0).tolist()
    return {CONFIDENCE: probs[answer], PROBS: dict(zip(names, probs, strict=True))}


def _chunk(
    calibration: TableCalibration, read: Any, content: Any, source: Any, writer: Any
) -> None:
    writer.write(source, content, filled_columns(calibration, *read))


def is_table(value: object) -> bool:
    """Return whether a value is a table: a path, paths, or a frame."""
    if isinstance(value, str | Path):
        return Path(value).suffix.lower() != ".onnx"  # that is a model
    if isinstance(value, Mapping):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, str | Path) for each in value)
    return is_lazy(value) or (hasattr(value, "columns") and not isinstance(value, nn.Module))


def calibrate_table(table: Any, method: str | Calibrator, columns: Columns) -> TableCalibration:
    """Fit a calibrator on a table with labels; see :func:`fedlas.calibrate`."""
    if not isinstance(table, str | Path | list | tuple):
        return TableCalibration.fit(table, columns, method)
    with local_files([table] if isinstance(table, str | Path) else table) as paths:
        return TableCalibration.fit(*open_source(paths, columns), method)
