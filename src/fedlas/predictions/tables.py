"""CSV, JSON lines and Parquet, read by pyarrow; its errors about rows become our own."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import checked_path, parse_json
from fedlas.predictions import sources
from fedlas.predictions.cells import OWNER, Values, floating
from fedlas.predictions.sources import Archive, Cells, TableSource

BYTES = 1 << 20
"""Bytes that pyarrow parses at a time, more for long rows. It reads some 32 such blocks ahead."""

_SAMPLE = 200
"""Rows in which decimal commas and percent signs are noticed."""
# Possessive: a cell of 100,000 digits or blanks would take minutes if each way to share them out were tried.
_DECIMAL_COMMA = re.compile(r"\s*+[-+]?\d*+,\d++([eE][-+]?\d++)?\s*+%?\s*+")
_DECIMAL_POINT = re.compile(r"\s*+[-+]?\d*+\.\d++([eE][-+]?\d++)?\s*+%?\s*+")
_PERCENT = re.compile(r"\s*+[-+]?(\d++([.,]\d++)?|[.,]\d++)\s*+%\s*+")

_TEMPLATES = {
    r"column #(?P<number>\d+): Row #(?P<row>\d+): .* to double: invalid value (?P<got>'.*')":
        "scores must be numbers; {got:.60} in row {row}, column {column!r} of {file}; "
        "Name columns of scores, or leave out rows of NA with --drop-missing.",
    r"column #(?P<number>\d+): Row #(?P<row>\d+): .* invalid UTF8":
        "text must be UTF-8; other bytes in row {row}, column {column!r} of {file}; Save it as UTF-8.",
    r"Row #(?P<row>\d+): Expected (?P<most>\d+) columns, got (?P<got>\d+)":
        "every row must have {most} cells like the header; {got} in row {row} of {file}; Quote cells that hold commas.",
    r"Column\(/(?P<column>[^/]*).*\) changed from (?P<first>\w+) to (?P<got>\w+) in row (?P<row>\d+)":
        "column {column!r} must hold values of one kind; {first} and, in row {row} of {file}, {got}; Use one kind.",
    r"JSON parse error: (?P<got>.*) in row (?P<row>\d+)":
        "every line must be a JSON object; {got} in row {row} of {file}; Write one object a line.",
    r"straddling object":
        "every row must be shorter than 1 MiB; a longer one in {file}; "
        "Look for a quote that is never closed, or leave out columns of long text.",
    r"field larger than field limit":
        "names of columns must be shorter than 131,072 characters; a longer one in {file}; Check the first line.",
}  # fmt: skip
"""pyarrow's errors about a row, and ours for each: expected, got and fix."""


class Arrow(TableSource):
    """A file that pyarrow reads. A column of scores may hold lists of one length, except in CSV."""

    decimal_point = "."

    def __init__(self, path: Path) -> None:
        self.path, self.label, self.notes, self._rows = path, path.name, list[str](), 0
        _arrow()
        with self._guard():
            self.names = self._names()

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
        """As :meth:`~fedlas.predictions.sources.TableSource.chunks`."""
        self._rows = 0
        with self._guard():
            for block in self._batches(numbers, list(others)):
                for start in range(0, block.num_rows, sources.ROWS):
                    batch = block.slice(start, sources.ROWS)
                    values: dict[str, Values] = {name: _plain_values(batch.column(name)) for name in others}
                    yield {name: self._column(batch.column(name), name) for name in numbers}, values
                    self._rows += batch.num_rows

    def _names(self) -> list[str]:
        raise NotImplementedError

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        raise NotImplementedError

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError, RecursionError, csv.Error) as error:  # pyarrow's own errors are among them
            text = " ".join(str(error).split())
            for pattern, template in _TEMPLATES.items():
                if match := re.search(pattern, text):
                    where = match.groupdict("") | {"file": self.label}
                    # pyarrow counts rows of CSV from the header, which is 1, and those of JSON from 0 in each block.
                    if "row" in where:
                        where["row"] = str(int(where["row"]) + (self._rows + 1 if text.startswith("JSON") else -1))
                    if "number" in where:
                        where["column"] = self.names[int(where["number"])]
                    raise InputError(OWNER, *(part.format_map(where) for part in template.split("; "))) from error
            expected, got = f"it must be a readable {self.path.suffix} file", f"{self.path} ({text})"
            raise InputError(OWNER, expected, got, "Check the file; text must be UTF-8, not Latin-1.") from error

    def _column(self, values: Any, name: str) -> NDArray[Any]:
        """Return numbers ``(n,)``, or ``(n, C)`` of lists; NaN for a missing one."""
        types, shape = _arrow().types, [len(values)]
        if hasattr(values, "value_lengths"):
            lengths = values.value_lengths().fill_null(0).to_numpy()
            shape.append(int(lengths.max()))
            for row in np.flatnonzero(lengths != lengths.max())[:1]:
                expected = f"lists of column {name!r} must all hold {shape[1]} numbers"
                got = f"{lengths[row]} in row {self._rows + row + 1} of {self.label}"
                raise InputError(OWNER, expected, got, "Write one number for each class.")
            values = values.flatten()
        if types.is_string(values.type):  # with percent signs, or numbers that JSON lines have in quotes
            numbers = [_number(text, self.decimal_point) for text in values.to_pylist()]
            values = _arrow().array(numbers, "float64")
        if types.is_integer(values.type) or types.is_decimal(values.type):
            values = values.cast("float64")
        return floating(name, values.to_numpy(zero_copy_only=False), self.label).reshape(shape)


