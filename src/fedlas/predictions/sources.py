"""Tables as files hold them, a block of rows at a time: what a file must offer, and NumPy archives, which offer it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedlas._core.arrays import Arrays, open_arrays
from fedlas._core.check import InputError
from fedlas._core.memory import check_fits
from fedlas.predictions.columns import OWNER

ROWS = 4096
"""Rows of a block."""


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        first_row: Number of the first, counted from 1 (a header is no row).
        scores: ``(n,)`` per named column, side by side ``(n, columns)``; or ``(n, C)`` of one column of lists.
        labels: As they stand there, ``n`` of them; None if none are read.
        lists: Whether ``scores`` come from one column of lists.
    """

    first_row: int
    scores: NDArray[np.floating[Any]]
    labels: Sequence[Any] | NDArray[Any] | None
    lists: bool = False


class Source(Protocol):
    """A file that is a table."""

    names: list[str]
    """Of its columns, in order."""

    def blocks(self, scores: Sequence[str], target: str | None) -> Iterator[Block]:
        """All rows of these columns, in order."""


class Archive:
    """Arrays of an ``.npz``: ``(N, C)``, or ``(N,)`` for a single column; read a block at a time, never as a whole.

    An array that lies in memory column by column (``fortran_order``) is read as a whole: no block of rows is together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._archive() as archive:
            self.names = archive.names

    def blocks(self, scores: Sequence[str], target: str | None) -> Iterator[Block]:
        """As :meth:`Source.blocks`."""
        wanted = [*scores, *([] if target is None else [target])]
        with self._archive() as archive:
            members = [_Member(archive, name, self.path) for name in wanted]
            counts = {member.shape[0] for member in members}
            flat = members if len(scores) > 1 else members[1:]
            if len(counts) > 1 or any(len(member.shape) != 1 for member in flat) or len(members[0].shape) > 2:
                got = ", ".join(f"{name!r} {member.shape}" for name, member in zip(wanted, members, strict=True))
                expected = "arrays must be (N, C), or (N,) where several are named, and labels (N,), of one N"
                raise InputError(OWNER, expected, f"{got} in {self.path.name}", "Save them so.")
            for start in range(0, counts.pop(), ROWS):
                parts = [member.rows(ROWS) for member in members]
                columns, labels = parts[: len(scores)], None if target is None else parts[-1]
                for name, column in zip(scores, columns, strict=True):
                    if column.dtype.kind not in "fiu":
                        fix = "Name arrays of scores."
                        raise InputError(OWNER, f"array {name!r} must hold numbers", str(column.dtype), fix)
                floats: list[NDArray[np.floating[Any]]] = [_floating(column) for column in columns]
                lists = columns[0].ndim == 2
                yield Block(start + 1, floats[0] if lists else np.stack(floats, axis=1), labels, lists)

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
        self._file, self.shape, self.dtype = found.file, found.shape, found.dtype
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


def _floating(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Single precision stays, half becomes single, all else double."""
    return values.astype(np.float32 if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else np.float64)
