"""Tables in files, with calibrated columns added: one pass, in memory that does not depend on the number of rows."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from glob import glob
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import require
from fedlas._core.files import no_device, write_atomically
from fedlas.calibrated.table import TableCalibration, columns_of_arrow
from fedlas.calibrated.text_rows import CsvRows, JsonRows
from fedlas.calibrators import Calibrator
from fedlas.predictions import Columns
from fedlas.predictions.cells import Values
from fedlas.predictions.sources import Archive, Cells, TableSource
from fedlas.predictions.tables import FORMATS, LIMITS, Parquet, source_of

STANDARD = "-"
"""In place of a file: standard input or output."""
_ROWS = 1 << 16
"""Rows of a Parquet file at a time."""
_MAGIC = {b"PAR1": ".parquet", b"PK\x03\x04": ".npz"}


class ParquetRows(Parquet):
    """A Parquet file whose columns keep their types.

    Attributes:
        rows: The rows of the last chunk, an Arrow record batch.
    """

    rows: Any = None

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
        """As :meth:`~fedlas.predictions.sources.TableSource.chunks`."""
        self._rows = 0
        parquet = require("pyarrow.parquet", extra="tables")
        with self._guard():
            self.check_size(self.names)
            with parquet.ParquetFile(self.path, pre_buffer=False, **LIMITS) as file:
                for self.rows in file.iter_batches(batch_size=_ROWS):
                    plain: dict[str, Values] = {
                        name: self.rows.column(name).to_pylist() for name in others
                    }
                    yield (
                        {name: self._column(self.rows.column(name), name) for name in numbers},
                        plain,
                    )
                    self._rows += self.rows.num_rows

    @contextmanager
    def writer(self, file: IO[bytes], names: Sequence[str]) -> Iterator[ParquetWriter]:
        """Give a writer of rows."""
        writer = ParquetWriter(file, names)
        with writer.open_files:
            yield writer

    @property
    def form(self) -> Any:
        """What all files of one table have in common."""
        schema = require("pyarrow.parquet", extra="tables").read_schema(self.path)
        return "columns of the same types in one order", schema.remove_metadata()


class ParquetWriter:
    """Writes record batches with more columns.

    Args:
        file: The file.
        names: Names of the columns that are added.
    """

    def __init__(self, file: IO[bytes], names: Sequence[str]) -> None:
        self.file = file
        self.names = names
        self.open_files = ExitStack()
        self._writer: Any = None

    def write(self, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write some rows, and what is added to them."""
        arrow = require("pyarrow", extra="tables")
        for name, values in zip(self.names, arrays, strict=True):
            column = arrow.array(values if values.ndim == 1 else list(values))
            rows = rows.append_column(name, column)
        if self._writer is None:
            parquet = require("pyarrow.parquet", extra="tables")
            self._writer = self.open_files.enter_context(
                parquet.ParquetWriter(self.file, rows.schema)
            )
        self._writer.write_batch(rows.cast(self._writer.schema))


class ArchiveRows(Archive):
    """An ``.npz`` whose arrays stay.

    Attributes:
        rows: None: arrays are copied as a whole.
    """

    rows: Any = None

    @contextmanager
    def writer(self, file: IO[bytes], names: Sequence[str]) -> Iterator[ArchiveWriter]:
        """Give a writer that holds the added arrays in temporary files until the others are copied."""
        with ExitStack() as stack:
            parts = [stack.enter_context(tempfile.TemporaryFile()) for _ in names]
            writer = ArchiveWriter(parts)
            yield writer
            with zipfile.ZipFile(self.path) as source, zipfile.ZipFile(file, "w") as archive:
                for info in source.infolist():
                    with source.open(info) as member, _member(archive, info.filename) as copy:
                        shutil.copyfileobj(member, copy, 1 << 20)
                for name, part, shape in zip(names, parts, writer.shapes, strict=True):
                    header = {"descr": writer.descr, "fortran_order": False, "shape": shape}
                    with _member(archive, f"{name}.npy") as member:
                        np.lib.format.write_array_header_1_0(member, header)
                        part.seek(0)
                        shutil.copyfileobj(part, member, 1 << 20)

    @property
    def form(self) -> Any:
        """What all files of one table have in common: none is like another."""
        return "rows that can follow others: an .npz has none", id(self)


