"""CSV, JSON lines and Parquet, read by pyarrow; its errors about rows become our own."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import checked_path, parse_json
from fedlas.predictions import sources
from fedlas.predictions.cells import Values, floating, number_in
from fedlas.predictions.json_rows import path_chunks
from fedlas.predictions.parquet_pages import expanded_size
from fedlas.predictions.sources import Archive, Cells, TableSource
from fedlas.predictions.text_files import check_text

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
        self.path = path
        self.label = path.name
        self.notes = list[str]()
        self._rows = 0
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
                    values: dict[str, Values] = {
                        name: _plain_values(batch.column(name)) for name in others
                    }
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
        except Exception as error:  # pyarrow raises many kinds where a file is damaged
            text = " ".join(str(error).split())
            for pattern, template in _TEMPLATES.items():
                if match := re.search(pattern, text):
                    where = match.groupdict("") | {"file": self.label}
                    # pyarrow counts rows of CSV from the header, which is 1, and those of JSON from 0 in each block.
                    if "row" in where:
                        where["row"] = str(
                            int(where["row"]) + (self._rows + 1 if text.startswith("JSON") else -1)
                        )
                    if "number" in where:
                        where["column"] = self.names[int(where["number"])]
                    raise InputError(
                        *(part.format_map(where) for part in template.split("; "))
                    ) from error
            expected = f"the file must be a readable {self.path.suffix} file"
            got = f"{self.path} ({text})"
            raise InputError(
                expected, got, "Check the file; text must be UTF-8, not Latin-1."
            ) from error

    def _column(self, values: Any, name: str) -> NDArray[Any]:
        """Return numbers ``(n,)``, or ``(n, C)`` of lists; NaN for a missing one."""
        types = _arrow().types
        shape = [len(values)]
        if hasattr(values, "value_lengths"):
            lengths = values.value_lengths().fill_null(0).to_numpy()
            shape.append(int(lengths.max()))
            for row in np.flatnonzero(lengths != lengths.max())[:1]:
                expected = f"lists of column {name!r} must all hold {shape[1]} numbers"
                got = f"{lengths[row]} in row {self._rows + row + 1} of {self.label}"
                raise InputError(expected, got, "Write one number for each class.")
            values = values.flatten()
        if types.is_dictionary(values.type) or types.is_string(values.type):
            # Numbers with percent signs, or that JSON lines have in quotes.
            texts = _plain_values(values)
            numbers = {text: number_in(text, self.decimal_point) for text in set(texts)}
            values = _arrow().array([numbers[text] for text in texts], "float64")
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
                self.delimiter = max(
                    "\t,;|" if self.path.suffix.lower() == ".tsv" else ",;\t|", key=unquoted.count
                )
                if self.delimiter not in ",\t":
                    self.notes.append(f"Columns are separated by {self.delimiter!r}.")
            rows = filter(None, csv.reader(file, delimiter=self.delimiter, strict=True))
            self._header = next(rows, [])
            names = [name.strip() for name in self._header]
            names = names if len(set(names)) == len(names) else self._header
            with suppress(csv.Error):  # pyarrow reports the row
                self._notice(names, list(islice(rows, _SAMPLE)))
        self._bytes = max(BYTES, 16 * len("".join(names).encode()))
        if not names:
            got = f"{self.path}, which is empty"
            raise InputError("the first line must name the columns", got, "Add a header.")
        return names

    def _notice(self, names: list[str], rows: list[list[str]]) -> None:
        """Notice a decimal comma and percent signs in the first rows."""
        cells = [cell for row in rows for cell in row]
        comma = self.delimiter != "," and any(map(_DECIMAL_COMMA.fullmatch, cells))
        if comma and not any(map(_DECIMAL_POINT.fullmatch, cells)):
            self.decimal_point = ","
            self.notes.append("Numbers have a decimal comma.")
        percent = {
            name
            for row in rows
            for name, cell in zip(names, row, strict=False)
            if _PERCENT.fullmatch(cell)
        }
        self.in_percent = frozenset(percent)

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        reader = _arrow(".csv")
        last = self.names[-1]
        spans = 0
        in_file = dict(zip(self.names, self._header, strict=True))
        types = dict.fromkeys((*labels, last), "string") | dict.fromkeys(scores, "float64")
        types |= dict.fromkeys(self.in_percent.intersection(scores), "string")
        blocks = reader.ReadOptions(use_threads=False, block_size=self._bytes)
        cells = reader.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        nulls = ["", *self.missing]
        values = reader.ConvertOptions(
            include_columns=[in_file[name] for name in types],
            column_types={in_file[name]: kind for name, kind in types.items()},
            null_values=nulls,
            decimal_point=self.decimal_point,
        )
        with reader.open_csv(self.path, blocks, cells, values) as batches:
            for batch in batches:
                batch = batch.rename_columns(list(types))
                if last not in scores:
                    spans += (
                        _arrow(".compute")
                        .match_substring_regex(batch.column(last), "[\r\n]")
                        .true_count
                    )
                yield batch
        # A quote that is never closed swallows rows. They lack cells then, except where it is in the last column.
        with self.path.open("rb") as file:
            if spans and sum(part.count(b'"') for part in iter(lambda: file.read(BYTES), b"")) % 2:
                got = (
                    f"an odd number in {self.label}, and cells of several lines in column {last!r}"
                )
                raise InputError(
                    "every quote must be closed", got, 'Quote cells that hold ", and double it.'
                )


class JsonLines(Arrow):
    """One JSON object a line; the keys of the first are the columns, whose first values that are not null set types."""

    def _names(self) -> list[str]:
        # pyarrow guesses types in each block anew, and deep nesting crashes it where it guesses.
        with self.path.open(encoding="utf-8-sig") as file:
            line = next(filter(str.strip, file), "{}")
        self._bytes, first = max(BYTES, 16 * len(line)), parse_json(line, finite=False)
        if not isinstance(first, dict) or not first:
            got = f"{first!r:.60} in row 1 of {self.path}"
            raise InputError("every line must be a JSON object", got, "Write one object a line.")
        self._keys = list(first)
        self._nested = {
            name
            for name, value in first.items()
            if isinstance(value, dict) or _holds_objects(value)
        }
        return self._keys

    def add_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:
        """As :meth:`~fedlas.predictions.sources.TableSource.add_paths`: ``choices.0.logprobs.content``."""
        paths = [
            name
            for name in names
            if name not in self.names and name.partition(".")[0] in self._keys
        ]
        self._nested.update(mixed)
        self.names = [*self.names, *dict.fromkeys(path for path in paths if "." in path)]

    def chunks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
        """As :meth:`Arrow.chunks`; pyarrow reads no paths, and no objects of several kinds."""
        if {*numbers, *others} <= {*self._keys} - self._nested:
            yield from super().chunks(numbers, others)
            return
        with self._guard():
            yield from path_chunks(self.path, numbers, others)

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        reader = _arrow(".json")
        count = 0
        blocks = reader.ReadOptions(use_threads=False, block_size=self._bytes)
        # labels are whole numbers, which a float may round, until one is not
        for whole in ("int64", "float64"):
            schema = self.schema(scores, labels, whole=whole)
            options = reader.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            )
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
        kinds = [
            (name, _kind(value, whole if name in labels else "float64"))
            for name, value in first.items()
        ]
        return _arrow().schema(kinds)

    def _first_values(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the first value of each column that is not null; None where all are."""
        values: dict[str, Any] = dict.fromkeys(names)
        # pyarrow names rows
        with self.path.open(encoding="utf-8-sig") as file, suppress(AttributeError, ValueError):
            for line in filter(str.strip, file):
                row = parse_json(line, finite=False)
                values = {
                    name: row.get(name) if value is None else value
                    for name, value in values.items()
                }
                if None not in values.values():
                    break
        return values


