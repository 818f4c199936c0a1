"""Base class of file formats that pyarrow reads, and helpers for Arrow tables."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.predictions.tables.cells import TableChunk, detect_percent_signs, parse_number
from fedlas.predictions.tables.formats import format as formats
from fedlas.predictions.tables.formats.compression import full_suffix
from fedlas.predictions.tables.formats.format import Format

_LONGEST = 2**20
"""Maximum size in bytes of the text in a cell."""


class ArrowFile(Format):
    """File that pyarrow reads; except in CSV, a score column may hold lists of equal length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = path.name
        self.notes = list[str]()
        self._rows = 0
        self.arrow = import_pyarrow()
        with self._translate_errors():
            self.names = self._read_names()

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield the columns ``numbers`` (as floats) and ``others`` of all rows in chunks."""
        self._rows = 0
        with self._translate_errors():
            for table, rows in self._iter_blocks(numbers, others):
                chunk = self._to_chunk(table, numbers, others)
                for start in range(0, len(rows), formats.ROWS):
                    part = slice(start, start + formats.ROWS)
                    self.rows = rows[part]
                    yield chunk.slice_rows(part)
                self._rows += len(rows)

    def _read_names(self) -> list[str]:
        """Return the column names of the file."""
        raise NotImplementedError

    def _iter_blocks(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield blocks of these columns, each with its rows; if ``keeps_all``, the rows have all columns."""
        raise NotImplementedError

    def _to_chunk(self, table: Any, numbers: Sequence[str], others: Sequence[str]) -> TableChunk:
        """Return a block as a chunk, with numeric columns as arrays."""
        percent: dict[str, bool] = {}
        return TableChunk(
            np.arange(self._rows, self._rows + table.num_rows) + 1,
            {name: self._column_numbers(table.column(name), name, percent) for name in numbers},
            {name: _to_python_values(table.column(name)) for name in others},
            self.label,
            percent,
        )

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Translate errors of pyarrow and csv on a damaged file into InputError."""
        arrow_error = self.arrow.lib.ArrowException
        try:
            yield
        except (InputError, MemoryError):
            raise
        # What a damaged file makes pyarrow and csv raise; other errors are our own.
        except (OSError, ValueError, csv.Error, arrow_error) as error:
            text = " ".join(str(error).split())
            if isinstance(
                error, UnicodeError
            ):  # names of columns hold surrogates in place of such bytes
                text = "column names are not UTF-8"
            raise InputError(
                f"the file must be a readable {full_suffix(self.path)} file",
                f"{self.path} ({text})",
                "Check that the file is complete; text must be UTF-8.",
            ) from error

    def _column_numbers(self, values: Any, name: str, percent: dict[str, bool]) -> NDArray[Any]:
        """Return a numeric column ``(n,)``, or ``(n, C)`` of lists, with NaN for missing; record its percent sign."""
        # pyarrow's to_numpy, scalar and array import pandas, which takes half a second.
        types = self.arrow.types
        shape = [len(values)]
        if hasattr(values, "value_lengths"):
            lengths = np.from_dlpack(values.value_lengths().fill_null(-1))
            shape.append(max(1, int(lengths.max())))
            for row in np.flatnonzero((lengths != shape[1]) & (lengths >= 0))[:1]:
                raise InputError(
                    f"lists of column {name!r} must all hold {shape[1]} numbers",
                    f"{lengths[row]} in row {self._rows + row + 1} of {self.label}",
                    "Write one number per class.",
                )
            if 0 < values.null_count < len(values):
                parts = self._column_numbers(values.drop_null(), name, percent)
                filled = np.full(shape, np.nan, parts.dtype)
                filled[lengths >= 0] = parts
                return filled
            values = values.flatten()
        if types.is_dictionary(values.type) or types.is_string(values.type):
            quick = self._cast_numbers(values, name)
            if quick is not None:
                percent[name] = False
                return quick
            # Numbers with percent signs, or that JSON lines have in quotes.
            texts = _to_python_values(values)
            if (signs := detect_percent_signs(texts, name, self.label, self._rows + 1)) is not None:
                percent[name] = signs
            numbers = {
                text: parse_number(text, self.column_decimal_point(name)) for text in set(texts)
            }
            self._check_number_texts(texts, numbers, name)
            values = to_arrow_array(np.array([numbers[text] for text in texts], np.float64))
        elif values.null_count < len(values):
            percent[name] = False
        plain = (types.is_floating, types.is_integer, types.is_decimal, types.is_null)
        if not any(is_kind(values.type) for is_kind in plain):
            raise InputError(
                f"column {name!r} must hold numbers",
                f"{values.type} in {self.label}",
                "Name numeric score columns.",
            )
        kind = np.float32 if types.is_float32(values.type) else np.float64
        values = values.cast("float32" if kind is np.float32 else "float64")
        start = values.offset * values.type.bit_width // 8
        array = np.frombuffer(values.buffers()[1], kind, len(values), start).copy()
        if values.null_count:
            array[np.from_dlpack(values.is_null().cast("uint8")) > 0] = np.nan
        return array.reshape(shape)

    def _cast_numbers(self, values: Any, name: str) -> NDArray[Any] | None:
        """Return a text column as numbers ``(n,)`` by pyarrow, or None if it cannot convert every cell."""
        compute = import_pyarrow(".compute")
        if not self.arrow.types.is_string(values.type) or values.null_count == len(values):
            return None
        empty = compute.is_in(values, value_set=_text_array(["", *self.missing]))
        if (mark := self.column_decimal_point(name)) != ".":
            values = compute.replace_substring(values, mark, ".")
        if compute.any(empty).as_py():
            values = compute.if_else(empty, self.arrow.scalar(None, values.type), values)
        try:
            numbers = values.cast("float64")
        except ValueError:
            return None
        if numbers.null_count == len(numbers):
            return None
        percent: dict[str, bool] = {}
        return self._column_numbers(numbers, name, percent)

    def _check_number_texts(
        self, texts: Sequence[Any], numbers: Mapping[Any, float | None], name: str
    ) -> None:
        """Raise InputError for text that is not a number, in formats where numbers are text."""


def append_columns(rows: Any, names: Sequence[str], arrays: Sequence[NDArray[Any]]) -> Any:
    """Return Arrow rows with additional columns ``(n,)``, or lists from ``(n, C)``; NaN becomes null."""
    for name, values in zip(names, arrays, strict=True):
        rows = rows.append_column(name, to_arrow_array(values))
    return rows


def to_arrow_array(values: NDArray[Any]) -> Any:
    """Return floating-point numbers ``(n,)`` as an Arrow array, or ``(n, C)`` as one of lists; NaN becomes null."""
    # From buffers: ``pyarrow.array`` imports pandas.
    arrow = import_pyarrow()
    is_nan = np.isnan(values).reshape(len(values), -1).all(axis=1)
    filled = arrow.py_buffer(np.packbits(~is_nan, bitorder="little")) if is_nan.any() else None
    kind = arrow.from_numpy_dtype(values.dtype)
    numbers = arrow.py_buffer(np.ascontiguousarray(values))
    if values.ndim == 1:
        return arrow.Array.from_buffers(kind, len(values), [filled, numbers])
    cells = arrow.Array.from_buffers(kind, values.size, [None, numbers])
    starts = arrow.py_buffer(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    buffers = [filled, starts]
    return arrow.Array.from_buffers(arrow.list_(kind), len(values), buffers, children=[cells])


@contextmanager
def translate_arrow_errors(suffix: str, label: str) -> Iterator[None]:
    """Translate pyarrow errors on writing into an InputError that names the file.

    Raises:
        InputError: If a format cannot hold the rows, or columns change their type.
    """
    arrow = import_pyarrow()
    try:
        yield
    # Values that change their kind from row to row are a TypeError of pyarrow's, and huge integers an OverflowError.
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, TypeError, OverflowError) as error:
        raise InputError(
            f"rows must be representable in {suffix}",
            f"{error!s:.200} in {label}",
            "Write the same format as the input, or drop columns of mixed types.",
        ) from error


def append_constant_columns(batch: Any, constants: Mapping[str, str]) -> Any:
    """Return a record batch with additional columns, each with one constant text."""
    for name, text in constants.items():
        batch = batch.append_column(name, import_pyarrow().array([text] * len(batch)))
    return batch


def to_record_batch(table: Any) -> Any:
    """Return a table as a single record batch."""
    return table.combine_chunks().to_batches()[0]


def _to_python_values(column: Any) -> list[Any]:
    """Return a column as Python objects; equal texts of a dictionary column share one object."""
    types = import_pyarrow().types
    texts = column.dictionary if types.is_dictionary(column.type) else column
    if types.is_string(texts.type) or types.is_large_string(texts.type):
        compute = import_pyarrow(".compute")
        longest = compute.max(compute.binary_length(texts)).as_py() or 0
        if longest > _LONGEST:
            raise InputError(
                "the text of a cell must be at most 1 MiB",
                f"{longest:,} bytes",
                "Leave out columns of long text, or close an open quote.",
            )
    if texts is column:
        values: list[Any] = column.to_pylist()
        return values
    numbers = column.indices.unique().drop_null()
    by_number = dict(zip(numbers.to_pylist(), texts.take(numbers).to_pylist(), strict=True))
    return [by_number.get(number) for number in column.indices.to_pylist()]


def import_pyarrow(module: str = "") -> Any:
    """Import and return pyarrow, or a submodule of it."""
    return require(f"pyarrow{module}", extra="tables")


def _text_array(texts: Sequence[str]) -> Any:
    """Return texts as an Arrow array."""
    arrow = import_pyarrow()
    cells = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, cells)], dtype=np.int32)
    buffers = [None, arrow.py_buffer(ends), arrow.py_buffer(b"".join(cells))]
    return arrow.Array.from_buffers(arrow.string(), len(cells), buffers)
