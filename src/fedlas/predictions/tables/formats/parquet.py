"""Parquet files, and the memory that their columns take, computed from page headers.

pyarrow's limits hold for the footer alone: a page of 900 bytes may expand to gigabytes, and the footer may claim less.
pyarrow also ends the process where it reads the sizes of a column from some damaged footers, so they are read here.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.predictions.tables.formats import format as formats
from fedlas.predictions.tables.formats.arrow import (
    ArrowFile,
    append_columns,
    append_constant_columns,
    import_pyarrow,
    translate_arrow_errors,
)
from fedlas.predictions.tables.formats.format import Format, Writer

_FREE = 2**26
_MAX_TEXT = 2**28
_TEXTS = ("string", "large_string")
_MAX_RATIO = 1000
"""Size to which any file may decompress, and the maximum ratio beyond it; one-hot scores reach 230."""
_GROUP_ROWS = 2**17
_GROUP_BYTES = 2**25
"""Rows or bytes at which a row group is written: smaller groups take more time and space."""
_DICTIONARY = 2**17
"""Bytes of a dictionary, beyond which values are plain. Above it, pyarrow looks up every value of unique ones."""
LIMITS = {"thrift_string_size_limit": 2**26, "thrift_container_size_limit": 10**6}
"""Maximum size of text and lists in the footer of a Parquet file."""


class Parquet(ArrowFile):
    """Parquet file.

    Args:
        path: The file.
        partition: Columns of one text in each row, as ``year=2026`` in the names of its folders says.
    """

    options = ("partition",)

    def __init__(self, path: Path, partition: Mapping[str, str]) -> None:
        self._partition = dict(partition)
        super().__init__(path)

    def _read_names(self) -> list[str]:
        with import_pyarrow(".parquet").ParquetFile(self.path, **LIMITS) as file:
            self.schema = file.schema_arrow
        for name in {*self._partition} & {*self.schema.names}:
            del self._partition[name]
        for name in self._partition:
            self.schema = self.schema.append(
                import_pyarrow().field(name, import_pyarrow().string())
            )
        return list(self.schema.names)

    def _iter_blocks(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> Iterator[tuple[Any, Any]]:
        names = dict.fromkeys([*numbers, *others])
        texts = [name for name in names if self._is_text_column(name)]
        columns = list(names)
        if self.keeps_all:
            columns = list(self.names)
            texts = [name for name in columns if str(self.schema.field(name).type) in _TEXTS]
        partition = {name: text for name, text in self._partition.items() if name in columns}
        columns = [name for name in columns if name not in partition]
        texts = [name for name in texts if name not in partition]
        check_decompressed_size(self.path, columns)
        # Text stays in its dictionary: a label of a megabyte may stand in every row of a small file.
        # Without pre_buffer=False, pyarrow holds all bytes that it has read until the file is closed.
        with import_pyarrow(".parquet").ParquetFile(
            self.path, read_dictionary=texts, pre_buffer=False, **LIMITS
        ) as file:
            for batch in file.iter_batches(batch_size=formats.ROWS, columns=columns):
                batch = append_constant_columns(batch, partition)
                yield batch, self._decode_dictionaries(batch, texts) if self.keeps_all else batch

    def _decode_dictionaries(self, batch: Any, texts: Sequence[str]) -> Any:
        """Return rows with the types of the file, dictionaries decoded; raise InputError if text is too large."""
        compute = import_pyarrow(".compute")
        for name in texts:
            column = batch.column(name)
            size = compute.sum(
                compute.binary_length(column.dictionary).take(column.indices)
            ).as_py()
            if (size or 0) > _MAX_TEXT:
                raise InputError(
                    f"the text of {len(batch):,} rows must be at most {_MAX_TEXT:,} bytes in total",
                    f"{size:,} bytes in column {name!r} of {self.label}",
                    "Leave out columns of long text.",
                )
        return batch.cast(self.schema)

    def _is_text_column(self, name: str) -> bool:
        """Return whether a column holds text rather than numbers or lists of numbers; others raise InputError."""
        types = import_pyarrow().types
        kind = self.schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_string(kind) or types.is_large_string(kind):
            return True
        parts = [kind.value_type] if hasattr(kind, "value_type") else [kind]
        simple = (types.is_primitive, types.is_decimal, types.is_null)
        if not any(is_kind(part) for is_kind in simple for part in parts):
            raise InputError(
                f"column {name!r} must hold numbers or text",
                f"{kind} in {self.label}",
                "Write numbers or text, or lists of numbers.",
            )
        return False


class ParquetWriter(Writer):
    """Writer of Parquet; chunks are collected into large row groups."""

    def __init__(
        self, file: IO[bytes], source: Format, scores: Sequence[str], prefix: str, suffix: str
    ) -> None:
        super().__init__(file, source, scores, prefix, suffix)
        self._writer: Any = None
        self._chunks: list[Any] = []
        self._label = ""

    def write(self, source: Any, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write rows with their additional columns; column types are those of the first chunk."""
        self._label = source.label
        with translate_arrow_errors(self.suffix, self._label):
            table = append_columns(source.to_arrow_table(rows, self.scores), self.names, arrays)
            if self._writer is None:
                table = import_pyarrow().table(table)
                self._writer = import_pyarrow(".parquet").ParquetWriter(
                    self.file, table.schema, dictionary_pagesize_limit=_DICTIONARY
                )
            self._chunks.append(import_pyarrow().table(table).cast(self._writer.schema))
        if (
            sum(map(len, self._chunks)) >= _GROUP_ROWS
            or sum(chunk.nbytes for chunk in self._chunks) >= _GROUP_BYTES
        ):
            self._write_row_group()

    def _write_row_group(self) -> None:
        with translate_arrow_errors(self.suffix, self._label):
            if self._chunks:
                self._writer.write_table(import_pyarrow().concat_tables(self._chunks))
        self._chunks = []

    def close(self) -> None:
        """Write the pending rows and the footer."""
        if self._writer is not None:
            self._write_row_group()
            self._writer.close()

    def discard(self) -> None:
        """Close the file without writing pending rows."""
        self._chunks = []
        self.close()


