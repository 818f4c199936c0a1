"""Rows of a table, written again with more columns: text keeps its bytes, other columns keep their types."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.predictions.tables.json_lines import JsonLines, json_row
from fedlas.predictions.tables.npz import Archive, open_archive
from fedlas.predictions.tables.parquet import Parquet
from fedlas.predictions.tables.table import Joined

_BOM = b"\xef\xbb\xbf"
_FAMILIES = {".tsv": ".csv", ".ndjson": ".jsonl"}


@contextmanager
def row_writer(
    table: Joined, file: IO[bytes], suffix: str, names: Sequence[str], scores: Sequence[str]
) -> Iterator[Any]:
    """Give a writer, whose ``write(rows, arrays)`` takes some rows and what is added to them.

    Args:
        table: The table that is read.
        file: Where the rows go.
        suffix: Format of the file, as the end of a name.
        names: Columns that are added.
        scores: Columns of numbers; others of a CSV are text in other formats.

    Raises:
        InputError: If arrays become another format, or other rows arrays.
    """
    first = table.tables[0]
    formats = [_FAMILIES.get(each, each) for each in (first.path.suffix.lower(), suffix)]
    if formats[0] != formats[1] and ".npz" in formats:
        raise InputError(
            "must be an .npz if, and only if, the file that is read is one",
            f"{suffix} for {first.label}",
            "Name a file that ends in .npz." if formats[0] == ".npz" else "Write .parquet.",
            argument="out",
        )
    with ExitStack() as stack:
        if isinstance(first, Archive):
            archive = ArchiveWriter(
                table, [stack.enter_context(tempfile.TemporaryFile()) for _ in names]
            )
            yield archive
            archive.finish(file, names)
        elif formats[0] == formats[1] and not isinstance(first, Parquet):
            text = TextWriter(first, file, names)
            yield text
            file.write(b"\n")
        else:
            for each in table.tables:
                each.keeps_all = True
            yield ArrowWriter(table, file, formats[1], names, scores, stack)


class TextWriter:
    """Writes rows of text with numbers behind them, in the format in which they were read.

    Args:
        table: Table of the first file.
        file: The file.
        names: Names of the numbers.
    """

    def __init__(self, table: Any, file: IO[bytes], names: Sequence[str]) -> None:
        self.table = table
        self.file = file
        self.names = names
        self._is_first = True
        self._is_json = isinstance(table, JsonLines)
        self._before = [
            (f", {json.dumps(name)}: " if self._is_json else table.delimiter).encode()
            for name in names
        ]

    def write(self, _source: Any, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write some rows, and what is added to them."""
        compute = _arrow(".compute")
        if self._is_json:  # the brace moves behind the numbers
            trimmed = compute.ascii_rtrim_whitespace(rows.cast("string")).cast("binary")
            rows = compute.binary_slice(trimmed, 0, -1)
        parts = [rows]
        for before, values in zip(self._before, arrays, strict=True):
            parts += [_scalar(before), self._texts(values)]
        lines = compute.binary_join_element_wise(
            *parts, _scalar(b"}" if self._is_json else b""), _scalar(b"")
        )
        content = memoryview(lines.buffers()[2])[: _end(lines)]
        if self._is_first and self._is_json:  # it begins with the end of a line that is not there
            content = content[2 if content[0] == b"\r"[0] else 1 :]
        elif self._is_first:
            self._write_header()
        self.file.write(content)
        self._is_first = False

    def _write_header(self) -> None:
        header = io.StringIO()
        delimiter = self.table.delimiter
        csv.writer(header, delimiter=delimiter, lineterminator="").writerow(self.names)
        with self.table.path.open("rb") as file:
            self.file.write(_BOM * (file.read(3) == _BOM))
        self.file.write(self.table.header + f"{delimiter}{header.getvalue()}".encode())

    def _texts(self, values: NDArray[Any]) -> Any:
        arrow = _arrow()
        compute = _arrow(".compute")
        # From buffers, since array() imports pandas.
        kind = arrow.float32() if values.dtype == np.float32 else arrow.float64()
        content = arrow.py_buffer(np.ascontiguousarray(values))
        texts = arrow.Array.from_buffers(kind, values.size, [None, content]).cast("string")
        if values.ndim > 1:
            lists = arrow.FixedSizeListArray.from_arrays(texts, values.shape[1])
            lists = compute.binary_join(lists.cast(arrow.list_(texts.type)), ", ")
            texts = compute.binary_join_element_wise("[", lists, "]", "")
        if self.table.decimal_point == ",":
            texts = compute.replace_substring(texts, ".", ",")
        return texts.cast("binary")


