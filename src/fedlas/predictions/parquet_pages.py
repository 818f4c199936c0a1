"""Bytes that columns of a Parquet file take in memory, by the headers of their pages.

pyarrow's limits hold for the footer alone: a page of 900 bytes may expand to gigabytes, and the footer may claim less.
pyarrow also ends the process where it reads the sizes of a column from some damaged footers, so they are read here.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from fedlas._core.check import InputError

# Numbers of fields in parquet.thrift.
_ROW_GROUPS = 4
_COLUMNS = 1
_META_DATA = 3
_PATH = 3
_COMPRESSED = 7
_DATA_OFFSET = 9
_DICTIONARY_OFFSET = 11
_PAGE_EXPANDED = 2
_PAGE_COMPRESSED = 3
# headers of data, of a dictionary, and of data of version 2; field 1 is the number of values
_PAGE_KINDS = (5, 7, 8)


_FREE = 2**26
_MOST_RATIO = 1000
"""Bytes that a file may always expand to, and the largest ratio of a larger one. Real one-hot scores have 230."""


def check_expansion(path: Path, names: Collection[str]) -> None:
    """Refuse columns that take far more memory than the file takes on the disk.

    Raises:
        InputError: If they do.
    """
    size = expanded_size(path, names)
    on_disk = path.stat().st_size
    if size > max(_FREE, _MOST_RATIO * on_disk):
        expected = f"values must take at most {_MOST_RATIO:,} times the size of the file"
        got = f"{size:,} bytes in {on_disk:,} of {path.name}"
        raise InputError(expected, got, "Write it without compression, if its content is right.")


def expanded_size(path: Path, names: Collection[str]) -> int:
    """Return the bytes that the columns of these names take in memory.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        chunks = sorted(_chunks(_footer(file), names))
        size = 0
        last = 0
        for start, end in chunks:
            if start < last:
                raise ValueError("two columns share a page")
            size += _expanded(file, start, end)
            last = end
    return size


def _footer(file: IO[bytes]) -> bytes:
    """Return the metadata at the end of a file, before its length and four letters."""
    length = file.seek(-8, os.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    file.seek(max(0, length - size))
    return file.read(size)


def _chunks(footer: bytes, names: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield where the pages of each row group of the columns start and end."""
    for group in _struct(io.BytesIO(footer))[_ROW_GROUPS]:
        for column in group[_COLUMNS]:
            about = column[_META_DATA]
            # the first part: a list column has further ones
            name = footer[about[_PATH][0]].decode()
            if name in names:
                offsets = [about[_DATA_OFFSET], about[_DICTIONARY_OFFSET]]
                start = min(offset for offset in offsets if offset > 0)
                yield start, start + about[_COMPRESSED]


def _expanded(file: IO[bytes], start: int, end: int) -> int:
    file.seek(start)
    values = 0
    size = 0
    while file.tell() < end:
        page = _struct(file)
        size += page[_PAGE_EXPANDED]
        values += sum(page[kind][1] for kind in _PAGE_KINDS if kind in page)
        if min(page[_PAGE_EXPANDED], page[_PAGE_COMPRESSED], values) < 0:
            raise ValueError("a page of negative size")
        file.seek(page[_PAGE_COMPRESSED], os.SEEK_CUR)
    # lists have more values than rows, and text more bytes than values
    return max(8 * values, size)


def _struct(file: IO[bytes]) -> dict[int, Any]:
    """Return the fields of a struct in Thrift's compact protocol, by their numbers."""
    fields: dict[int, Any] = defaultdict(int)
    number = 0
    while head := _byte(file):
        number = number + (head >> 4) if head >> 4 else _signed(_varint(file))
        fields[number] = _value(file, head & 15)
    return fields


def _value(file: IO[bytes], kind: int) -> Any:
    """Return a number, a truth value, a list, a struct, or where the bytes of a text stand."""
    if kind in (1, 2):
        return kind == 1
    if kind in (4, 5, 6):
        return _signed(_varint(file))
    if kind in (3, 7):
        return _skipped(file, 1 if kind == 3 else 8)
    if kind == 8:
        return _skipped(file, _varint(file))
    if kind == 9:
        head = _byte(file)
        length = head >> 4
        if length == 15:
            length = _varint(file)
        element = _byte if head & 15 in (1, 2) else _value
        return [element(file, *([] if element is _byte else [head & 15])) for _ in range(length)]
    if kind == 12:
        return _struct(file)
    raise ValueError(f"a field of kind {kind} in its metadata")


def _skipped(file: IO[bytes], length: int) -> slice:
    start = file.tell()
    return slice(start, file.seek(length, os.SEEK_CUR))


def _byte(file: IO[bytes]) -> int:
    byte = file.read(1)
    if not byte:
        raise ValueError("its metadata end too early")
    return byte[0]


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