def check_decompressed_size(path: Path, names: Collection[str]) -> None:
    """Raise InputError if columns decompress to far more than the size of the file.

    Raises:
        InputError: If they do.
        ValueError: If the file is damaged.
    """
    try:
        size = _decompressed_size(path, names)
    except (TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError("the metadata is damaged") from error  # fields of other types
    on_disk = path.stat().st_size
    if size > max(_FREE, _MAX_RATIO * on_disk):
        raise InputError(
            f"columns must decompress to at most {_MAX_RATIO:,} times the size of the file",
            f"{size:,} bytes from the {on_disk:,} bytes of {path.name}",
            "Write it without compression if you trust it.",
        )


def _decompressed_size(path: Path, names: Collection[str]) -> int:
    """Return the decompressed size of columns in bytes."""
    size = 0
    end = 0
    with path.open("rb") as file:
        for start, length in sorted(_iter_column_ranges(file, names)):
            if start < end:
                raise ValueError("two columns share a page")
            end = start + length
            size += _decompressed_page_size(file, start, end)
    return size


# The numbers are those of fields in parquet.thrift.
def _iter_column_ranges(file: IO[bytes], names: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield the start and length of the pages of each column chunk."""
    file.seek(-8, os.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    file.seek(-8 - size, os.SEEK_END)
    for group in _read_struct(io.BytesIO(file.read(size)))[4]:
        for column in group[1]:
            meta = column[3]
            # the first part of the path: a list column has further ones
            if meta[3][0].decode() in names:
                # pages of data begin after those of a dictionary
                yield min(offset for offset in (meta[9], meta[11]) if offset > 0), meta[7]


def _decompressed_page_size(file: IO[bytes], start: int, end: int) -> int:
    """Return the decompressed size in bytes of the pages between two file positions."""
    file.seek(start)
    values = 0
    size = 0
    while file.tell() < end:
        page = _read_struct(file)
        size += page[2]
        # headers of data, of a dictionary, and of data of version 2
        values += sum(page[kind][1] for kind in (5, 7, 8) if kind in page)
        if min(page[2], page[3], values) < 0:
            raise ValueError("a page has a negative size")
        file.seek(page[3], os.SEEK_CUR)
    # lists have more values than rows, and text more bytes than values
    return max(8 * values, size)


def _read_struct(file: IO[bytes]) -> dict[int, Any]:
    """Read a struct in Thrift's compact protocol; return its fields by id."""
    fields: dict[int, Any] = defaultdict(int)
    number = 0
    while head := _read_bytes(file, 1)[0]:
        number = number + (head >> 4) if head >> 4 else _read_value(file, 4)
        fields[number] = _read_value(file, head & 15)
    return fields


def _read_value(file: IO[bytes], kind: int) -> Any:
    """Read a value of a Thrift type: number, bytes, list or struct."""
    if kind in (1, 2):  # the kind says whether it is true
        return kind
    if kind in (4, 5, 6):
        number = _read_varint(file)
        return (number >> 1) ^ -(number & 1)
    if kind in (3, 7):
        return _read_bytes(file, 1 if kind == 3 else 8)
    if kind == 8:
        return _read_bytes(file, _read_varint(file))
    if kind == 9:
        head = _read_bytes(file, 1)[0]
        length = _read_varint(file) if head >> 4 == 15 else head >> 4
        element = 3 if head & 15 in (1, 2) else head & 15
        return [_read_value(file, element) for _ in range(length)]
    if kind == 12:
        return _read_struct(file)
    raise ValueError(f"the metadata has a field of unknown type {kind}")


def _read_varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _read_bytes(file, 1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value


def _read_bytes(file: IO[bytes], length: int) -> bytes:
    content = file.read(min(length, 2**26))
    if len(content) < length:
        raise ValueError("the metadata is truncated")
    return content
