"""Tables, read a chunk of rows at a time: the protocol of their readers, NumPy archives, and data frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.arrays import Arrays, check_fits, open_arrays
from fedlas._core.check import InputError, describe
from fedlas.predictions.chunk import Chunk
from fedlas.predictions.class_labels import OWNER

ROWS = 4096
"""Rows of a chunk."""


class Source(Protocol):
    """A table to read.

    Attributes:
        names: Names of its columns, in order.
        label: Its name in messages.
        missing: Texts that stand for no number.
        notes: Sentences on how the file was read.
        in_percent: Columns whose numbers have percent signs, which are divided by 100.
    """

    names: list[str]
    label: str
    missing: tuple[str, ...]
    notes: list[str]
    in_percent: frozenset[str]

    def chunks(self, numbers: Sequence[Sequence[str]], others: Sequence[str]) -> Iterator[Chunk]:
        """Yield all rows of some groups of number columns and of other columns, in order."""


class Frame:
    """A data frame of pandas or polars, or a mapping from names to columns."""

    label = "the frame"
    in_percent: frozenset[str] = frozenset()

    def __init__(self, frame: Any) -> None:
        columns = frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", None)
        if columns is None or isinstance(frame, str | Tensor):
            fix = "Pass a data frame of pandas or polars, or a mapping from names to columns."
            raise InputError(OWNER, "the table must have columns", describe(frame), fix)
        self.names = [str(name) for name in columns]
        self._columns = dict(zip(self.names, columns, strict=True))
        self._frame, self.notes = frame, list[str]()
        self.missing: tuple[str, ...] = ()

    def chunks(self, numbers: Sequence[Sequence[str]], others: Sequence[str]) -> Iterator[Chunk]:
        """As :meth:`Source.chunks`."""
        groups = [[self._numbers(name) for name in names] for names in numbers]
        values = {name: self._values(name) for name in others}
        lists = tuple(columns[0].ndim == 2 for columns in groups)
        counts = {len(column) for column in values.values()} | {len(each) for columns in groups for each in columns}
        if len(counts) > 1 or any(c.ndim != 1 for columns in groups if len(columns) > 1 for c in columns):
            got = f"lengths {', '.join(map(str, sorted(counts)))}"
            raise InputError(OWNER, "columns must have one length, and lists a column alone", got, "Name others.")
        joined = [columns[0] if columns[0].ndim == 2 else np.stack(columns, axis=1) for columns in groups]
        for start in range(0, counts.pop(), ROWS):
            part = slice(start, start + ROWS)
            cells: dict[str, Any] = {name: each[part] for name, each in values.items()}
            arrays = tuple(group[part] for group in joined)
            rows = np.arange(start + 1, start + 1 + len(next(iter([*arrays, *cells.values()]))))
            yield Chunk(rows, arrays, lists, cells, self.label)

    def _numbers(self, name: str) -> NDArray[Any]:
        column = self._frame[self._columns[name]]
        if hasattr(column, "notna"):  # pandas, whose missing values may be objects
            plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiu"
            column = column if plain else column.astype(object).where(column.notna(), None)
        try:
            array = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
            if array.dtype == object:
                array = np.array([np.nan if value is None else value for value in array.tolist()])
            return array if array.dtype == np.float32 else array.astype(np.float64)
        except (TypeError, ValueError) as error:  # text, or lists of several lengths
            got = f"{getattr(column, 'dtype', 'other values')} in {self.label}"
            fix = "Name columns of scores, or one of lists of one length."
            raise InputError(OWNER, f"column {name!r} must hold numbers", got, fix) from error

    def _values(self, name: str) -> list[Any]:
        column = self._frame[self._columns[name]]
        if hasattr(column, "notna"):
            column = column.astype(object).where(column.notna(), None)
        return list(column.tolist() if hasattr(column, "tolist") else column)


class Archive:
    """Arrays of an ``.npz``: ``(N, C)``, or ``(N,)`` for a single column; read a chunk at a time, never as a whole.

    An array that lies in memory column by column (``fortran_order``) is read as a whole: its rows are not contiguous.
    """

    missing: tuple[str, ...] = ()
    in_percent: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        self.path, self.label, self.notes = path, path.name, list[str]()
        with self._archive() as archive:
            self.names = archive.names

    def chunks(self, numbers: Sequence[Sequence[str]], others: Sequence[str]) -> Iterator[Chunk]:
        """As :meth:`Source.chunks`."""
        with self._archive() as archive:
            # A group of several arrays, and an array of anything but numbers, is one value a row.
            groups = [[_Member(archive, name, self.path) for name in group] for group in numbers]
            rest = {name: _Member(archive, name, self.path) for name in others}
            flat = [*rest.values(), *(member for group in groups if len(group) > 1 for member in group)]
            alone = [group[0] for group in groups if len(group) == 1]
            counts = {member.shape[0] for member in (*alone, *flat)}
            if len(counts) > 1 or any(len(m.shape) != 1 for m in flat) or any(len(m.shape) > 2 for m in alone):
                got = ", ".join(f"{member.name!r} {member.shape}" for member in (*alone, *flat))
                expected = "arrays must be (N, C), or (N,) where several are named, and labels (N,), of one N"
                raise InputError(OWNER, expected, f"{got} in {self.path.name}", "Save them so.")
            for start in range(0, counts.pop(), ROWS):
                parts = [[_floating(member) for member in group] for group in groups]
                lists = tuple(columns[0].ndim == 2 for columns in parts)
                joined = tuple(each[0] if each[0].ndim == 2 else np.stack(each, axis=1) for each in parts)
                values = {name: member.rows(ROWS) for name, member in rest.items()}
                rows = np.arange(start + 1, start + 1 + len(next(iter([*joined, *values.values()]))))
                yield Chunk(rows, joined, lists, values, self.label)

    @contextmanager
    def _archive(self) -> Iterator[Arrays]:
        try:
            with open_arrays(self.path) as archive:
                yield archive
        except InputError:
            raise
        except (OSError, ValueError) as error:
            got = f"{self.path} ({error})"
            raise InputError(OWNER, "it must be an .npz of plain arrays", got, "Write it with numpy.savez.") from error


class _Member:
    """One array of an archive, read from its beginning to its end."""

    def __init__(self, archive: Arrays, name: str, path: Path) -> None:
        array = archive.open(name)
        self.name, self._file, self.shape, self.dtype = name, array.file, array.shape, array.dtype
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not self.shape or not row:
            got = f"{self.dtype} {self.shape} in {path.name}"
            raise InputError(OWNER, f"array {name!r} must hold something in each row", got, "Save one row a sample.")
        check_fits(min(ROWS, self.shape[0]) * row, f"a chunk of array {name!r}")
        self._whole = archive[name] if array.by_column else None
        self._row = 0

    def rows(self, count: int) -> NDArray[Any]:
        """Return the next ``count`` rows, or the rest."""
        count = min(count, self.shape[0] - self._row)
        self._row += count
        if self._whole is not None:
            return self._whole[self._row - count : self._row]
        shape = (count, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError("an array ends too early")
        return np.frombuffer(content, self.dtype).reshape(shape)


def _floating(member: _Member) -> NDArray[np.floating[Any]]:
    """Return the next numbers: single precision stays, half becomes single, all else double."""
    if member.dtype.kind not in "fiu":
        raise InputError(OWNER, f"array {member.name!r} must hold numbers", str(member.dtype), "Name arrays of scores.")
    values = member.rows(ROWS)
    return values.astype(np.float32 if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else np.float64)
