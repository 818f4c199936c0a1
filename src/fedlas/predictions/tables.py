"""CSV and JSON lines, and the table in a file of any format."""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedlas._core.check import Argument, InputError
from fedlas._core.files import checked_path, is_file, parse_json
from fedlas._core.text import shortened
from fedlas.predictions import lines
from fedlas.predictions.arrow import Arrow, as_batch, pyarrow_module
from fedlas.predictions.cells import TableChunk, percent_signs
from fedlas.predictions.lines import at_path, json_row, numbers_at
from fedlas.predictions.parquet import Parquet
from fedlas.predictions.sources import Archive, TableSource

_SAMPLE = 200
"""Rows in which decimal commas and percent signs are noticed."""
# Possessive: a cell of 100,000 digits or blanks would take minutes if each way to share them out were tried.
_DECIMAL_COMMA = re.compile(r"\s*+[-+]?\d*+,\d++([eE][-+]?\d++)?\s*+%?\s*+")
_DECIMAL_POINT = re.compile(r"\s*+[-+]?\d*+\.\d++([eE][-+]?\d++)?\s*+%?\s*+")
_PERCENT = re.compile(r"\s*+[-+]?(\d++([.,]\d++)?|[.,]\d++)\s*+%\s*+")


class Delimited(Arrow):
    """CSV or TSV with a header, UTF-8. Labels are read as text: ``007`` and ``nan`` stay as they are.

    The separator (comma, semicolon, tab or bar), a decimal comma and percent signs are noticed in the first rows.

    Args:
        path: The file.
        separator: The separator; None notices it.

    Attributes:
        header: The first line, known once rows have been read.
        in_percent: Columns with percent signs in the first rows, which are read as text.
    """

    header = b""
    in_percent: frozenset[str] = frozenset()

    def __init__(self, path: Path, separator: str | None = None) -> None:
        self.delimiter = separator or ""
        super().__init__(path)

    def _names(self) -> list[str]:
        lines.check_text(self.path)
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
            try:
                header = next(rows, [])
            except csv.Error as error:
                longest = max(map(len, first.split(self.delimiter)))
                if longest <= (limit := csv.field_size_limit()):
                    raise
                raise InputError(
                    f"names of columns must be shorter than {limit:,} characters",
                    f"{longest:,} in {self.label}",
                    "Check the first line.",
                ) from error
            names = [name.strip() for name in header]
            names = names if len(set(names)) == len(names) else header
            "".join(names).encode()  # an error for bytes that are no UTF-8
            with suppress(csv.Error):  # pyarrow reports the row
                self._notice(names, list(islice(rows, _SAMPLE)))
        if not names:
            raise InputError(
                "the first line must name the columns",
                f"{self.path}, which is empty",
                "Add a header.",
            )
        return names

    @property
    def form(self) -> Any:
        """As :attr:`~fedlas.predictions.sources.TableSource.form`."""
        return *super().form, self.delimiter, self.decimal_point

    def _notice(self, names: list[str], rows: list[list[str]]) -> None:
        """Notice a decimal comma and percent signs in the first rows."""
        cells = [cell for row in rows for cell in row]
        comma = self.delimiter != "," and any(map(_DECIMAL_COMMA.fullmatch, cells))
        if any(map(_DECIMAL_POINT.fullmatch, cells)):
            self.decimal_mark = "."
        elif comma:
            self.decimal_point = self.decimal_mark = ","
            self.notes.append("Numbers have a decimal comma.")
        percent = {
            name
            for row in rows
            for name, cell in zip(names, row, strict=False)
            if _PERCENT.fullmatch(cell)
        }
        self.in_percent = frozenset(percent)

    def _blocks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        types = dict.fromkeys(others, "string") | dict.fromkeys(numbers, "float64")
        types |= dict.fromkeys(self.in_percent.intersection(numbers), "string")
        self.header = b""
        for content, rows in lines.row_blocks(self.path, self.delimiter):
            if not self.header:
                self.header = rows[0].as_py().strip(b"\r\n")
                content = content[bytes(content).index(self.header) + len(self.header) :]
                rows = rows[1:]
            if len(rows):
                try:
                    table = self.parsed(content, types)
                except ValueError as error:
                    raise self._first_error(rows, types) or error from error
                rows = lines.check_count(rows, table.num_rows, self._rows, self.label)
                yield as_batch(table), rows

    def _first_error(self, rows: Any, types: dict[str, str]) -> InputError | None:
        """Return the error in the first row that pyarrow cannot read, and in its first such cell."""

        def fails(rows: Any, types: dict[str, str] = types) -> bool:
            try:
                self.parsed(b"".join(rows.to_pylist()), types)
            except ValueError:
                return True
            return False

        # pyarrow names rows in the text of its errors alone, so ever fewer rows are read again
        first = bisect_left(range(len(rows)), True, key=lambda last: fails(rows[: last + 1]))
        where = f"row {self._rows + first + 1}"
        row = rows[first : first + 1]
        if not len(row):
            return None
        text = row[0].as_py().decode(errors="surrogateescape")
        try:
            cells = next(csv.reader([text.strip("\r\n")], delimiter=self.delimiter))
        except (
            csv.Error
        ) as error:  # a cell of more than 131,072 characters, or a lone carriage return
            return InputError(
                "every row must be readable as CSV",
                f"{error} in {where} of {self.label}",
                "Look at its scores and labels first; quote line breaks, leave out columns of long text.",
            )
        if len(cells) != len(self.names):
            return InputError(
                f"every row must have {len(self.names)} cells like the header",
                f"{len(cells)} in {where} of {self.label}",
                "Quote cells that hold commas.",
            )
        for name, cell in zip(self.names, cells, strict=True):
            if name not in types or not fails(row, {name: types[name]}):
                continue
            where = f"{where}, column {name!r} of {self.label}"
            if types[name] == "string":
                return InputError(
                    "text must be UTF-8", f"other bytes in {where}", "Save it as UTF-8."
                )
            return InputError(
                "scores must be numbers",
                f"{shortened(repr(cell), 60)} in {where}",
                [
                    "write numbers, or name columns of scores",
                    ("leave out rows of NA by ", Argument("drop_missing", True)),
                ],
            )
        return None

    def parsed(self, content: Any, types: dict[str, str]) -> Any:
        """Return the columns of ``types`` in the bytes of some rows."""
        reader = pyarrow_module(".csv")
        size = max(1 << 20, len(content))
        blocks = reader.ReadOptions(use_threads=False, column_names=self.names, block_size=size)
        cells = reader.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        values = reader.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=["", *self.missing],
            decimal_point=self.decimal_point,
        )
        return reader.read_csv(pyarrow_module().BufferReader(content), blocks, cells, values)


