"""JSON lines, and access to values in nested objects."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, Text, truncated_list
from fedlas._core.files import parse_json
from fedlas._core.text import truncate
from fedlas.predictions.tables.cells import MISSING, TableChunk, detect_percent_signs, parse_number
from fedlas.predictions.tables.columns import to_dotted_path
from fedlas.predictions.tables.formats import lines
from fedlas.predictions.tables.formats.arrow import (
    ArrowFile,
    import_pyarrow,
    to_record_batch,
    translate_arrow_errors,
)
from fedlas.predictions.tables.formats.format import Writer

SHOWN = 1000
"""Number of rows whose keys become columns."""
_SHOWN_TEXT = 4_000_000
"""Number of characters after which no more rows are inspected: rows of many classes are long."""


class JsonLines(ArrowFile):
    """File of one JSON object per line; columns are the keys of the first 1,000 rows."""

    _whole = "int64"
    """Type of whole numbers among labels, which a float may round, until one is not."""
    _patterns: Sequence[str] = ()
    _shown = 1
    """Number of rows whose keys are columns in this file."""

    def _read_names(self) -> list[str]:
        lines.check_utf8_text(self.path)
        # pyarrow infers types in each block separately, and crashes on deep nesting when it does.
        with lines.open_lines(self.path) as file:
            shown = islice(filter(str.strip, file), SHOWN)
            first = next(shown, "{}")
            row = parse_json_row(first, 1, self.label)
            names, nested, length = dict.fromkeys(row), _nested_keys(row), len(first)
            # Errors in later rows are reported when these are read.
            with suppress(InputError):
                for number, line in enumerate(shown, 2):
                    length += len(line)
                    if length > _SHOWN_TEXT:
                        break
                    later = parse_json_row(line, number, self.label)
                    self._shown = number
                    names |= dict.fromkeys(later)
                    nested |= _nested_keys(later)
        if not row:
            raise InputError(
                "the first object must have keys",
                f"none in row 1 of {self.label}",
                "Write one object per line.",
            )
        self._keys, self._nested = list(names), nested
        return self._keys

    @property
    def layout(self) -> Any:
        """Properties that all files of one table must share: the format alone, since each row names its values."""
        return JsonLines

    def set_column_names(self, names: Sequence[str]) -> None:
        """Set the column names to those of all files of the table."""
        self.names = self._keys = list(names)

    def expand_paths(self, names: Sequence[str], mixed: Collection[str] = ()) -> None:
        """Expand nested fields, given by paths such as ``choices.0.logprobs.content``, into columns."""
        paths = [
            name
            for name in names
            if name not in self.names and to_dotted_path(name).partition(".")[0] in self._keys
        ]
        self._nested.update(mixed)
        self.names = [
            *self.names,
            *dict.fromkeys(path for path in paths if "." in to_dotted_path(path)),
        ]

    def reject_late_columns(self, patterns: Sequence[str]) -> None:
        """Set patterns for which a new key in a later row raises InputError."""
        self._patterns = patterns

    def to_arrow_table(self, rows: Any, numbers: Collection[str]) -> Any:  # noqa: ARG002 (they have types)
        """Return all columns of rows as an Arrow table.

        Raises:
            InputError: For a key that is no column.
        """
        for name in {name for row in rows for name in row} - {*self._keys}:
            raise InputError(
                f"every key must occur in the first {SHOWN:,} rows to become a column",
                f"{name!r} only in a later row of {self.label}",
                "Write JSON lines (--out FILE.jsonl on the command line), or add the key to the first row.",
            )
        columns = {name: [row.get(name) for row in rows] for name in self._keys}
        return import_pyarrow().table(columns)

    def to_dicts(self, rows: Any, numbers: Collection[str]) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return rows as dicts, as they were read."""
        content: list[dict[str, Any]] = rows
        return content

    def output_name(self, name: str, prefix: str) -> str:
        """Return the name of the output next to a value: ``r.calibrated_conf`` for ``r.conf``."""
        head, dot, tail = name.rpartition(".") if name not in self._keys else ("", "", name)
        return f"{head}{dot}{prefix}{tail}"

    def _iter_blocks(
        self, numbers: Sequence[str], others: Sequence[str]
    ) -> Iterator[tuple[Any, Any]]:
        names = dict.fromkeys([*numbers, *others])
        # pyarrow reads no paths, and no objects of several kinds
        is_path = any("." in name and name.partition(".")[0] in self._nested for name in names)
        is_plain = names.keys() <= {*self._keys} - self._nested and not (self.keeps_all or is_path)
        first = self._first_values(names) if is_plain else {}
        for content, rows in lines.iter_row_blocks(self.path):
            self._check_late_keys(content, rows)
            table = None
            if is_plain:
                table = self._parse_columns(content, first, others)
            if table is None:
                table = [line for line in rows.to_pylist() if line.strip()]
            rows = lines.drop_blank_rows(rows, len(table), self._rows, self.label)
            if isinstance(table, list):
                numbered = enumerate(table, self._rows + 1)
                table = [parse_json_row(line, number, self.label) for number, line in numbered]
            yield table, table if self.keeps_all else rows

    def _check_late_keys(self, content: Any, rows: Any) -> None:
        """Raise InputError if a later row has a new key that a pattern matches."""
        for pattern in self._patterns if self._rows + len(rows) > self._shown else ():
            # The text of keys is looked through before any row is parsed once more.
            plain = re.match("[A-Za-z0-9_ -]*", pattern)
            key = re.compile(b'"(%s[^"]*+)"\\s*+:' % re.escape(plain[0] if plain else "").encode())
            columns = {
                json.dumps(name, ensure_ascii=a)[1:-1] for name in self._keys for a in (True, False)
            }
            if {*key.findall(content)} <= {name.encode() for name in columns}:
                continue
            texts = [line for line in rows.to_pylist() if line.strip()]
            for number, line in enumerate(texts, self._rows + 1):
                for name in parse_json_row(line, number, self.label).keys() - {*self._keys}:
                    if fnmatchcase(name, pattern):
                        raise InputError(
                            f"every key that matches {pattern!r} must occur in the first {SHOWN:,} rows",
                            f"{name!r} in row {number:,} of {self.label}",
                            "Add the key to the first row, or name the columns.",
                        )

    def _to_chunk(self, table: object, numbers: Sequence[str], others: Sequence[str]) -> TableChunk:
        """Return parsed rows as a chunk, with nested values at their paths."""
        if not isinstance(table, list):
            return super()._to_chunk(table, numbers, others)
        counts = range(self._rows + 1, self._rows + len(table) + 1)
        values = {
            name: [value_at_path(row, name) for row in table]
            for name in dict.fromkeys([*numbers, *others])
        }
        read = {name: to_number_array(values[name], name, counts, self.label) for name in numbers}
        signs = {
            name: detect_percent_signs(
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

    def _parse_columns(self, content: Any, first: dict[str, Any], labels: Sequence[str]) -> Any:
        """Return a record batch, or None if a line is no object or a value differs in type from the first."""
        reader = import_pyarrow(".json")
        blocks = reader.ReadOptions(use_threads=False, block_size=max(1 << 20, len(content) + 1))
        for whole in dict.fromkeys((self._whole, "float64")):
            kinds = [
                (name, _arrow_type(value, whole if name in labels else "float64"))
                for name, value in first.items()
            ]
            options = reader.ParseOptions(
                explicit_schema=import_pyarrow().schema(kinds), unexpected_field_behavior="ignore"
            )
            with suppress(ValueError):
                table = reader.read_json(import_pyarrow().BufferReader(content), blocks, options)
                self._whole = whole
                return to_record_batch(table) if table.num_rows else None
        return None

    def _first_values(self, names: Collection[str]) -> dict[str, Any]:
        """Return the first value of each column that is not null, or None if all are."""
        values: dict[str, Any] = dict.fromkeys(names)
        # pyarrow names rows
        with lines.open_lines(self.path) as file, suppress(AttributeError, ValueError):
            for line in filter(str.strip, file):
                row = parse_json(line, finite=False)
                values = {
                    name: row.get(name) if value is None else value
                    for name, value in values.items()
                }
                if None not in values.values():
                    break
        return values


class JsonLinesWriter(Writer):
    """Writer of JSON lines; the output of a nested value is written into the same object."""

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the additional fields, as paths if they are nested."""
        return tuple(self.source.output_name(name, self.prefix) for name in self.scores)

    def write(self, source: Any, rows: Any, arrays: Sequence[NDArray[Any]]) -> None:
        """Write rows with their additional fields; dates, times and decimals become text."""
        columns = [
            [
                None if np.isnan(values).any() else values
                for values in (array.tolist() if array.ndim == 1 else array)
            ]
            for array in arrays
        ]
        with translate_arrow_errors(self.suffix, source.label):
            objects = source.to_dicts(rows, self.scores)
            for row, *values in zip(objects, *columns, strict=True):
                for name, value in zip(self.scores, values, strict=True):
                    plain = value.tolist() if isinstance(value, np.ndarray) else value
                    set_sibling(row, name, self.prefix, plain)
                self.file.write(json.dumps(row, default=_to_json_text).encode() + b"\n")


def _to_json_text(value: object) -> str:
    """Return dates, times and decimals as text for JSON."""
    if isinstance(value, date | time | timedelta | Decimal):
        return str(value)
    raise TypeError(f"a cell of type {type(value).__name__}, which JSON cannot represent")


def _nested_keys(row: dict[str, Any]) -> set[str]:
    """Return the keys whose values are objects, or lists of objects or lists."""
    return {
        name for name, value in row.items() if isinstance(value, dict) or _has_nested_values(value)
    }


def _has_nested_values(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict | list | None) for each in value)


def _arrow_type(value: object, whole: str) -> Any:
    """Return the Arrow type of a JSON value; ``whole`` is the type of integers."""
    if isinstance(value, list):
        return import_pyarrow().list_(
            _arrow_type(next((each for each in value if each is not None), None), whole)
        )
    kinds = {bool: "bool", int: whole, float: "float64", type(None): "float64"}
    return import_pyarrow().type_for_alias(kinds.get(type(value), "string"))


def iter_json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object of a file with its row number from 1; blank lines are skipped.

    Raises:
        InputError: If a line is something else.
    """
    with lines.open_lines(path) as file:
        for number, line in enumerate(filter(str.strip, file), 1):
            yield number, parse_json_row(line, number, path.name)


def parse_json_row(line: str | bytes, number: int, file: str) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        InputError: If it is something else.
    """
    try:
        row = parse_json(line, finite=False)
        if not isinstance(row, dict):
            raise ValueError(f"{type(row).__name__}")
    except ValueError as error:
        raise InputError(
            "every line must be a JSON object",
            f"{error} in row {number} of {file}",
            "Write one object per line.",
        ) from error
    return row


def value_at_path(row: Any, path: str) -> Any:
    """Return the value at a path of keys and list indices, or None if there is none.

    Example:
        >>> value_at_path({"choices": [{"text": "Paris"}]}, "choices[0].text")
        'Paris'

    Raises:
        InputError: If it leads to two values, by a key with dots and into an object.
    """
    is_key = isinstance(row, dict) and path in row
    if is_key and "." not in path:
        return row[path]
    path = path if is_key else to_dotted_path(path)
    if isinstance(row, str) and row.lstrip()[:1] in ("{", "["):  # JSON in JSON
        with suppress(ValueError):
            row = parse_json(row, finite=False)
    if isinstance(row, list):
        first, _, rest = path.partition(".")
        row = row[int(first)] if first.isdecimal() and int(first) < len(row) else None
        return value_at_path(row, rest) if rest else row
    if not isinstance(row, dict):
        return None
    # Keys may hold dots themselves: the longest that exists counts.
    parts = path.split(".")
    values = []
    for length in range(len(parts), 0, -1):
        key = ".".join(parts[:length])
        if key in row:
            rest = ".".join(parts[length:])
            values.append(value_at_path(row[key], rest) if rest else row[key])
    if len(values) - values[1:].count(None) > 1:
        raise InputError(
            "a path must lead to one value",
            f"{path!r}, which is both a key and a path into an object of the same row",
            "Rename one of them.",
        )
    return values[0] if values else None


def set_sibling(row: dict[str, Any], path: str, prefix: str, value: object) -> None:
    """Set a value next to the one at a path, in the innermost object that holds it.

    Raises:
        InputError: If there is a value of that name.

    Example:
        >>> row = {"choices": [{"text": "Paris"}]}
        >>> set_sibling(row, "choices.0.text", "calibrated_", 0.9)
        >>> row
        {'choices': [{'text': 'Paris', 'calibrated_text': 0.9}]}
    """
    path = path if path in row else to_dotted_path(path)
    inner, tail = row, path
    node: Any = row
    rest = path
    while rest:
        key, step = rest, rest
        if isinstance(node, dict):
            inner, tail = node, rest
            parts = rest.split(".")
            starts = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            key = step = next((start for start in starts if start in node), "")
            node = node.get(key)
        elif isinstance(node, list):
            step = rest.partition(".")[0]
            node = node[int(step)] if step.isdecimal() and int(step) < len(node) else None
        else:
            break
        rest = rest[len(step) + 1 :] if step else ""
    if prefix + tail in inner:
        raise InputError(
            "the output field must not exist yet",
            repr(prefix + tail),
            "Scores should be calibrated once: remove or rename the field.",
        )
    inner[prefix + tail] = value


def to_number_array(
    values: Sequence[Any], name: str, rows: Sequence[int], file: str
) -> NDArray[np.float64]:
    """Return values as floats ``(n,)``, or ``(n, C)`` for lists of equal length; NaN if missing.

    Raises:
        InputError: For something else, such as text; row and column are named.
    """
    width = next((len(value) for value in values if isinstance(value, list)), None)
    array = np.full((len(values), 1 if width is None else width), np.nan)
    for value, row, cells in zip(values, rows, array, strict=True):
        if value is None:
            continue
        numbers = value if isinstance(value, list) else [value]
        if width is not None and (numbers is not value or len(value) != width):
            raise InputError(
                f"lists of column {name!r} must all hold {width} numbers",
                f"{len(value) if isinstance(value, list) else 0} in row {row} of {file}",
                "Write one number per class.",
            )
        for place, number in enumerate(numbers):
            if isinstance(number, bool | dict | list):
                raise InputError(
                    f"column {name!r} must hold numbers",
                    f"{truncate(repr(number), 60)} in row {row} of {file}",
                    _number_fix(number, name),
                )
            if number in (None, "", *MISSING):
                continue
            value_read = parse_number(number, ".") if isinstance(number, str) else float(number)
            if value_read is None:
                raise InputError(
                    f"column {name!r} must hold numbers",
                    f"{truncate(repr(number), 60)} in row {row} of {file}",
                    "Write a number, or null if it is missing.",
                )
            cells[place] = value_read
    return array[:, 0] if width is None else array


def _number_fix(value: object, name: str) -> Text:
    """Return the remedy for a value that is not a number."""
    if isinstance(value, dict) and "logprob" in value:
        return (
            "For log-probabilities of tokens, pass ",
            Argument("confidence_as", "mean"),
            ", 'sum' or 'min'.",
        )
    if isinstance(value, dict):
        return f"Name a number inside the object: {truncated_list([f'{name}.{key}' for key in value])}."
    return "Name another column."