class Delimited(Arrow):
    """CSV or TSV with a header, UTF-8. Labels are read as text: ``007`` and ``nan`` stay as they are.

    The separator (comma, semicolon, tab or bar), a decimal comma and percent signs are noticed in the first rows.

    Args:
        path: The file.
        separator: The separator; None notices it.
    """

    def __init__(self, path: Path, separator: str | None = None) -> None:
        self.delimiter = separator or ""
        super().__init__(path)

    def _names(self) -> list[str]:
        # The text decoded with the header may be rows already, whose errors have a number.
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = next(filter(str.strip, file), "")
            file.seek(0)
            if not self.delimiter:
                unquoted = re.sub('"[^"]*"', "", first)
                self.delimiter = max("\t,;|" if self.path.suffix.lower() == ".tsv" else ",;\t|", key=unquoted.count)
                if self.delimiter not in ",\t":
                    self.notes.append(f"Columns are separated by {self.delimiter!r}.")
            rows = filter(None, csv.reader(file, delimiter=self.delimiter, strict=True))
            names = next(rows, [])
            with suppress(csv.Error):  # pyarrow reports the row
                self._notice(names, list(islice(rows, _SAMPLE)))
        self._bytes = max(BYTES, 16 * len("".join(names).encode()))
        if not names:
            got = f"{self.path}, which is empty"
            raise InputError(OWNER, "the first line must name the columns", got, "Add a header.")
        return names

    def _notice(self, names: list[str], rows: list[list[str]]) -> None:
        """Notice a decimal comma and percent signs in the first rows."""
        cells = [cell for row in rows for cell in row]
        comma = self.delimiter != "," and any(map(_DECIMAL_COMMA.fullmatch, cells))
        if comma and not any(map(_DECIMAL_POINT.fullmatch, cells)):
            self.decimal_point = ","
            self.notes.append("Numbers have a decimal comma.")
        percent = {name for row in rows for name, cell in zip(names, row, strict=False) if _PERCENT.fullmatch(cell)}
        self.in_percent = frozenset(percent)

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        reader, last, spans = _arrow(".csv"), self.names[-1], 0
        types = dict.fromkeys((*labels, last), "string") | dict.fromkeys(scores, "float64")
        types |= dict.fromkeys(self.in_percent.intersection(scores), "string")
        blocks = reader.ReadOptions(use_threads=False, block_size=self._bytes)
        cells = reader.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        nulls = ["", *self.missing]
        values = reader.ConvertOptions(
            include_columns=list(types), column_types=types, null_values=nulls, decimal_point=self.decimal_point
        )
        with reader.open_csv(self.path, blocks, cells, values) as batches:
            for batch in batches:
                if last not in scores:
                    spans += _arrow(".compute").match_substring_regex(batch.column(last), "[\r\n]").true_count
                yield batch
        # A quote that is never closed swallows rows. They lack cells then, except where it is in the last column.
        with self.path.open("rb") as file:
            if spans and sum(part.count(b'"') for part in iter(lambda: file.read(BYTES), b"")) % 2:
                got = f"an odd number in {self.label}, and cells of several lines in column {last!r}"
                raise InputError(OWNER, "every quote must be closed", got, 'Quote cells that hold ", and double it.')


