"""Tables as files hold them, a block of rows at a time: CSV, JSON lines, Parquet (by pyarrow) and NumPy archives."""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.predictions.columns import FIX, OWNER

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


class Delimited:
    """CSV or TSV with a header, UTF-8."""

    def __init__(self, path: Path, delimiter: str = ",") -> None:
        self.path, self.delimiter = path, delimiter
        with self._rows() as rows:
            self.names = next(rows, [])
        if not self.names:
            raise InputError(OWNER, "the first line must name the columns", f"{path}, which is empty", "Add a header.")

    def blocks(self, scores: Sequence[str], target: str | None) -> Iterator[Block]:
        """As :meth:`Source.blocks`."""
        places = [self.names.index(name) for name in scores]
        label = None if target is None else self.names.index(target)
        with self._rows() as rows:
            next(rows, None)
            for first, block in _in_blocks(row for row in rows if row):
                for place, row in enumerate(block):
                    if len(row) != len(self.names):
                        got = f"{len(row)} in row {first + place} of {self.path.name}"
                        fix = "Quote cells that hold the delimiter."
                        raise InputError(
                            OWNER, f"every row must have {len(self.names)} cells like the header", got, fix
                        )
                cells = [[row[place] for place in places] for row in block]
                labels = None if label is None else [row[label] for row in block]
                yield Block(first, _numbers(cells, scores, first, self.path.name), labels)

    @contextmanager
    def _rows(self) -> Iterator[Iterator[list[str]]]:
        with _opened(self.path) as file:
            yield csv.reader(file, delimiter=self.delimiter, strict=True)


class JsonLines:
    """One JSON object a line; the keys of the first are the columns, a column may hold lists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._rows() as rows:
            self.names = list(next(rows, {}))
        if not self.names:
            raise InputError(OWNER, "it must hold one JSON object a line", f"{path}, which has none", "Check the file.")

    def blocks(self, scores: Sequence[str], target: str | None) -> Iterator[Block]:
        """As :meth:`Source.blocks`."""
        with self._rows() as rows:
            for first, block in _in_blocks(rows):
                for place, row in enumerate(block):
                    for name in (*scores, *([] if target is None else [target])):
                        if row.get(name) is None:
                            raise missing(name, first + place, self.path.name)
                    if len(scores) == 1 and isinstance(row[scores[0]], list) is not isinstance(
                        block[0][scores[0]], list
                    ):
                        raise InputError(
                            OWNER,
                            f"column {scores[0]!r} must hold lists in every row or in none",
                            f"both in row {first + place} of {self.path.name} and before",
                            FIX,
                        )
                lists = len(scores) == 1 and isinstance(block[0][scores[0]], list)
                cells = [row[scores[0]] if lists else [row[name] for name in scores] for row in block]
                labels = None if target is None else [row[target] for row in block]
                yield Block(first, _numbers(cells, scores, first, self.path.name), labels, lists)

    @contextmanager
    def _rows(self) -> Iterator[Iterator[dict[str, Any]]]:
        with _opened(self.path) as file:
            yield (self._row(line, number) for number, line in enumerate(filter(str.strip, file), start=1))

    def _row(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line, object_pairs_hook=lambda pairs: self._object(pairs, number))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            got = f"row {number} of {self.path.name} ({error})"
            raise InputError(OWNER, "every line must be JSON", got, "Write one object a line.") from error
        if not isinstance(row, dict):
            got = f"{type(row).__name__} in row {number} of {self.path.name}"
            raise InputError(OWNER, "every line must be a JSON object", got, "Write one object a line.")
        return row

    def _object(self, pairs: list[tuple[str, Any]], number: int) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            got = f"{twice!r} twice in row {number} of {self.path.name}"
            raise InputError(OWNER, "column names must differ", got, "Rename one.")
        return dict(pairs)


class Parquet:
    """A Parquet file; a column may hold lists of one length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        require("pyarrow", extra="tables")
        self._file: Any = self._guard(lambda: require("pyarrow.parquet", extra="tables").ParquetFile(path))
        self.names = list(self._file.schema_arrow.names)

    def blocks(self, scores: Sequence[str], target: str | None) -> Iterator[Block]:
        """As :meth:`Source.blocks`."""
        wanted = [*scores, *([] if target is None else [target])]
        batches, first = self._file.iter_batches(batch_size=ROWS, columns=wanted), 1
        while (batch := self._guard(lambda: next(batches, None))) is not None:
            columns = [self._column(batch, name, first) for name in scores]
            lists = columns[0].ndim == 2
            if lists and len(columns) > 1:
                raise InputError(OWNER, "a column of lists must be the only one", f"{len(columns)}", "Name it alone.")
            labels = None if target is None else batch.column(target).to_pylist()
            yield Block(first, columns[0] if lists else np.stack(columns, axis=1), labels, lists)
            first += batch.num_rows

    def _column(self, batch: Any, name: str, first: int) -> NDArray[Any]:
        types, values = require("pyarrow.types", extra="tables"), batch.column(name)
        lists = types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type)
        rows = len(values)
        empty = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
        if len(empty):
            raise missing(name, first + int(empty[0]), self.path.name)
        if lists:
            lengths = np.array([len(value) for value in values], dtype=np.int64)
            if len(set(lengths.tolist())) > 1:
                place = int(np.flatnonzero(lengths != lengths[0])[0])
                raise uneven(name, int(lengths[0]), int(lengths[place]), first + place, self.path.name)
            values = values.flatten()
            if values.null_count:
                place = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
                raise missing(name, first + place // max(1, int(lengths[0])), self.path.name)
        kind = values.type
        if not (types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind)):
            raise InputError(OWNER, f"column {name!r} must hold numbers", str(kind), "Name columns of scores.")
        if not types.is_floating(kind):
            values = values.cast("float64")
        found = values.to_numpy(zero_copy_only=False)
        return found.reshape(rows, -1) if lists else found

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (OSError, ValueError) as error:  # pyarrow's own errors are either
            got = f"{self.path} ({' '.join(str(error).split())})"
            raise InputError(OWNER, "it must be a readable Parquet file", got, "Check the file.") from error


