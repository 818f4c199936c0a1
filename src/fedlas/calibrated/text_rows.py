"""CSV and JSON lines that are written again with more columns: each row keeps its bytes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.predictions.cells import Values
from fedlas.predictions.sources import Cells
from fedlas.predictions.tables import Delimited, JsonLines

BYTES = 1 << 22
"""Bytes that are parsed at a time; more for long rows."""
_LONGEST = 1 << 26
"""Most bytes of a row."""
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
_ROW = re.compile(r"Row #(\d+)")
_BOM = b"\xef\xbb\xbf"


class CsvRows(Delimited):
    """A CSV whose rows keep their bytes.

    Attributes:
        rows: The rows of the last chunk, an Arrow array; each begins with the end of the line before it.
    """

    rows: Any = None

    def __init__(self, path: Path, separator: str | None = None) -> None:
        super().__init__(path, separator)
        self.header, self._start = _first_line(path, ord(self.delimiter))

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
        """As :meth:`~fedlas.predictions.sources.TableSource.chunks`."""
        self._rows = 0
        reader = require("pyarrow.csv", extra="tables")
        types = dict.fromkeys(others, "string") | dict.fromkeys(numbers, "float64")
        types |= dict.fromkeys(self.in_percent.intersection(numbers), "string")
        cells = reader.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        values = reader.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=["", *self.missing],
            decimal_point=self.decimal_point,
        )
        with self._guard():
            for content, lines in _blocks(self.path, self._start, ord(self.delimiter)):
                self.rows = lines
                blocks = reader.ReadOptions(
                    use_threads=False,
                    column_names=self.names,
                    block_size=max(1 << 20, len(content)),
                )
                try:
                    table = reader.read_csv(_buffer(content), blocks, cells, values)
                except ValueError as error:  # the row of a block becomes that of the file
                    raise ValueError(_ROW.sub(self._shifted, str(error))) from error
                _check_lines(table, self.rows, self._rows, self.label)
                plain: dict[str, Values] = {name: table.column(name).to_pylist() for name in others}
                yield (
                    {
                        name: self._column(table.column(name).combine_chunks(), name)
                        for name in numbers
                    },
                    plain,
                )
                self._rows += table.num_rows

    def _shifted(self, match: re.Match[str]) -> str:
        return f"Row #{int(match[1]) + self._rows + 1}"

    @contextmanager
    def writer(self, file: IO[bytes], names: Sequence[str]) -> Iterator[TextWriter]:
        """Write the header with more columns; give a writer of rows."""
        header = io.StringIO()
        csv.writer(header, delimiter=self.delimiter, lineterminator="").writerow(names)
        file.write(self.header + f"{self.delimiter}{header.getvalue()}".encode())
        yield TextWriter(file, [self.delimiter] * len(names), "", comma=self.decimal_point == ",")
        file.write(b"\n")

    @property
    def form(self) -> Any:
        """What all files of one table have in common."""
        return "columns in one order, with one separator", (
            self.names,
            self.delimiter,
            self.decimal_point,
        )


class JsonRows(JsonLines):
    """JSON lines that keep their bytes, apart from the keys that are added.

    Attributes:
        rows: As of :class:`CsvRows`.
    """

    rows: Any = None

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
        """As :meth:`~fedlas.predictions.sources.TableSource.chunks`."""
        self._rows = 0
        reader = require("pyarrow.json", extra="tables")
        with self._guard():
            schema = self.schema(numbers, others, whole="float64")
            options = reader.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            )
            for content, lines in _blocks(self.path, -1, None):
                self.rows = lines
                blocks = reader.ReadOptions(block_size=max(1 << 20, len(content) + 1))
                table = reader.read_json(_buffer(content), blocks, options)
                _check_lines(table, self.rows, self._rows, self.label)
                plain: dict[str, Values] = {name: table.column(name).to_pylist() for name in others}
                yield (
                    {
                        name: self._column(table.column(name).combine_chunks(), name)
                        for name in numbers
                    },
                    plain,
                )
                self._rows += table.num_rows

    @contextmanager
    def writer(self, file: IO[bytes], names: Sequence[str]) -> Iterator[TextWriter]:
        """Give a writer of rows."""
        yield TextWriter(file, [f", {json.dumps(name)}: " for name in names], "}", comma=False)
        file.write(b"\n")

    @property
    def form(self) -> Any:
        """What all files of one table have in common: nothing, as each row names its values."""
        return "", ()


class TextWriter:
    """Writes rows of text with numbers behind them.

    Args:
        file: The file.
        before: Text before each number.
        end: Text that ends a row, which the rows have already.
        comma: Whether numbers have a decimal comma.
    """

    def __init__(self, file: IO[bytes], before: Sequence[str], end: str, *, comma: bool) -> None:
        self.file = file
        self.before = before
        self.end = end
        self.comma = comma
        self._is_first = True

    def write(self, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write some rows, and what is added to them."""
        compute = _arrow(".compute")
        arrow = _arrow()
        if self.end:
            rows = compute.binary_slice(
                compute.ascii_rtrim_whitespace(rows.cast("string")).cast("binary"), 0, -1
            )
        parts = [rows]
        for before, values in zip(self.before, arrays, strict=True):
            parts += [arrow.scalar(before.encode()), self._texts(values)]
        parts += [arrow.scalar(self.end.encode()), arrow.scalar(b"")]
        lines = compute.binary_join_element_wise(*parts)
        content = memoryview(lines.buffers()[2])[: _last(lines)]
        if self._is_first and self.end:  # it begins with the end of a line that is not there
            content = content[2 if content[0] == _RETURN else 1 :]
        self.file.write(content)
        self._is_first = False

    def _texts(self, values: NDArray[Any]) -> Any:
        arrow = _arrow()
        compute = _arrow(".compute")
        texts = arrow.array(values.reshape(-1)).cast("string")
        if values.ndim > 1:
            offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
            lists = compute.binary_join(arrow.ListArray.from_arrays(offsets, texts), ", ")
            texts = compute.binary_join_element_wise("[", lists, "]", "")
        return (compute.replace_substring(texts, ".", ",") if self.comma else texts).cast("binary")


