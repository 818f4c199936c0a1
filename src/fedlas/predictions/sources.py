"""Tables, read a chunk of rows at a time: the protocol of their readers, NumPy archives, and data frames."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.arrays import Arrays, check_fits, open_arrays
from fedlas._core.check import InputError, check_dense, describe
from fedlas._core.files import checked_path
from fedlas.predictions.cells import TableChunk, floating

ROWS = 2**13
"""Rows of a chunk."""
Pieces = tuple[tuple[int, ...], Iterator[NDArray[Any]]]
"""Shape of a column, and its values, ``ROWS`` at a time."""


class TableSource(Protocol):
    """A table to read.

    Attributes:
        names: Names of its columns, in order.
        label: Its name in messages.
        missing: Texts that stand for no number.
        notes: Sentences on how the file was read.
        decimal_point: What separates decimals in text.
        decimal_mark: The same, None where the first rows do not show it or numbers are no text.
    """

    names: list[str]
    label: str
    missing: tuple[str, ...] = ()
    notes: list[str]
    decimal_point: str = "."
    decimal_mark: str | None = None

    @property
    def form(self) -> Any:
        """What all files of one table have in common."""
        return type(self), self.names

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield all rows of some columns of numbers and of other columns, in order."""

    def add_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:  # noqa: ARG002 (for files of JSON)
        """Make columns of paths into others, if rows are objects in JSON; ``mixed`` columns hold values of any kind."""
        return  # other sources have no paths


class Frame(TableSource):
    """A data frame of pandas or polars, or a mapping from names to columns."""

    label = "the frame"

    def __init__(self, frame: Any) -> None:
        if hasattr(frame, "collect_schema") and hasattr(frame, "collect"):  # a lazy one of polars
            frame = frame.collect()
        columns = frame.keys() if isinstance(frame, Mapping) else getattr(frame, "columns", None)
        if columns is None or isinstance(frame, str | Tensor):
            raise InputError(
                "the table must have columns",
                describe(frame),
                "Pass a data frame of pandas or polars, or a mapping from names to columns.",
            )
        self.names = [str(name) for name in columns]
        self._columns = {str(name): _column(str(name), frame[name]) for name in columns}
        self.notes: list[str] = []

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """As :meth:`TableSource.chunks`."""
        for name in (*numbers, *others):
            column = self._columns[name]
            if (
                isinstance(column, str | bytes)
                or not hasattr(column, "__len__")
                or getattr(column, "ndim", 1) == 0
            ):
                raise InputError(
                    f"column {name!r} must hold a value in each row",
                    f"{describe(column)} in {self.label}",
                    "Pass a list or an array.",
                )
        values = {name: np.fromiter(self._plain(name), dtype=object) for name in others}
        yield from _together(
            {name: _pieces(self._numbers(name)) for name in numbers},
            {name: _pieces(column) for name, column in values.items()},
            self.label,
        )

    def _numbers(self, name: str) -> NDArray[Any]:
        column = self._columns[name]
        if isinstance(column, Tensor):
            check_dense(name, column)
            column = column.detach().cpu()
            # bfloat16
            column = (
                column.float() if column.is_floating_point() and column.itemsize < 4 else column
            )
        # types of pandas' own
        if hasattr(column, "notna") and not isinstance(column.dtype, np.dtype):
            column = self._plain(name)
        try:
            array = np.asarray(column)
            if array.dtype == object:
                array = np.array([np.nan if value is None else value for value in array.tolist()])
            return floating(name, array, self.label)
        except (TypeError, ValueError) as error:  # text, or lists of several lengths
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"column {name!r} must hold numbers",
                describe(column),
                "Name columns of scores, or one of lists of one length.",
            ) from error

    def _plain(self, name: str) -> list[Any]:
        column = self._columns[name]
        if hasattr(column, "notna"):
            column = column.astype(object).where(column.notna(), None)
        return list(column.tolist() if hasattr(column, "tolist") else column)


def _column(name: str, values: Any) -> Any:
    """Return a column that NumPy reads: a tensor may require grad, or lie on another device."""
    if not isinstance(values, Tensor):
        return values
    check_dense(f"column {name!r}", values)
    return values.detach().cpu()


class Joined(TableSource):
    """Files read as one table.

    Args:
        tables: The table in each.

    Attributes:
        current: The table of the last chunk.

    Raises:
        InputError: If they are not alike.
    """

    def __init__(self, tables: Sequence[Any]) -> None:
        self.tables = tables
        self.current = tables[0]
        self.names = tables[0].names
        self.label = ", ".join(table.label for table in tables)
        self.decimal_point = tables[0].decimal_point
        self.decimal_mark = tables[0].decimal_mark
        for table in tables:
            if table.form != tables[0].form:
                raise InputError(
                    "files of one table must have one format, with the same columns in one order",
                    f"another in {table.label} than in {tables[0].label}",
                    "Convert them, or do one by one.",
                )

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """Sentences on how the files were read, each once."""
        return list(dict.fromkeys(note for table in self.tables for note in table.notes))

    def add_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:
        """As :meth:`TableSource.add_paths`."""
        for table in self.tables:
            table.add_paths(names, mixed)
        self.names = self.tables[0].names

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """As :meth:`TableSource.chunks`; rows are counted from 1 in each file."""
        for table in self.tables:
            self.current = table
            table.missing = self.missing
            yield from table.chunks(numbers, others)