class Archive:
    """Arrays of an ``.npz``: ``(N, C)``, or ``(N,)`` for a single column; read a block at a time, never as a whole.

    An array that lies in memory column by column (``fortran_order``) is read as a whole: no block of rows is together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._archive() as archive:
            self.names = [name.removesuffix(".npy") for name in archive.namelist()]

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
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except InputError:
            raise
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            got = f"{self.path} ({error})"
            raise InputError(OWNER, "it must be an .npz of plain arrays", got, "Write it with numpy.savez.") from error


class _Member:
    """One array of an archive, read from its beginning to its end."""

    def __init__(self, archive: zipfile.ZipFile, name: str, path: Path) -> None:
        stored = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
        self._file: IO[bytes] = archive.open(stored)
        version = np.lib.format.read_magic(self._file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, by_column, self.dtype = header(self._file)
        if self.dtype.hasobject or not self.shape or version > (2, 0):
            got = f"{self.dtype} {self.shape} in {path.name}"
            raise InputError(OWNER, f"array {name!r} must be a plain array", got, "Save numbers or text, no objects.")
        self._whole: NDArray[Any] | None = None
        if by_column:
            with archive.open(stored) as again:
                self._whole = np.lib.format.read_array(again, allow_pickle=False)
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


FORMATS: dict[str, Callable[[Path], Source]] = {
    ".csv": Delimited,
    ".tsv": lambda path: Delimited(path, "\t"),
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": Parquet,
    ".npz": Archive,
}
"""What reads a file, by the end of its name."""


def source_of(path: Path) -> Source:
    """The table in a file.

    Raises:
        InputError: If there is no such file, its name ends otherwise, or it cannot be read.
        MissingExtraError: For Parquet without pyarrow.
    """
    if not path.is_file():
        raise InputError(OWNER, "the file must exist", path, "Check the path.")
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise InputError(OWNER, f"the name must end in {', '.join(FORMATS)}", path.name, "Rename or convert the file.")
    return form(path)


def _floating(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Single precision as it is, half as single, all else as double."""
    return values.astype(np.float32 if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else np.float64)


def missing(column: str, row: int, where: str) -> InputError:
    """The error for a cell that holds nothing."""
    return InputError(OWNER, "no value may be missing", f"none in row {row}, column {column!r} of {where}", FIX)


def uneven(column: str, expected: int, got: int, row: int, where: str) -> InputError:
    """The error for a list of another length."""
    return InputError(
        OWNER,
        f"lists of column {column!r} must hold {expected} numbers like the first",
        f"{got} in row {row} of {where}",
        "Write one number for each class.",
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(OWNER, "it must be a readable UTF-8 file", f"{path} ({error})", "Check the file.") from error


def _in_blocks(rows: Iterator[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Number of the first row, counted from 1, and some rows."""
    first, block = 1, []
    for row in rows:
        block.append(row)
        if len(block) == ROWS:
            yield first, block
            first, block = first + ROWS, []
    if block:
        yield first, block


def _numbers(cells: list[list[Any]], columns: Sequence[str], first: int, where: str) -> NDArray[np.float64]:
    """Cells ``(n, columns)`` as numbers; on failure, find out which cell it was."""
    try:
        return np.array(cells, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        for place, row in enumerate(cells):
            if len(row) != len(cells[0]):
                raise uneven(columns[0], len(cells[0]), len(row), first + place, where) from None
            for number, cell in enumerate(row):
                name = columns[number] if len(columns) == len(row) else columns[0]
                if cell is None or (isinstance(cell, str) and not cell.strip()):
                    raise missing(name, first + place, where) from None
                try:
                    float(cell)
                except (ValueError, TypeError, OverflowError):
                    got = f"{str(cell)[:60]!r} in row {first + place}, column {name!r} of {where}"
                    raise InputError(OWNER, "scores must be numbers", got, "Name columns of scores.") from None
        raise