class JsonLines(Arrow):
    """One JSON object a line; the keys of the first are the columns, whose first values that are not null set types."""

    _whole = "int64"
    """Type of whole numbers among labels, which a float may round, until one is not."""

    def _names(self) -> list[str]:
        lines.check_text(self.path)
        # pyarrow guesses types in each block anew, and deep nesting crashes it where it guesses.
        with self._opened() as file:
            first = json_row(next(filter(str.strip, file), "{}"), 1, self.label)
        if not first:
            raise InputError(
                "objects must have keys",
                f"none in row 1 of {self.label}",
                "Write one object a line.",
            )
        self._keys = list(first)
        self._nested = {
            name
            for name, value in first.items()
            if isinstance(value, dict) or _holds_objects(value)
        }
        return self._keys

    def _opened(self) -> IO[str]:
        """Open the file as text; other bytes than UTF-8 are refused where their row is read."""
        return self.path.open(encoding="utf-8-sig", errors="surrogateescape")

    @property
    def form(self) -> Any:
        """As :attr:`~fedlas.predictions.sources.TableSource.form`: each row names its values."""
        return JsonLines

    def add_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:
        """As :meth:`~fedlas.predictions.sources.TableSource.add_paths`: ``choices.0.logprobs.content``."""
        paths = [
            name
            for name in names
            if name not in self.names and name.partition(".")[0] in self._keys
        ]
        self._nested.update(mixed)
        self.names = [*self.names, *dict.fromkeys(path for path in paths if "." in path)]

    def _blocks(self, numbers: Sequence[str], others: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        names = dict.fromkeys([*numbers, *others])
        # pyarrow reads no paths, and no objects of several kinds
        is_plain = names.keys() <= {*self._keys} - self._nested
        first = self._first_values(names) if is_plain else {}
        for content, rows in lines.row_blocks(self.path):
            table = None
            if is_plain:
                table = self._parsed(content, first, others)
            if table is None:
                table = [line for line in rows.to_pylist() if line.strip()]
            rows = lines.check_count(rows, len(table), self._rows, self.label)
            yield table, rows

    def _chunk(self, table: Any, numbers: Sequence[str], others: Sequence[str]) -> TableChunk:
        if not isinstance(table, list):
            return super()._chunk(table, numbers, others)
        counts = range(self._rows + 1, self._rows + len(table) + 1)
        objects = [json_row(line, n, self.label) for n, line in zip(counts, table, strict=True)]
        values = {
            name: [at_path(row, name) for row in objects]
            for name in dict.fromkeys([*numbers, *others])
        }
        read = {name: numbers_at(values[name], name, counts, self.label) for name in numbers}
        signs = {
            name: percent_signs(
                [
                    number
                    for value in values[name]
                    for number in (value if isinstance(value, list) else [value])
                ],
                name,
                self.label,
                counts[0],
            )
            for name in numbers
        }
        percent = {name: sign for name, sign in signs.items() if sign is not None}
        others_read = {name: values[name] for name in others}
        return TableChunk(np.array(counts), read, others_read, self.label, percent)

    def _parsed(self, content: Any, first: dict[str, Any], labels: Sequence[str]) -> Any:
        """Return a batch of columns, or None if a line is no object or a value of another kind than the first."""
        reader = pyarrow_module(".json")
        blocks = reader.ReadOptions(use_threads=False, block_size=max(1 << 20, len(content) + 1))
        for whole in dict.fromkeys((self._whole, "float64")):
            kinds = [
                (name, _kind(value, whole if name in labels else "float64"))
                for name, value in first.items()
            ]
            options = reader.ParseOptions(
                explicit_schema=pyarrow_module().schema(kinds), unexpected_field_behavior="ignore"
            )
            with suppress(ValueError):
                table = reader.read_json(pyarrow_module().BufferReader(content), blocks, options)
                self._whole = whole
                return as_batch(table) if table.num_rows else None
        return None

    def _first_values(self, names: Collection[str]) -> dict[str, Any]:
        """Return the first value of each column that is not null; None where all are."""
        values: dict[str, Any] = dict.fromkeys(names)
        # pyarrow names rows
        with self._opened() as file, suppress(AttributeError, ValueError):
            for line in filter(str.strip, file):
                row = parse_json(line, finite=False)
                values = {
                    name: row.get(name) if value is None else value
                    for name, value in values.items()
                }
                if None not in values.values():
                    break
        return values


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict | list | None) for each in value)


def _kind(value: Any, whole: str) -> Any:
    """Return the Arrow type of a JSON value, and ``whole`` for whole numbers."""
    if isinstance(value, list):
        return pyarrow_module().list_(
            _kind(next((each for each in value if each is not None), None), whole)
        )
    kinds = {bool: "bool", int: whole, float: "float64", type(None): "float64"}
    return pyarrow_module().type_for_alias(kinds.get(type(value), "string"))


FORMATS: dict[str, Callable[..., TableSource]] = {
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
    if not is_file(path):
        raise InputError("the file must exist", path, "Check the path.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"the name must end in {', '.join(FORMATS)}",
            path.name,
            _OTHERS.get(suffix, "Rename or convert the file."),
        )
    return FORMATS[suffix](path, *([separator] if FORMATS[suffix] is Delimited else []))
