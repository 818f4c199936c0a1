"""Chunks of table rows, and readers of their cells: numbers, labels, outcomes and groups."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, Text, truncated_list
from fedlas._core.ops import Floats
from fedlas._core.text import truncate
from fedlas._core.types import BoolArray, IntArray
from fedlas.predictions.arguments import to_floats
from fedlas.predictions.class_names import parse_whole_number, truth_value_classes

MISSING = ("NA", "N/A", "na", "nan", "NaN", "NULL", "null", "None")
"""Texts that mark a missing number, where incomplete rows are dropped."""

_FIX: list[Text] = ["fill it in or remove the row", ("pass ", Argument("drop_missing", True))]
PADDED = re.compile(r"0\d")
"""Start of a name made of digits, such as 007, which is not a number."""
_RIGHT = frozenset({"1", "true", "t", "yes", "y", "correct", "right"})
_WRONG = frozenset({"0", "false", "f", "no", "n", "incorrect", "wrong"})
_LONGEST_NAME = 1000
"""Maximum length of a class or group name."""
Values = Sequence[Any] | NDArray[Any]
"""Values of a column, as the file holds them."""
T = TypeVar("T")


@dataclass(frozen=True)
class TableChunk:
    """Consecutive rows of a table, as columns.

    Attributes:
        rows: Number of each row in the file ``(n,)``, counted from 1; a header is no row.
        numbers: Columns of numbers by name: ``(n,)``, or ``(n, C)`` of a column of lists; NaN for a missing one.
        values: Values of other columns by name, ``n`` of each.
        file: Name of the file, for messages.
        percent: Whether numbers have percent signs, by column; columns without any number have no entry.
    """

    rows: NDArray[np.int64]
    numbers: Mapping[str, NDArray[np.floating[Any]]]
    values: Mapping[str, Values]
    file: str
    percent: Mapping[str, bool] = field(default_factory=dict)

    def drop_incomplete(
        self, *, optional: Collection[str | None]
    ) -> tuple[TableChunk, Counter[str]]:
        """Return the rows without missing values, and the count of missing cells per column."""
        lacking = {
            name: np.isnan(each).reshape(len(each), -1).any(axis=1)
            for name, each in self.numbers.items()
            if name not in optional
        }
        plain = {name: _to_list(each) for name, each in self.values.items()}
        for name, column in plain.items():
            if name not in optional:
                lacking[name] = np.array([not cell_to_text(value) for value in column], dtype=bool)
        whole = ~np.logical_or.reduce(list(lacking.values()))
        counts = Counter(
            {name: int(missing.sum()) for name, missing in lacking.items() if missing.any()}
        )
        return self.select_rows(whole), counts

    def slice_rows(self, rows: slice) -> TableChunk:
        """Return a slice of the rows."""
        numbers = {name: each[rows] for name, each in self.numbers.items()}
        values = {name: each[rows] for name, each in self.values.items()}
        return replace(self, rows=self.rows[rows], numbers=numbers, values=values)

    def select_rows(self, mask: NDArray[np.bool_]) -> TableChunk:
        """Return the rows selected by a mask ``(n,)``."""
        if mask.all():
            return self
        index = np.flatnonzero(mask).tolist()
        values = {
            name: [_to_list(column)[row] for row in index] for name, column in self.values.items()
        }
        numbers = {name: each[mask] for name, each in self.numbers.items()}
        return replace(self, rows=self.rows[mask], numbers=numbers, values=values)

    def row_name(self, row: int) -> str:
        """Return the name of a row in messages, such as ``row 7``."""
        return f"row {self.rows[row]}"

    def column_namer(self, names: Sequence[str]) -> Callable[[int], str]:
        """Return a function that maps the index of a column in ``names`` to how messages name it."""

        def column_name(number: int) -> str:
            in_lists = f", number {number}" if len(names) == 1 and number else ""
            return f"{names[number if len(names) > 1 else 0]!r}{in_lists} of {self.file}"

        return column_name

    def stack_finite(self, names: Sequence[str], what: str) -> Floats:
        """Return numeric columns stacked as ``(n, columns)``, or one column of lists as ``(n, C)``; all finite.

        Raises:
            InputError: If a number is missing or infinite (row and column are named), or there are several columns and
                one holds lists.
        """
        columns = [self.numbers[name] for name in names]
        if len(columns) > 1 and any(column.ndim > 1 for column in columns):
            raise InputError(
                "a column of lists must be the only score column",
                f"{len(columns)} columns in {self.file}",
                "Name only the column of lists.",
            )
        values = (
            columns[0].reshape(len(self.rows), -1)
            if len(columns) == 1
            else np.stack(columns, axis=1)
        )
        if not np.isfinite(values).all():
            row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
            number = "no number" if np.isnan(values[row, column]) else f"{values[row, column]:.6g}"
            raise InputError(
                f"{what} must be finite numbers",
                f"{number} in {self.row_name(row)}, column {self.column_namer(names)(column)}",
                _FIX,
            )
        return to_floats(values)

    def map_values(self, column: str, convert: Callable[[Any, str], T]) -> list[T]:
        """Return ``convert(value, place)`` for each value of a column; results are cached per distinct value."""
        cache: dict[Any, T] = {}
        results = []
        for row, value in enumerate(_to_list(self.values[column])):
            key = (type(value), value) if value.__hash__ is not None else (str, str(value))
            if key not in cache:
                cache[key] = convert(value, f"{self.row_name(row)} of {self.file}")
            results.append(cache[key])
        return results

    def text_values(self, column: str, *, missing: str | None = None) -> list[str]:
        """Return a column as normalized text, in which 3 and 3.0 are equal, for labels and groups.

        Args:
            column: Its name.
            missing: Stands for no value.

        Raises:
            InputError: For a missing value, if ``missing`` is None, or a float that is no exact number of its own;
                row and column are named.
        """

        def text(value: object, place: str) -> str:
            plain = cell_to_text(value) or missing
            if plain is None:
                raise InputError(
                    f"every row must have a value in column {column!r}", f"none in {place}", _FIX
                )
            if len(plain) > _LONGEST_NAME:
                raise InputError(
                    f"names in column {column!r} must have at most {_LONGEST_NAME:,} characters",
                    f"{len(plain):,} in {place}",
                    "Choose a column of labels or groups.",
                )
            # rounded: several names are one number
            if isinstance(value, float) and 2**53 <= abs(value) < math.inf:
                raise InputError(
                    f"floats of 2**53 or more in column {column!r} must be integers or text, because they are rounded",
                    f"{value:.1f} in {place}",
                    "Write them as text.",
                )
            number = parse_label_number(plain)
            return plain if number is None else str(number)

        return self.map_values(column, text)

    def read_outcomes(self, column: str) -> BoolArray:
        """Return whether each prediction is correct ``(n,)``, from 0/1, true/false, yes/no, correct/wrong.

        Raises:
            InputError: For anything else; row and column are named.
        """

        def is_right(value: object, place: str) -> bool:
            text = cell_to_text(value)
            number = parse_whole_number(text)
            word = text.lower() if number is None else str(number)
            if word not in _RIGHT | _WRONG:
                raise InputError(
                    f"column {column!r} must hold 0 and 1, true and false, yes and no, or correct and incorrect",
                    f"{truncate(repr(value), 60) if text else 'none'} in {place}",
                    _FIX
                    if not text
                    else [
                        "correct it",
                        (
                            "name columns of labels by ",
                            Argument("predicted"),
                            " and ",
                            Argument("target"),
                        ),
                    ],
                )
            return word in _RIGHT

        return np.array(self.map_values(column, is_right), dtype=bool)


class FirstRowPerCluster:
    """Filter that keeps the first row of each cluster of a table that is read in chunks.

    Args:
        column: Column of the clusters; None for none.

    State:
        The clusters so far, and how many rows were further ones.
    """

    def __init__(self, column: str | None) -> None:
        self.column = column or ""
        self._clusters: set[str] = set()
        self._repeated = 0

    def keep_first_rows(
        self, chunk: TableChunk, confidence: Floats | None
    ) -> tuple[TableChunk, Floats | None]:
        """Return the first row of each new cluster, with its confidence ``(n, 1)`` if given."""
        names = chunk.text_values(self.column)
        first = np.zeros(len(names), dtype=bool)
        for row, name in enumerate(names):
            first[row] = name not in self._clusters
            self._clusters.add(name)
        self._repeated += int((~first).sum())
        rows = None if confidence is None else confidence[first]
        return chunk.select_rows(first), rows

    def notes(self) -> list[str]:
        """Return a note that counts the rows kept, or none if all were."""
        count = len(self._clusters)
        rows = f"{count:,} of {count + self._repeated:,} rows"
        return [f"Only the first row of each cluster is used: {rows}."] if self._repeated else []


class LabelReader:
    """Converts the labels of a table to class indices.

    A label is the name of a class (of ``names``), or, if no name is a whole number, its number from 0 in the order of
    the columns; all labels of a file are of one kind. Truth values name classes in any case; of two classes without
    names ``True`` and ``False`` are 1 and 0, as are ``yes`` and ``no``.

    Args:
        num_classes: ``C``.
        names: Names of the classes, in the order of the columns; empty if they have none.
        column: Column of the labels.
        numbers: Numbers in the names of the classes, as in class_1 and class_2, which labels may be too.

    State:
        The kind of the first label.
    """

    def __init__(
        self, num_classes: int, names: Sequence[str], column: str, numbers: Sequence[int] = ()
    ) -> None:
        self.column = column
        self.shown = [str(number) for number in numbers] or list(names)
        self._full_names = list(names)
        self.names = {name: place for place, name in enumerate(names)}
        self.names |= {str(number): place for place, number in enumerate(numbers)}
        self.truths = truth_value_classes(names)
        if not names and num_classes == 2:
            self.truths = truth_value_classes(("false", "true"))
        self.positions = range(num_classes)
        # A number is the name of a class then, and 1 is not the second of the columns true and false.
        if (
            any(parse_whole_number(name) is not None for name in self.names)
            or self.truths.get("true", 1) != 1
        ):
            self.positions = range(0)
        self.by_name: bool | None = None

    def numbers(self, chunk: TableChunk) -> IntArray:
        """Return the class index of each row ``(n,)``.

        Raises:
            InputError: For a missing or unknown label (row and column are named), or two kinds in one file.
        """
        return np.array(chunk.map_values(self.column, self._class_index), dtype=np.int64)

    def notes(self) -> list[str]:
        """Return a note on how labels were interpreted, or none if they are the names of the columns."""
        if self.by_name is None:
            return ["The table has no labels."]
        if self.by_name and self.shown == self._full_names:
            return []
        labels = (
            f"class names: {truncated_list(self.shown)}"
            if self.by_name
            else f"class indices 0 to {len(self.positions) - 1}"
        )
        return [f"Labels are {labels}, in the order of the columns."]

    def _class_index(self, label: object, place: str) -> int:
        """Return the class index of a label."""
        text = cell_to_text(label)
        if not text:
            raise InputError(
                f"every row must have a label in column {self.column!r}", f"none in {place}", _FIX
            )
        got = f"{truncate(repr(label), 60)} in {place}"
        number = parse_label_number(text)
        names = [form for form in (text, str(number)) if form in self.names]
        by_name = bool(names) or (bool(self.names) and text.lower() in self.truths)
        if names:
            number = self.names[names[0]]
            if text in self._full_names:
                self.shown = self._full_names
        elif text.lower() in self.truths:
            number = self.truths[text.lower()]
        elif number not in self.positions:
            number = None
        if number is None:
            kinds = [truncated_list(self.shown)] if self.names else []
            kinds += [f"a number from 0 to {len(self.positions) - 1}"] if self.positions else []
            raise InputError(
                f"labels in column {self.column!r} must be {', or '.join(kinds)}",
                got,
                self._label_fix(text),
            )
        if self.by_name not in (None, by_name):
            kind = "class names" if self.by_name else "class indices"
            raise InputError(
                f"all labels must be {kind}, like the first", got, "Use either names or indices."
            )
        self.by_name = by_name
        return number

    def _label_fix(self, text: str) -> Text:
        """Return the remedy for a label that is not a class."""
        alike = [name for name in self.names if name.casefold() == text.casefold()]
        if alike:
            return f"Did you mean {alike[0]!r}? Labels are case-sensitive."
        if self.positions and text == str(len(self.positions)):
            names = ",".join(str(number) for number in range(1, min(len(self.positions), 12) + 1))
            dots = ",..." if len(self.positions) > 12 else ""
            classes = Argument("classes", f"{names}{dots}")
            return ("If labels count from 1, subtract 1, or name the classes: ", classes, ".")
        if not self.names and len(self.positions) == 2:
            classes = Argument("classes", f"OTHER,{truncate(text, 60)}")
            return ("Name both classes, the class of the score column last: ", classes, ".")
        by = Argument("classes")
        return ("Name the classes in the order of the columns by ", by, ", or correct the label.")


def cell_to_text(value: object) -> str:
    """Return a value as text; empty for a missing value."""
    return (
        "" if value is None or (isinstance(value, float) and value != value) else str(value).strip()
    )


def parse_label_number(text: str) -> int | None:
    """Return a label as a whole number, or None; ``007`` is a name, not a number."""
    return None if PADDED.match(text) else parse_whole_number(text)


def _to_list(values: Values) -> Sequence[Any]:
    """Return the values of a column as Python objects."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def to_floating(name: str, values: NDArray[Any], label: str) -> NDArray[np.floating[Any]]:
    """Return numbers as float32 if they are float16 or float32, else as float64.

    Raises:
        InputError: If they are no numbers.
    """
    if values.dtype.kind not in "fiu":
        raise InputError(
            f"column {name!r} must hold numbers",
            f"{values.dtype} in {label}",
            "Name score columns.",
        )
    return values.astype(
        np.float32 if values.dtype.itemsize <= 4 and values.dtype.kind == "f" else np.float64
    )


def parse_number(text: str | None, decimal_point: str) -> float | None:
    """Return the number in a text (``56%`` is 0.56), or None if it holds none."""
    # Python reads 1_1 as 11
    plain = (text or "").replace(decimal_point, ".").replace("_", "no digit").strip()
    with suppress(ValueError):
        return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    return None


def detect_percent_signs(texts: Sequence[Any], name: str, file: str, first: int) -> bool | None:
    """Return whether the texts of a numeric column have percent signs, or None if all cells are empty.

    Raises:
        InputError: If some do and others do not; the row of one of them is named.
    """
    signs = [
        text.rstrip().endswith("%")
        if isinstance(text, str)
        else False
        if text is not None
        else None
        for text in texts
        if text not in ("", *MISSING)
    ]
    if {True, False} <= {*signs}:
        row = next(
            first + row
            for row, text in enumerate(texts)
            if text not in (None, "", *MISSING) and not str(text).rstrip().endswith("%")
        )
        raise InputError(
            f"either all or no numbers of column {name!r} must have percent signs",
            f"none in row {row} of {file}",
            "Write all rows in the same unit.",
        )
    return next((sign for sign in signs if sign is not None), None)