class ArchiveWriter:
    """Writes arrays to be added, part by part.

    Args:
        files: A temporary file for each.
    """

    def __init__(self, files: Sequence[IO[bytes]]) -> None:
        self.files = files
        self.descr = "<f8"
        self.shapes: list[tuple[int, ...]] = [(0,)] * len(files)

    def write(self, _rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write what is added to some rows."""
        for number, values in enumerate(arrays):
            self.descr = values.dtype.str
            self.files[number].write(np.ascontiguousarray(values).tobytes())
            self.shapes[number] = (self.shapes[number][0] + len(values), *values.shape[1:])


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    return archive.open(name, "w", force_zip64=True)


@dataclass(frozen=True)
class Applied:
    """What :func:`apply_to_files` wrote.

    Attributes:
        rows: Rows in the table.
        columns: Columns that were added.
        notes: Sentences on how the table was read.
    """

    rows: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def rows_of(path: Path, separator: str | None = None) -> Any:
    """Return a table that can be written again.

    Raises:
        InputError: As :func:`~fedlas.predictions.tables.source_of`.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS or not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises in a closed folder
        source_of(path, separator)
    if suffix in (".csv", ".tsv"):
        return CsvRows(path, separator)
    return {".parquet": ParquetRows, ".npz": ArchiveRows}.get(suffix, JsonRows)(path)


@contextmanager
def open_tables(names: Sequence[str | Path], separator: str | None = None) -> Iterator[list[Any]]:
    """Give the tables of files, of all that match a pattern, or of standard input; together they are one table.

    Args:
        names: Files in order, patterns with ``*``, ``?`` or ``[``, or ``-``.
        separator: Separator of CSV files; None notices it.

    Raises:
        InputError: If a file does not exist or cannot be read, or the files are not alike.
    """
    with ExitStack() as stack:
        paths: list[Path] = []
        for name in map(str, names):
            if name == STANDARD:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedlas-")))
                paths.append(_standard_input(folder))
            elif os.path.exists(name) or not set(name) & set("*?["):  # noqa: PTH110 - a name may be too long
                paths.append(no_device(Path(name)))
            else:
                matches = sorted(glob(name))  # noqa: PTH207 - patterns may be absolute
                if not matches:
                    raise InputError(
                        "a pattern must match files", repr(name), "Check it, and quote it."
                    )
                paths += map(Path, matches)
        tables = [rows_of(path, separator) for path in paths]
        for table in tables[1:]:
            same, form = tables[0].form
            same = same if type(table) is type(tables[0]) else "one format"
            if same == "one format" or table.form[1] != form:
                got = f"another in {table.label} than in {tables[0].label}"
                raise InputError(
                    f"files of one table must have {same}", got, "Convert them, or do one by one."
                )
        yield tables


def _standard_input(folder: Path) -> Path:
    """Return a file with the bytes of standard input, named by its format."""
    stream = sys.stdin.buffer
    head = stream.read(1 << 16)
    suffix = _MAGIC.get(head[:4]) or (".jsonl" if head.lstrip()[:1] == b"{" else ".csv")
    path = folder / f"standard-input{suffix}"
    with path.open("wb") as file:
        file.write(head)
        shutil.copyfileobj(stream, file, 1 << 20)
    return path


def apply_to_files(
    calibration: TableCalibration, tables: Sequence[Any], out: Path | None
) -> Applied:
    """Write the rows of tables with the calibrated columns added; the file is complete, or is not there.

    Args:
        calibration: The calibration.
        tables: What :func:`open_tables` gave.
        out: The file; None is standard output.

    Raises:
        InputError: If a column is missing, a value is no score (row and column are named), there are no rows, or the
            file cannot be written.
    """
    result: list[Applied] = []

    def write(file: IO[bytes]) -> None:
        result.append(_write(calibration, tables, file))

    if out is not None:
        write_atomically(out, write)
    else:
        with tempfile.TemporaryFile() as file:
            write(file)
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
            sys.stdout.buffer.flush()
    return result[0]


def _write(calibration: TableCalibration, tables: Sequence[Any], file: IO[bytes]) -> Applied:
    readers = [calibration.reader(table) for table in tables]
    rows = 0
    notes = []
    writing: Future[None] | None = None
    # One chunk is calibrated and written while the next is read.
    with ThreadPoolExecutor(1) as pool, tables[0].writer(file, calibration.added) as writer:
        for table, reader in zip(tables, readers, strict=True):
            for samples in reader.samples():
                if writing is not None:
                    writing.result()
                rows += len(samples.scores)
                writing = pool.submit(_chunk, calibration, samples, table.rows, table.label, writer)
            notes += [note for note in reader.notes() if note not in notes]
        if writing is None:
            label = tables[0].label
            raise InputError(
                "there must be at least one row", f"none in {label}", "Check the file."
            )
        writing.result()
    return Applied(rows, calibration.added, tuple(notes))


def _chunk(calibration: TableCalibration, samples: Any, rows: Any, label: str, writer: Any) -> None:
    writer.write(rows, calibration.calibrated(samples, label))


def is_table(value: object) -> bool:
    """Return whether a value is a table: a path, paths, or a frame."""
    if isinstance(value, str | Path):
        return Path(value).suffix.lower() != ".onnx"  # that is a model
    if isinstance(value, Mapping):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, str | Path) for each in value)
    return hasattr(value, "columns") and not isinstance(value, nn.Module)


def table_columns(names: Mapping[str, Any]) -> Columns:
    """Return the columns that keyword arguments name.

    Raises:
        InputError: For an unknown one, or as :class:`~fedlas.predictions.Columns`.
    """
    known = [each.name for each in fields(Columns)]
    for name in names:
        if name not in known:
            expected = "arguments of a table must be fields of fedlas.predictions.Columns"
            raise InputError(expected, repr(name), suggestion(name, known))
    return Columns(**names)


def calibrate_table(table: Any, method: str | Calibrator, columns: Columns) -> TableCalibration:
    """Fit a calibrator on a table with labels; see :func:`fedlas.calibrate`."""
    if not isinstance(table, str | Path | list | tuple):
        return TableCalibration.fit(columns_of_arrow(table), columns, method)
    files = [table] if isinstance(table, str | Path) else table
    with open_tables(files, columns.separator) as tables:
        return TableCalibration.fit(
            tables[0] if len(tables) == 1 else Joined(tables), columns, method
        )


class Joined(TableSource):
    """Several tables read as one.

    Args:
        tables: Tables with the same columns.
    """

    def __init__(self, tables: Sequence[TableSource]) -> None:
        self._tables = tables
        self.names = tables[0].names
        self.label = ", ".join(table.label for table in tables)
        self.in_percent = frozenset().union(*(table.in_percent for table in tables))
        self.decimal_point = getattr(tables[0], "decimal_point", ".")

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """Sentences on how the files were read, each once."""
        return list(dict.fromkeys(note for table in self._tables for note in table.notes))

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
        """As :meth:`TableSource.chunks`."""
        for table in self._tables:
            table.missing = self.missing
            yield from table.chunks(numbers, others)