class ArrowWriter:
    """Writes rows of any format as Parquet, CSV or JSON lines.

    Args:
        table: The table that is read.
        file: The file.
        suffix: ``".parquet"``, ``".csv"`` or ``".jsonl"``.
        names: Names of the columns that are added.
        scores: Columns of numbers in a CSV.
        stack: What closes the writer.
    """

    def __init__(
        self,
        table: Joined,
        file: IO[bytes],
        suffix: str,
        names: Sequence[str],
        scores: Sequence[str],
        stack: ExitStack,
    ) -> None:
        self.table = table
        self.file = file
        self.suffix = suffix
        self.names = names
        self.scores = scores
        self._stack = stack
        self._writer: Any = None
        self._schema: Any = None

    def write(self, source: Any, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write some rows of a file, and what is added to them.

        Raises:
            InputError: If the format cannot hold them, or columns change their type.
        """
        arrow = _arrow()
        try:
            rows = self._columns(source, rows)
            for name, values in zip(self.names, arrays, strict=True):
                column = arrow.array(values if values.ndim == 1 else list(values))
                rows = rows.append_column(name, column)
            if self._writer is None:
                self._schema = rows.schema
                self._writer = self._stack.enter_context(self._opened())
            self._writer.write(rows.cast(self._schema))
        # A column whose values change their kind from row to row is a TypeError of pyarrow's.
        except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, TypeError) as error:
            raise InputError(
                f"rows must be such that {self.suffix} holds them",
                f"{error!s:.200} in {source.label}",
                "Write the format that is read, or leave out columns of several kinds.",
            ) from error

    def _opened(self) -> Any:
        if self.suffix == ".jsonl":
            return _JsonWriter(self.file)
        kind = "ParquetWriter" if self.suffix == ".parquet" else "CSVWriter"
        return getattr(_arrow(self.suffix), kind)(self.file, self._schema)

    def _columns(self, table: Any, rows: Any) -> Any:
        """Return all columns of some rows of a file."""
        if isinstance(table, Parquet):
            return rows
        content = rows.to_pylist()
        if isinstance(table, JsonLines):
            objects = [json_row(line, 0, table.label) for line in content]
            return _arrow().Table.from_pylist(objects)
        numbers = {*self.scores} - table.in_percent  # percent signs stay
        types = {name: "float64" if name in numbers else "string" for name in table.names}
        return table.parsed(b"".join(content), types)


class _JsonWriter(ExitStack):
    """Writes Arrow tables as JSON lines."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file

    def write(self, rows: Any) -> None:
        """Write some rows; dates, times and exact decimals become text.

        Raises:
            TypeError: For other values, such as bytes.
        """
        for row in rows.to_pylist():
            self.file.write(json.dumps(row, default=_text).encode() + b"\n")


def _text(value: Any) -> str:
    if isinstance(value, date | time | timedelta | Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} in a cell, which JSON does not have")


class ArchiveWriter:
    """Writes the arrays of archives joined, and those that are added, which wait in temporary files.

    Args:
        table: The archives.
        files: A temporary file for each array that is added.
    """

    def __init__(self, table: Joined, files: Sequence[IO[bytes]]) -> None:
        self.table = table
        self.files = files
        self.descr = "<f8"
        self.shapes: list[tuple[int, ...]] = [(0,)] * len(files)
        self.rows = dict.fromkeys(table.tables, 0)

    def write(self, source: Any, _rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write what is added to some rows of a file."""
        self.rows[source] += len(arrays[0])
        for number, values in enumerate(arrays):
            self.descr = values.dtype.str
            self.files[number].write(np.ascontiguousarray(values).tobytes())
            self.shapes[number] = (self.shapes[number][0] + len(values), *values.shape[1:])

    def finish(self, file: IO[bytes], names: Sequence[str]) -> None:
        """Write the archive.

        Raises:
            InputError: If arrays that hold no rows differ between the archives.
        """
        with zipfile.ZipFile(file, "w") as archive:
            if len(self.rows) == 1:
                with open_archive(self.table.current.path) as arrays:
                    arrays.check_all()
                with zipfile.ZipFile(self.table.current.path) as source:
                    for name in source.namelist():
                        with source.open(name) as array, _member(archive, name) as copy:
                            shutil.copyfileobj(array, copy, 1 << 20)
            for name in self.table.names if len(self.rows) > 1 else ():
                with _member(archive, f"{name}.npy") as member:
                    np.lib.format.write_array(member, self._joined(name), allow_pickle=False)
            for name, part, shape in zip(names, self.files, self.shapes, strict=True):
                header = {"descr": self.descr, "fortran_order": False, "shape": shape}
                with _member(archive, f"{name}.npy") as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    part.seek(0)
                    shutil.copyfileobj(part, member, 1 << 20)

    def _joined(self, name: str) -> NDArray[Any]:
        """Return the rows of all archives, or an array that all of them hold."""
        parts: list[NDArray[Any]] = []
        for table in self.rows:
            with open_archive(table.path) as arrays:
                parts.append(arrays[name])
        if all(
            part.shape[:1] == (rows,) for part, rows in zip(parts, self.rows.values(), strict=True)
        ):
            return np.concatenate(parts)
        if any(not np.array_equal(part, parts[0]) for part in parts):
            raise InputError(
                f"array {name!r} must hold a row a sample, or the same in all files",
                f"others in {self.table.label}",
                "Leave it out, or do one by one.",
            )
        return parts[0]


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    return archive.open(name, "w", force_zip64=True)


def _scalar(text: bytes) -> Any:
    """Return a text for pyarrow, whose own function imports pandas."""
    arrow = _arrow()
    ends = arrow.py_buffer(np.array([0, len(text)], dtype=np.int32))
    return arrow.Array.from_buffers(arrow.binary(), 1, [None, ends, arrow.py_buffer(text)])[0]


def _end(lines: Any) -> int:
    return int(np.frombuffer(lines.buffers()[1], np.int32)[len(lines)])


def _arrow(module: str = "") -> Any:
    return require(f"pyarrow{module}", extra="tables")