class JsonLines(Arrow):
    """One JSON object a line; the keys of the first are the columns, whose first values that are not null set types."""

    def _names(self) -> list[str]:
        # pyarrow guesses types in each block anew, and deep nesting crashes it where it guesses.
        with self.path.open(encoding="utf-8-sig") as file:
            line = next(filter(str.strip, file), "{}")
        self._bytes, first = max(BYTES, 16 * len(line)), parse_json(line, finite=False)
        if not isinstance(first, dict) or not first:
            got = f"{first!r:.60} in row 1 of {self.path}"
            raise InputError(OWNER, "every line must be a JSON object", got, "Write one object a line.")
        return list(first)

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        reader, count = _arrow(".json"), 0
        blocks = reader.ReadOptions(use_threads=False, block_size=self._bytes)
        for whole in ("int64", "float64"):  # labels are whole numbers, which a float may round, until one is not
            schema = self.schema(scores, labels, whole=whole)
            options = reader.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            try:
                with reader.open_json(self.path, blocks, options) as batches:
                    for batch in islice(batches, count, None):
                        yield batch
                        count += 1
                return
            except ValueError as error:
                if "to int64" not in str(error):
                    raise

    def schema(self, scores: Sequence[str], labels: Sequence[str], *, whole: str) -> Any:
        """Return the Arrow schema of these columns; ``whole`` is the type of whole numbers among ``labels``."""
        first = self._first_values([*scores, *labels])
        kinds = [(name, _kind(value, whole if name in labels else "float64")) for name, value in first.items()]
        return _arrow().schema(kinds)

    def _first_values(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the first value of each column that is not null; None where all are."""
        values: dict[str, Any] = dict.fromkeys(names)
        with self.path.open(encoding="utf-8-sig") as file, suppress(AttributeError, ValueError):  # pyarrow names rows
            for line in filter(str.strip, file):
                row = parse_json(line, finite=False)
                values = {name: row.get(name) if value is None else value for name, value in values.items()}
                if None not in values.values():
                    break
        return values


_FREE, _MOST_RATIO = 2**26, 1000
"""Bytes that a file may always expand to, and the largest ratio of a larger one. Real one-hot scores have 230."""


class Parquet(Arrow):
    """A Parquet file."""

    def _names(self) -> list[str]:
        return list(_arrow(".parquet").read_schema(self.path).names)

    def check_size(self, names: Collection[str]) -> None:
        """Refuse columns that take far more memory than the file takes on the disk.

        Raises:
            InputError: If they do.
        """
        with _arrow(".parquet").ParquetFile(self.path) as file, self.path.open("rb") as raw:
            groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
            columns = [group.column(number) for group in groups for number in range(group.num_columns)]
            size = sum(
                _expanded(raw, column)
                for column in columns
                if {column.path_in_schema, column.path_in_schema.split(".")[0]}.intersection(names)
            )
        on_disk = self.path.stat().st_size
        if size > max(_FREE, _MOST_RATIO * on_disk):
            expected = f"values must take at most {_MOST_RATIO:,} times the size of the file"
            got = f"{size:,} bytes in {on_disk:,} of {self.path.name}"
            raise InputError(OWNER, expected, got, "Write it without compression, if its content is right.")

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        self.check_size({*scores, *labels})
        # Text stays in its dictionary: a label of a megabyte may stand in every row of a small file.
        # Without pre_buffer=False, pyarrow holds all bytes that it has read until the file is closed.
        options = {"read_dictionary": labels, "pre_buffer": False}
        with _arrow(".parquet").ParquetFile(self.path, **options) as file:
            yield from file.iter_batches(batch_size=sources.ROWS, columns=[*scores, *labels])


def _expanded(file: IO[bytes], column: Any) -> int:
    """Return the bytes that a column chunk takes in memory, by the headers of its pages: the footer may claim less."""
    offsets = [column.data_page_offset, *([column.dictionary_page_offset] if column.has_dictionary_page else [])]
    file.seek(min(offset for offset in offsets if offset))
    end, values, size = file.tell() + column.total_compressed_size, 0, 0
    while file.tell() < end:
        # Fields of PageHeader in parquet.thrift: 2 and 3 are the sizes of the page, expanded and in the file; 5, 7 and
        # 8 the headers of data, dictionary and data of version 2, whose field 1 is the number of values.
        page = _thrift(file)
        size += page[2]
        values += sum(page[kind][1] for kind in (5, 7, 8) if kind in page)
        if min(page[2], page[3], values) < 0:
            raise ValueError("a page of negative size")
        file.seek(page[3], os.SEEK_CUR)
    return max(8 * values, size)  # lists have more values than rows, and text more bytes than values


def _thrift(file: IO[bytes]) -> dict[int, Any]:
    """Return the fields of a struct in Thrift's compact protocol, by their numbers; binary fields are skipped."""
    fields: dict[int, Any] = defaultdict(int)
    number = 0
    while head := _varint(file, most=1):
        kind = head & 15
        number = number + (head >> 4) if head >> 4 else _signed(_varint(file))
        if kind in (4, 5, 6):
            fields[number] = _signed(_varint(file))
        elif kind == 12:
            fields[number] = _thrift(file)
        elif kind == 8:
            file.seek(_varint(file), os.SEEK_CUR)
        elif kind not in (1, 2):
            raise ValueError(f"a page header with a field of kind {kind}")
    return fields


def _varint(file: IO[bytes], most: int = 10) -> int:
    value = 0
    for shift in range(0, 7 * most, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("a page ends too early")
        value |= (byte[0] & 127 if most > 1 else byte[0]) << shift
        if byte[0] < 128:
            break
    return value


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _plain_values(column: Any) -> list[Any]:
    """Return the values of a column as Python objects; equal texts of a dictionary are one object."""
    if not _arrow().types.is_dictionary(column.type):
        values: list[Any] = column.to_pylist()
        return values
    numbers = column.indices.unique().drop_null()
    texts = dict(zip(numbers.to_pylist(), column.dictionary.take(numbers).to_pylist(), strict=True))
    return [texts.get(number) for number in column.indices.to_pylist()]


def _arrow(module: str = "") -> Any:
    return require(f"pyarrow{module}", extra="tables")


def _number(text: str | None, decimal_point: str) -> float | None:
    """Return the number that a text is, 56% as 0.56; None for other text."""
    plain = (text or "").replace(decimal_point, ".").replace("_", "no digit").strip()  # Python reads 1_1 as 11
    with suppress(ValueError):
        return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    return None


def _kind(value: Any, whole: str) -> Any:
    """Return the Arrow type of a JSON value, and ``whole`` for whole numbers."""
    if isinstance(value, list):
        return _arrow().list_(_kind(next((each for each in value if each is not None), None), whole))
    kinds = {bool: "bool", int: whole, float: "float64", type(None): "float64"}
    return _arrow().type_for_alias(kinds.get(type(value), "string"))


FORMATS: dict[str, Callable[[Path], TableSource]] = {
    ".csv": Delimited,
    ".tsv": Delimited,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": Parquet,
    ".npz": Archive,
}
"""Reader of a file, by the end of its name."""
_SHEET = "Save it as CSV (File, Save As), or read it with pandas and pass the frame to Predictions.from_frame."
_PICKLE = "Save the arrays with numpy.savez; pickles can run code."
_OTHERS = dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET) | dict.fromkeys((".pkl", ".pt", ".pth"), _PICKLE)
_OTHERS |= {".json": "Write one object a line, and name it .jsonl."}


def source_of(path: str | Path, separator: str | None = None) -> TableSource:
    """Return the table in a file.

    Args:
        path: The file.
        separator: Separator of a CSV file; None notices it.

    Raises:
        InputError: If there is no such file, its name ends otherwise, or it cannot be read.
        MissingExtraError: For all but ``.npz`` without pyarrow.
    """
    path = checked_path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the folder may not be searched
        raise InputError(OWNER, "the file must exist", path, "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        fix = _OTHERS.get(suffix, "Rename or convert the file.")
        raise InputError(OWNER, f"the name must end in {', '.join(FORMATS)}", path.name, fix)
    return Delimited(path, separator) if suffix in (".csv", ".tsv") else FORMATS[suffix](path)