class Archive(TableSource):
    """Arrays of an ``.npz``: ``(N, C)``, or ``(N,)`` for a single column; read a chunk at a time, never as a whole.

    An array that lies in memory column by column (``fortran_order``) is read as a whole: its rows are not contiguous.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = path.name
        self.notes: list[str] = []
        with open_archive(path) as archive:
            self.names = archive.names

    @property
    def form(self) -> Any:
        """As :attr:`TableSource.form`; arrays have no order."""
        return Archive, {*self.names}

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """As :meth:`TableSource.chunks`."""
        with open_archive(self.path) as archive:
            pieces = {name: self._pieces(archive, name) for name in dict.fromkeys([*numbers])}
            rest = {name: self._pieces(archive, name) for name in others}
            for name, (shape, _) in rest.items():
                if len(shape) > 1:
                    raise InputError(
                        f"array {name!r} must be (N,)", f"{shape} in {self.label}", "Save it so."
                    )
            yield from _together(pieces, rest, self.label)

    def _pieces(self, archive: Arrays, name: str) -> Pieces:
        """Return an array of the archive, which is read from its beginning to its end."""
        array = archive.open(name)
        row = math.prod(array.shape[1:]) * array.dtype.itemsize
        if not array.shape or not row:
            raise InputError(
                f"array {name!r} must hold something in each row",
                f"{array.dtype} {array.shape} in {self.label}",
                "Save one row a sample.",
            )
        check_fits(min(ROWS, array.shape[0]) * row, f"a chunk of array {name!r}")
        if array.by_column:
            return _pieces(archive[name])

        def read() -> Iterator[NDArray[Any]]:
            for start in range(0, array.shape[0], ROWS):
                shape = (min(ROWS, array.shape[0] - start), *array.shape[1:])
                content = array.file.read(shape[0] * row)
                if len(content) < shape[0] * row:
                    raise EOFError("an array ends too early")
                yield np.frombuffer(content, array.dtype).reshape(shape)

        return array.shape, read()


@contextmanager
def open_archive(path: Path) -> Iterator[Arrays]:
    """Open an ``.npz`` of predictions.

    Raises:
        InputError: If it is missing, is no archive of plain arrays, or is damaged; also for reading in the block.
    """
    try:
        with open_arrays(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise InputError("the file must exist", path, "Check the path.") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            "the file must be an .npz of plain arrays",
            f"{path} ({error})",
            "Write it with Predictions.save or numpy.savez; pickled objects are refused on purpose.",
        ) from error


def load_arrays(
    path: str | Path, names: Sequence[str], needed: Collection[str], fix: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` that have one of ``names``.

    Raises:
        InputError: As :func:`open_archive`, or if one that is ``needed`` is not there.
    """
    with open_archive(checked_path(path)) as archive:
        if not {*needed} <= {*archive.names}:
            raise InputError(
                f"the file must have arrays named {' and '.join(map(repr, needed))}",
                f"{path} with {sorted(archive.names)}",
                fix,
            )
        return {name: archive[name] for name in names if name in archive}


def _pieces(array: NDArray[Any]) -> Pieces:
    return array.shape, (array[start : start + ROWS] for start in range(0, len(array), ROWS))


def _together(
    numbers: dict[str, Pieces], others: dict[str, Pieces], label: str
) -> Iterator[TableChunk]:
    """Yield some rows of all columns at a time, whose lengths are checked."""
    shapes = {name: shape for name, (shape, _) in (numbers | others).items()}
    if len({shape[0] for shape in shapes.values()}) > 1 or any(
        len(shape) > 2 for shape in shapes.values()
    ):
        got = ", ".join(f"{name!r} {shape}" for name, shape in shapes.items())
        raise InputError(
            "columns must be (N,) or (N, C), all of one length N",
            f"{got} in {label}",
            "Name others, or save them so.",
        )
    total = next(iter(shapes.values()))[0]
    for start in range(0, total, ROWS):
        values = {name: next(pieces) for name, (_, pieces) in others.items()}
        read = {name: floating(name, next(pieces), label) for name, (_, pieces) in numbers.items()}
        rows = np.arange(start, min(start + ROWS, total)) + 1
        yield TableChunk(rows, read, values, label, dict.fromkeys(read, False))
