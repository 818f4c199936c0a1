"""Base classes of table formats: `Format` reads chunks of rows, `Writer` writes them, `Joined` concatenates files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.predictions.tables.cells import TableChunk, to_floating

ROWS = 2**13
"""Rows of a chunk."""
Pieces = tuple[tuple[int, ...], Iterator[NDArray[Any]]]
"""Shape of a column, and its values, ``ROWS`` at a time."""


class Format:
    """Reader of a file or data frame in one format.

    Attributes:
        options: Constructor arguments besides the path: ``separator`` of cells, ``partition`` columns of folders.
        needs_names: Whether the user must name the score columns.
        writer: The only writer for its rows; None: the writer of the output format.
        left_out: Numbers of rows without a score, which were skipped.
        names: Column names, in order.
        label: Name of the table in messages.
        missing: Texts that mark a missing number.
        notes: Notes on how the file was read.
        decimal_point: Decimal mark of numbers in text.
        keeps_all: Whether ``rows`` holds all columns of the last chunk.
        rows: All columns of the last chunk, as an Arrow batch or a list of dicts.
        decimal_mark: The detected ``decimal_point``; None if the first rows show none, or numbers are not text.
        comma_columns: Columns with a decimal comma in a file whose other columns have a decimal point.
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
    comma_columns: frozenset[str] = frozenset()
    keeps_all: bool = False
    rows: Any = None

    @property
    def files(self) -> Sequence[Any]:
        """Files of the table: the reader itself, or the readers of several files."""
        return [self]

    @property
    def current_file(self) -> Any:
        """Reader of the file of the last chunk."""
        return self

    @property
    def layout(self) -> Any:
        """Properties that all files of one table must share."""
        return type(self), self.names

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield the columns ``numbers`` (as floats) and ``others`` of all rows in chunks, in order."""
        raise NotImplementedError

    def to_arrow_table(self, rows: object, numbers: Collection[str]) -> Any:  # noqa: ARG002 (for text)
        """Return all columns of rows as an Arrow table, with text in columns ``numbers`` converted to numbers."""
        return rows

    def to_dicts(self, rows: object, numbers: Collection[str]) -> list[dict[str, Any]]:
        """Return rows as dicts."""
        content: list[dict[str, Any]] = self.to_arrow_table(rows, numbers).to_pylist()
        return content

    def has_numeric_type(self, name: str) -> bool:  # noqa: ARG002 (for typed columns)
        """Return whether the column type is numeric, so that no cell needs to be read to know."""
        return False

    def output_name(self, name: str, prefix: str) -> str:
        """Return the name of the output column next to a column; nested values stay in their object."""
        return f"{prefix}{name}"

    def set_column_names(self, names: Sequence[str]) -> None:
        """Set the column names to those of all files of the table, some of which this file may lack."""
        self.names = list(names)

    def column_decimal_point(self, name: str) -> str:
        """Return the decimal mark of numbers in a column."""
        return "," if name in self.comma_columns else self.decimal_point

    def expand_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:  # noqa: ARG002 (for files of JSON)
        """Expand nested JSON fields, given by their paths, into columns; ``mixed`` columns may hold any type."""
        return  # other sources have no paths

    def reject_late_columns(self, patterns: Sequence[str]) -> None:  # noqa: ARG002 (for files of JSON)
        """Set patterns whose matches must be known columns: rows that add such a key raise InputError."""
        return  # other sources name all columns first


class Writer:
    """Writer of table rows with additional columns.

    Args:
        file: Output file.
        source: Reader of the table.
        scores: Score columns, each of which gets an output column.
        prefix: Prefix of the names of the output columns.
        suffix: Format of the output file, as a suffix.
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
        """Names of the additional columns."""
        return tuple(self.names)

    def write(self, source: object, rows: object, arrays: Sequence[NDArray[Any]]) -> None:
        """Write rows of a file with one array per score column; NaN becomes an empty cell.

        Raises:
            InputError: If the format cannot hold them.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Write pending rows and finish the file."""

    def discard(self) -> None:
        """Close the file without writing pending rows."""


class Joined(Format):
    """Files of one format, read as one table.

    Args:
        files: Each file.

    Raises:
        InputError: If they are not alike.
    """

    files: Sequence[Any] = ()
    current_file: Any = None

    def __init__(self, files: Sequence[Any]) -> None:
        self.files = files
        self.current_file = files[0]
        self.names = list(dict.fromkeys(name for file in files for name in file.names))
        self.label = ", ".join(file.label for file in files)
        self.decimal_point = files[0].decimal_point
        self.decimal_mark = files[0].decimal_mark
        self.comma_columns = frozenset().union(*(file.comma_columns for file in files))
        for file in files:
            if file.layout != files[0].layout:
                raise InputError(
                    "all files of a table must have the same format and columns",
                    f"others in {file.label} than in {files[0].label}",
                    "Convert the files, or process them one by one.",
                )
            file.set_column_names(self.names)

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """Notes on how the files were read, each once."""
        return list(dict.fromkeys(note for file in self.files for note in file.notes))

    def expand_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:
        """Expand nested JSON fields in all files."""
        for file in self.files:
            file.expand_paths(names, mixed)
        self.names = self.files[0].names

    def reject_late_columns(self, patterns: Sequence[str]) -> None:
        """Set the patterns in all files."""
        for file in self.files:
            file.reject_late_columns(patterns)

    def output_name(self, name: str, prefix: str) -> str:
        """Return the name of the output column next to a column, as in the first file."""
        return self.files[0].output_name(name, prefix)

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[TableChunk]:
        """Yield the chunks of all files; row numbers start from 1 in each file."""
        for file in self.files:
            self.current_file = file
            file.missing = self.missing
            yield from file.chunks(numbers, others)


def split_rows(array: NDArray[Any]) -> Pieces:
    """Return the shape of an array, and an iterator over its rows, ``ROWS`` at a time."""
    return array.shape, (array[start : start + ROWS] for start in range(0, len(array), ROWS))


def iter_chunks(
    numbers: dict[str, Pieces], others: dict[str, Pieces], label: str
) -> Iterator[TableChunk]:
    """Yield chunks of several columns of equal length."""
    shapes = {name: shape for name, (shape, _) in (numbers | others).items()}
    if len({shape[0] for shape in shapes.values()}) > 1 or any(
        len(shape) > 2 for shape in shapes.values()
    ):
        got = ", ".join(f"{name!r} {shape}" for name, shape in shapes.items())
        raise InputError(
            "columns must have shape (N,) or (N, C) with equal N",
            f"{got} in {label}",
            "Name other columns, or save them with equal length.",
        )
    total = next(iter(shapes.values()))[0]
    for start in range(0, total, ROWS):
        values = {name: next(pieces) for name, (_, pieces) in others.items()}
        read = {
            name: to_floating(name, next(pieces), label) for name, (_, pieces) in numbers.items()
        }
        rows = np.arange(start, min(start + ROWS, total)) + 1
        yield TableChunk(rows, read, values, label, dict.fromkeys(read, False))
