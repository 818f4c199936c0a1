"""What a format is to its readers: names of columns, and rows a chunk at a time; and several files as one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.predictions.tables.cells import TableChunk, floating

ROWS = 2**13
"""Rows of a chunk."""
Pieces = tuple[tuple[int, ...], Iterator[NDArray[Any]]]
"""Shape of a column, and its values, ``ROWS`` at a time."""


class Format:
    """A file or frame in one format: the cells of its rows.

    Attributes:
        options: What it is made of in addition to a path: a separator of cells, or columns by the names of folders.
        needs_names: Whether the user must say which columns hold the scores.
        writer: What alone can write its rows with more columns; None: that of the format which is written.
        left_out: Rows without a score, which are none of its rows.
        names: Names of its columns, in order.
        label: Its name in messages.
        missing: Texts that stand for no number.
        notes: Sentences on how the file was read.
        decimal_point: What separates decimals in text.
        keeps_all: Whether the reader also holds, as ``rows``, all columns of the rows of the last chunk.
        rows: Those: an Arrow batch, or a list of objects.
        decimal_mark: The same as ``decimal_point``, None where the first rows do not show it or numbers are no text.
    """

    options: ClassVar[tuple[str, ...]] = ()
    needs_names: ClassVar[bool] = True
    writer: ClassVar[type[Writer] | None] = None
    left_out: Sequence[int] = ()
    names: list[str]
    label: str
    missing: tuple[str, ...] = ()
    notes: list[str]
    decimal_point: str = "."
    decimal_mark: str | None = None
    keeps_all: bool = False
    rows: Any = None

    @property
    def files(self) -> Sequence[Any]:
        """What holds its rows: itself, or several files."""
        return [self]

    @property
    def current(self) -> Any:
        """The file of the last chunk."""
        return self

    @property
    def form(self) -> Any:
        """What all files of one table have in common."""
        return type(self), self.names

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield all rows of some columns of numbers and of other columns, in order."""
        raise NotImplementedError

    def typed(self, rows: object, numbers: Collection[str]) -> Any:  # noqa: ARG002 (for text)
        """Return all columns of some rows as an Arrow table; text of columns that are ``numbers`` becomes numbers."""
        return rows

    def objects(self, rows: object, numbers: Collection[str]) -> list[dict[str, Any]]:
        """Return some rows as objects."""
        content: list[dict[str, Any]] = self.typed(rows, numbers).to_pylist()
        return content

    def holds_numbers(self, name: str) -> bool:  # noqa: ARG002 (for typed columns)
        """Return whether the type of a column says that it holds numbers, so that no cell needs to be read for it."""
        return False

    def name_beside(self, name: str, prefix: str) -> str:
        """Return the name of what is written next to a column: a value in an object stays in that object."""
        return f"{prefix}{name}"

    def take_names(self, names: Sequence[str]) -> None:
        """Take the columns of several files as its own, some of which its rows may lack."""
        self.names = list(names)

    def add_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:  # noqa: ARG002 (for files of JSON)
        """Make columns of paths into others, if rows are objects in JSON; ``mixed`` columns hold values of any kind."""
        return  # other sources have no paths

    def watch(self, patterns: Sequence[str]) -> None:  # noqa: ARG002 (for files of JSON)
        """Refuse rows with a further column that one of the ``patterns`` of the user matches, where rows name them."""
        return  # other sources name all columns first


class Writer:
    """Writes rows of a table with more columns.

    Args:
        file: Where they go.
        source: What is read.
        scores: Columns next to which others are written.
        prefix: Begins the names of these.
        suffix: End of the file's name.
    """

    def __init__(
        self, file: IO[bytes], source: Format, scores: Sequence[str], prefix: str, suffix: str
    ) -> None:
        self.file = file
        self.source = source
        self.scores = scores
        self.prefix = prefix
        self.suffix = suffix
        self.names = [f"{prefix}{name}" for name in scores]

    @property
    def added(self) -> tuple[str, ...]:
        """Names of what is written in addition."""
        return tuple(self.names)

    def write(self, source: object, rows: object, arrays: Sequence[NDArray[Any]]) -> None:
        """Write some rows of a file, and an array for each score; NaN is an empty cell.

        Raises:
            InputError: If the format cannot hold them.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Write what is left."""

    def discard(self) -> None:
        """Let go of what an error left open."""


class Joined(Format):
    """Files of one format, read as one.

    Args:
        files: Each file.

    Raises:
        InputError: If they are not alike.
    """

    files: Sequence[Any] = ()
    current: Any = None

    def __init__(self, files: Sequence[Any]) -> None:
        self.files = files
        self.current = files[0]
        self.names = list(dict.fromkeys(name for file in files for name in file.names))
        self.label = ", ".join(file.label for file in files)
        self.decimal_point = files[0].decimal_point
        self.decimal_mark = files[0].decimal_mark
        for file in files:
            if file.form != files[0].form:
                raise InputError(
                    "files of one table must have one format, with the same columns in one order",
                    f"another in {file.label} than in {files[0].label}",
                    "Convert them, or do one by one.",
                )
            file.take_names(self.names)

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """Sentences on how the files were read, each once."""
        return list(dict.fromkeys(note for file in self.files for note in file.notes))

    def add_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:
        """As :meth:`Format.add_paths`."""
        for file in self.files:
            file.add_paths(names, mixed)
        self.names = self.files[0].names

    def watch(self, patterns: Sequence[str]) -> None:
        """As :meth:`Format.watch`."""
        for file in self.files:
            file.watch(patterns)

    def name_beside(self, name: str, prefix: str) -> str:
        """As :meth:`Format.name_beside`."""
        return self.files[0].name_beside(name, prefix)

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """As :meth:`Format.chunks`; rows are counted from 1 in each file."""
        for file in self.files:
            self.current = file
            file.missing = self.missing
            yield from file.chunks(numbers, others)


def pieces_of(array: NDArray[Any]) -> Pieces:
    """Return the shape of an array, and its rows ``ROWS`` at a time."""
    return array.shape, (array[start : start + ROWS] for start in range(0, len(array), ROWS))


def together(
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