_FREE = 2**26
_MOST_RATIO = 1000
"""Bytes that a file may always expand to, and the largest ratio of a larger one. Real one-hot scores have 230."""
LIMITS = {"thrift_string_size_limit": 2**26, "thrift_container_size_limit": 10**6}
"""Largest text and list in the footer of a file."""
_LONGEST = 2**20
"""Largest text of a cell, as in CSV."""


class Parquet(Arrow):
    """A Parquet file."""

    def _names(self) -> list[str]:
        with _arrow(".parquet").ParquetFile(self.path, **LIMITS) as file:
            self._schema = file.schema_arrow
        return list(self._schema.names)

    def check_size(self, names: Collection[str]) -> None:
        """Refuse columns that take far more memory than the file takes on the disk.

        Raises:
            InputError: If they do.
        """
        size = expanded_size(self.path, names)
        on_disk = self.path.stat().st_size
        if size > max(_FREE, _MOST_RATIO * on_disk):
            expected = f"values must take at most {_MOST_RATIO:,} times the size of the file"
            got = f"{size:,} bytes in {on_disk:,} of {self.path.name}"
            raise InputError(
                expected, got, "Write it without compression, if its content is right."
            )

    def _batches(self, scores: Sequence[str], labels: list[str]) -> Iterator[Any]:
        names = dict.fromkeys([*scores, *labels])
        self.check_size(names)
        texts = [name for name in names if self._is_text(name)]
        # Text stays in its dictionary: a label of a megabyte may stand in every row of a small file.
        # Without pre_buffer=False, pyarrow holds all bytes that it has read until the file is closed.
        with _arrow(".parquet").ParquetFile(
            self.path, read_dictionary=texts, pre_buffer=False, **LIMITS
        ) as file:
            yield from file.iter_batches(batch_size=sources.ROWS, columns=list(names))

    def _is_text(self, name: str) -> bool:
        """Return whether a column holds text, and not numbers or lists of numbers; refuse others."""
        types = _arrow().types
        kind = self._schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_string(kind) or types.is_large_string(kind):
            return True
        parts = [kind.value_type] if hasattr(kind, "value_type") else [kind]
        simple = (types.is_primitive, types.is_decimal, types.is_null)
        if not any(is_kind(part) for is_kind in simple for part in parts):
            fix = "Write numbers or text, or lists of numbers."
            raise InputError(
                f"column {name!r} must hold numbers or text", f"{kind} in {self.label}", fix
            )
        return False