def _check_lines(table: Any, lines: Any, done: int, label: str) -> None:
    """Refuse a block with another number of rows than of lines."""
    if table.num_rows != len(lines):
        expected = "every row must be one line; in a CSV, quoted cells may hold line breaks"
        got = f"{table.num_rows:,} rows in {len(lines):,} lines after row {done:,} of {label}"
        raise InputError(expected, got, "Write one row a line.")


def _last(lines: Any) -> int:
    return int(np.frombuffer(lines.buffers()[1], np.int32)[len(lines)])


def _first_line(path: Path, delimiter: int) -> tuple[bytes, int]:
    """Return the first line that is not blank, and the place where it ends."""
    content = b"\n"
    with path.open("rb") as file:
        while part := file.read(BYTES):
            content += part
            array = np.frombuffer(content, np.uint8)
            edges = [*_edges(array, _quotes(array, delimiter)).tolist(), len(content)]
            for low, high in pairwise(edges):
                line = content[low:high].strip(b"\r\n")
                if line.strip() and (high < len(content) or len(part) < BYTES):
                    return line, high - 1
    return content[1:], len(content) - 1


def _blocks(path: Path, start: int, delimiter: int | None) -> Iterator[tuple[memoryview, Any]]:
    """Yield the bytes of whole lines, and an array of them; each begins with the end of the line before it.

    Args:
        path: The file.
        start: Place where the line before the first ends; -1 if there is none.
        delimiter: Separator of cells that may be quoted; None: a line break ends a row always.
    """
    with path.open("rb") as file:
        file.seek(max(start, 0))
        block = b""
        is_last = False
        if start < 0:
            block = b"\n" + file.read(len(_BOM)).removeprefix(_BOM)
        while not is_last:
            content = file.read(max(BYTES, len(block)))
            is_last = not content
            block = block + content
            array = np.frombuffer(block, np.uint8)
            quotes = _quotes(array, delimiter)
            edges = _edges(array, quotes)
            if is_last and len(quotes) % 2:
                got = f"one without an end in the last {len(block):,} bytes of {path.name}"
                raise InputError(
                    "every quote must be closed", got, 'Quote cells that hold ", and double it.'
                )
            if is_last and len(block) > edges[-1] + 2:
                edges = np.append(edges, len(block))
            if len(edges) > 1:
                yield memoryview(block)[edges[0] : edges[-1]], _lines(block, edges)
                block = block[edges[-1] :]
            elif len(block) > _LONGEST:
                raise ValueError("straddling object")


def _edges(block: NDArray[np.uint8], quotes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places outside quotes where lines end, ascending."""
    ends = np.flatnonzero(block == _NEWLINE)
    ends = ends[np.searchsorted(quotes, ends) % 2 == 0] if len(quotes) else ends
    return ends - ((block[ends - 1] == _RETURN) & (ends > 0))


def _quotes(block: NDArray[np.uint8], delimiter: int | None) -> NDArray[np.int64]:
    """Return the places where quoted cells begin and end, in turn."""
    if delimiter is None:
        return np.empty(0, dtype=np.int64)
    quotes = np.flatnonzero(block == _QUOTE)
    before = block[quotes[::2] - 1]
    # Each first one of two opens a cell, or is the second of a double quote; else some are characters like any.
    if np.isin(before, (delimiter, _NEWLINE, _QUOTE)).all():
        return quotes
    return _quoted(block, quotes, delimiter)


def _quoted(
    block: NDArray[np.uint8], quotes: NDArray[np.int64], delimiter: int | None
) -> NDArray[np.int64]:
    """Return where quoted cells begin and end, if quotes within other cells are characters like any."""
    edges: list[int] = []
    is_open = False
    skip = -1
    places = {*quotes.tolist()}
    for place in quotes.tolist():
        if place == skip:
            continue
        if is_open and place + 1 in places:
            skip = place + 1
        elif is_open or block[place - 1] in (delimiter, _NEWLINE):
            edges.append(place)
            is_open = not is_open
    return np.array(edges, dtype=np.int64)


def _lines(block: bytes, edges: NDArray[np.int64]) -> Any:
    """Return the lines between the edges as an Arrow array, without blank ones."""
    arrow = _arrow()
    buffers = [None, arrow.py_buffer(edges.astype(np.int32)), arrow.py_buffer(block)]
    lines = arrow.Array.from_buffers(arrow.binary(), len(edges) - 1, buffers)
    short = np.flatnonzero(np.diff(edges) <= 2)
    full = np.ones(len(lines), dtype=bool)
    full[short] = [
        bool(block[edges[number] : edges[number + 1]].strip(b"\r\n")) for number in short.tolist()
    ]
    return lines if full.all() else lines.filter(arrow.array(full))


def _buffer(content: memoryview) -> Any:
    return _arrow().BufferReader(content)


def _arrow(module: str = "") -> Any:
    return require(f"pyarrow{module}", extra="tables")
