"""Tables as files hold them, a block of rows at a time: what a file must offer, and NumPy archives, which offer it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedlas._core.arrays import Arrays, open_arrays
from fedlas._core.check import InputError
from fedlas._core.memory import check_fits
from fedlas.predictions.class_labels import OWNER

ROWS = 4096
"""Rows of a block."""


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        first_row: Number of the first, counted from 1 (a header is no row).
        numbers: Of each group of columns of numbers ``(n,)`` a column, side by side ``(n, columns)``; or ``(n, C)`` of
            one column of lists.
        lists: Whether each of them comes from one column of lists.
        plain: Values of other columns as they stand there, ``n`` of each, by the name of the column.
    """

    first_row: int
    numbers: tuple[NDArray[np.floating[Any]], ...]
    lists: tuple[bool, ...]
    plain: Mapping[str, Sequence[Any] | NDArray[Any]]


class Source(Protocol):
    """A file that is a table."""

    names: list[str]
    """Of its columns, in order."""

    missing: tuple[str, ...]
    """Texts that stand for no number."""

    def blocks(self, numbers: Sequence[Sequence[str]], plain: Sequence[str]) -> Iterator[Block]:
        """All rows of some groups of columns of numbers and of other columns, in order."""


class Archive:
    """Arrays of an ``.npz``: ``(N, C)``, or ``(N,)`` for a single column; read a block at a time, never as a whole.

    An array that lies in memory column by column (``fortran_order``) is read as a whole: no block of rows is together.
    """

    missing: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._archive() as archive:
            self.names = archive.names

    def blocks(self, numbers: Sequence[Sequence[str]], plain: Sequence[str]) -> Iterator[Block]:
        """As :meth:`Source.blocks`."""
        with self._archive() as archive:
            # A group of several arrays, and an array of anything but numbers, is one value a row.
            groups = [[_Member(archive, name, self.path) for name in group] for group in numbers]
            others = {name: _Member(archive, name, self.path) for name in plain}
            flat = [*others.values(), *(member for group in groups if len(group) > 1 for member in group)]
            alone = [group[0] for group in groups if len(group) == 1]
            counts = {member.shape[0] for member in (*alone, *flat)}
            if len(counts) > 1 or any(len(m.shape) != 1 for m in flat) or any(len(m.shape) > 2 for m in alone):
                got = ", ".join(f"{member.name!r} {member.shape}" for member in (*alone, *flat))
                expected = "arrays must be (N, C), or (N,) where several are named, and labels (N,), of one N"
                raise InputError(OWNER, expected, f"{got} in {self.path.name}", "Save them so.")
            for start in range(0, counts.pop(), ROWS):
                parts = [[_floating(member) for member in group] for group in groups]
                lists = tuple(columns[0].ndim == 2 for columns in parts)
                side_by_side = (columns[0] if columns[0].ndim == 2 else np.stack(columns, axis=1) for columns in parts)
                rest = {name: member.rows(ROWS) for name, member in others.items()}
                yield Block(start + 1, tuple(side_by_side), lists, rest)

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
        found = archive.open(name)
        self.name, self._file, self.shape, self.dtype = name, found.file, found.shape, found.dtype
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not self.shape or not row:
            got = f"{self.dtype} {self.shape} in {path.name}"
            raise InputError(OWNER, f"array {name!r} must hold something in each row", got, "Save one row a sample.")
        check_fits(min(ROWS, self.shape[0]) * row, f"a block of array {name!r}")
        self._whole = archive[name] if found.by_column else None
        self._row = 0

    def rows(self, count: int) -> NDArray[Any]:
        """The next ``count`` rows, or as many as are left."""
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
    """The next numbers: single precision stays, half becomes single, all else double."""
    if member.dtype.kind not in "fiu":
        raise InputError(OWNER, f"array {member.name!r} must hold numbers", str(member.dtype), "Name arrays of scores.")
    values = member.rows(ROWS)
    return values.astype(np.float32 if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else np.float64)