def _plain_values(column: Any) -> list[Any]:
    """Return the values of a column as Python objects; equal texts of a dictionary are one object."""
    if not _arrow().types.is_dictionary(column.type):
        values: list[Any] = column.to_pylist()
        return values
    numbers = column.indices.unique().drop_null()
    texts = dict(zip(numbers.to_pylist(), _texts(column).take(numbers).to_pylist(), strict=True))
    return [texts.get(number) for number in column.indices.to_pylist()]


def _texts(column: Any) -> Any:
    """Return the texts of a dictionary, unless one is too long."""
    texts = column.dictionary
    longest = _arrow(".compute").max(_arrow(".compute").binary_length(texts)).as_py() or 0
    if longest > _LONGEST:
        fix = "Leave out columns of long text."
        raise InputError("a text must be shorter than 1 MiB", f"{longest:,} bytes in a cell", fix)
    return texts


def _arrow(module: str = "") -> Any:
    return require(f"pyarrow{module}", extra="tables")


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict | list | None) for each in value)


def _kind(value: Any, whole: str) -> Any:
    """Return the Arrow type of a JSON value, and ``whole`` for whole numbers."""
    if isinstance(value, list):
        return _arrow().list_(
            _kind(next((each for each in value if each is not None), None), whole)
        )
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
_OTHERS = dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET) | dict.fromkeys(
    (".pkl", ".pt", ".pth"), _PICKLE
)
_OTHERS |= {".json": "Write one object a line, and name it .jsonl."}
_OTHERS |= dict.fromkeys((".gz", ".zip", ".zst", ".bz2", ".xz"), "Unpack it.")


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
        raise InputError("the file must exist", path, "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        fix = _OTHERS.get(suffix, "Rename or convert the file.")
        raise InputError(f"the name must end in {', '.join(FORMATS)}", path.name, fix)
    if suffix not in (".parquet", ".npz"):
        check_text(path)
    return Delimited(path, separator) if suffix in (".csv", ".tsv") else FORMATS[suffix](path)
