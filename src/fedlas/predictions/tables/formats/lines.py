"""Text files, read in blocks of whole rows that keep their bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.predictions.tables.formats.compression import data_suffix, open_decompressed

BYTES = 1 << 22
"""Block size in bytes; larger for long rows."""
_LONGEST = 1 << 26
"""Maximum length of a row in bytes, or of a line in characters."""
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
_ENDS = (_NEWLINE, _RETURN)
BOM = b"\xef\xbb\xbf"
_BEGINNINGS = (
    (b"\xff\xfe", "text in UTF-16", "Save it as UTF-8."),
    (b"\xfe\xff", "text in UTF-16", "Save it as UTF-8."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it."),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "Unpack it, or save the sheet as CSV."),
    (b"PAR1", "a Parquet file", "Name it .parquet."),
)
"""First bytes of files that are not UTF-8 text, their format, and the remedy."""


def check_utf8_text(path: Path) -> None:
    """Raise InputError if the first bytes of a file show that it is not UTF-8 text.

    Raises:
        InputError: Then; it says which, and what to do.
    """
    with open_decompressed(path) as file:
        first = file.read(64)
    forms = [form for form in _BEGINNINGS if first.startswith(form[0])]
    if b"\0" in first:
        forms.append(_BEGINNINGS[0])  # without a mark
    for _, what, fix in forms[:1]:
        raise InputError(f"a {data_suffix(path)} file must be UTF-8 text", f"{what}, {path}", fix)


def iter_row_blocks(path: Path, delimiter: str = "") -> Iterator[tuple[memoryview, Any]]:
    """Yield blocks of whole rows: their bytes, and an Arrow array of rows that each begin with a line end.

    Args:
        path: The file.
        delimiter: Separator of cells that may be quoted; empty: a line break always ends a row.

    Raises:
        InputError: If a quote is never closed, or a row is longer than 64 MiB.
    """
    with open_decompressed(path) as file:
        # The first row begins with the end of a line too.
        block = b"\n" + file.read(len(BOM)).removeprefix(BOM)
        is_last = False
        while not is_last:
            content = file.read(max(BYTES, len(block)))
            is_last = not content
            block += content
            array = np.frombuffer(block, np.uint8)
            quotes = (
                _quote_positions(array, delimiter, path)
                if delimiter and b'"' in block
                else array[:0]
            )
            edges = _row_ends(array, quotes, is_last=is_last)
            if is_last and len(quotes) % 2:
                raise _unclosed_quote_error(path)
            if is_last and block[edges[-1] :].strip(b"\r\n"):
                edges = np.append(edges, len(block))
            if len(edges) > 1:
                rows = _to_row_array(block, edges)
                if len(rows):
                    yield memoryview(block)[edges[0] : edges[-1]], rows
                block = block[edges[-1] :]
            elif len(block) > _LONGEST:
                raise _row_too_long_error(path, _LONGEST)


@contextmanager
def open_lines(
    path: Path, newline: str | None = None, longest: int = _LONGEST
) -> Iterator[Iterator[str]]:
    """Open a text file as lines without byte-order mark; invalid UTF-8 becomes surrogates.

    Args:
        path: The file.
        newline: As of :func:`open`.
        longest: Most characters of a line; a longer one is an InputError where it is read.
    """
    with io.TextIOWrapper(open_decompressed(path), "utf-8-sig", "surrogateescape", newline) as file:
        yield _iter_limited_lines(file, path, longest)


def _iter_limited_lines(file: IO[str], path: Path, longest: int) -> Iterator[str]:
    """Yield the lines of a file; a line that is too long raises InputError."""
    while line := file.readline(longest + 1):
        if len(line) > longest:
            raise _row_too_long_error(path, longest)
        yield line


def _row_too_long_error(path: Path, longest: int) -> InputError:
    return InputError(
        f"every row must be shorter than {longest >> 20} MiB",
        f"a longer one in {path.name}",
        "Close an open quote, or leave out columns of long text.",
    )


def drop_blank_rows(rows: Any, count: int, rows_before: int, label: str) -> Any:
    """Return the rows of a block without blank lines; raise InputError unless ``count`` remain.

    Raises:
        InputError: If there are others.
    """
    if count != len(rows):
        rows = rows.filter(
            require("pyarrow", extra="tables").array([bool(row.as_py().strip()) for row in rows])
        )
    if count != len(rows):
        raise InputError(
            "every row must be one line, except for quoted line breaks in a CSV",
            f"{count:,} rows in {len(rows):,} lines after row {rows_before:,} of {label}",
            "Write one row per line.",
        )
    return rows


def _row_ends(
    block: NDArray[np.uint8], quotes: NDArray[Any], *, is_last: bool
) -> NDArray[np.int64]:
    """Return the ascending positions of line ends outside quotes: newline, carriage return, or both."""
    is_end = block == _NEWLINE
    is_return = block == _RETURN
    if is_return.any():
        # the second byte of a pair ends nothing; at the end of a block, it may still come
        is_end[1:] &= ~is_return[:-1]
        is_return[-1] &= is_last
        is_end |= is_return
        is_end[0] = True
    ends = np.flatnonzero(is_end)
    return ends[np.searchsorted(quotes, ends) % 2 == 0] if len(quotes) else ends


def _quote_positions(block: NDArray[np.uint8], delimiter: str, path: Path) -> NDArray[Any]:
    """Return the positions at which quoted cells begin and end, alternating."""
    quotes = np.flatnonzero(block == _QUOTE)
    before = block[quotes[::2] - 1]
    # If every other quote opens a cell or follows a quote, all are delimiters; else some are ordinary characters.
    if np.isin(before, (ord(delimiter), _NEWLINE, _RETURN, _QUOTE)).all():
        return quotes
    edges: list[int] = []
    skip = -1
    places = {*quotes.tolist()}
    for place in quotes.tolist():
        if place == skip:
            continue
        is_open = len(edges) % 2
        if is_open and place + 1 in places:
            skip = place + 1
        elif is_open or block[place - 1] in (ord(delimiter), _NEWLINE, _RETURN):
            edges.append(place)
            # An open quote would be closed by the opening quote of a later cell.
            ends_well = block[place + 1 : place + 2].tolist() in (
                [],
                [ord(delimiter)],
                [_NEWLINE],
                [_RETURN],
            )
            if is_open and not ends_well and np.isin(block[edges[-2] : place], _ENDS).any():
                raise _unclosed_quote_error(path)
    return np.array(edges, dtype=np.int64)


def _unclosed_quote_error(path: Path) -> InputError:
    return InputError(
        "every quote must be closed",
        f"an open quote in {path.name}",
        'Put cells that contain " in quotes, and double it.',
    )


def _to_row_array(block: bytes, edges: NDArray[np.int64]) -> Any:
    """Return the rows between positions ``edges`` as an Arrow array, without empty ones."""
    arrow = require("pyarrow", extra="tables")
    buffers = [None, arrow.py_buffer(edges.astype(np.int32)), arrow.py_buffer(block)]
    rows = arrow.Array.from_buffers(arrow.binary(), len(edges) - 1, buffers)
    short = np.flatnonzero(np.diff(edges) <= 2)
    full = np.ones(len(rows), dtype=bool)
    full[short] = [bool(block[edges[n] : edges[n + 1]].strip(b"\r\n")) for n in short.tolist()]
    return rows if full.all() else rows.filter(arrow.array(full))
