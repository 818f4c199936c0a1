"""Cells of labels, outcomes and groups: class numbers, right or wrong, names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe, shortened

OWNER = "predictions"
"""Named in errors about a table."""
FIX = "Fill it in, remove the row, or add --drop-missing."
_PADDED = re.compile(r"0\d")
_RIGHT = frozenset({"1", "true", "t", "yes", "y", "correct", "right"})
_WRONG = frozenset({"0", "false", "f", "no", "n", "incorrect", "wrong"})
Values = Sequence[Any] | NDArray[Any]
"""Values of a column, as the file holds them."""


class Labels:
    """Converts labels of a file to class numbers.

    A label is the name of a class (of ``names``), or, if no name is a whole number, its number from 0 in the order of
    the columns; all labels of a file are of one kind. ``True`` and ``False`` are 1 and 0 where there are two classes.

    Args:
        num_classes: ``C``.
        names: Names of the classes, in the order of the columns; empty if they have none.
        column: Column of the labels, for messages.
        where: The file, for messages.

    State:
        The kind of the first label.
    """

    def __init__(self, num_classes: int, names: Sequence[str], *, column: str, where: str) -> None:
        self.num_classes, self.column, self.where = num_classes, column, where
        self.names = {name: number for number, name in enumerate(names)}
        self.by_name: bool | None = None

    def numbers(self, labels: Values, rows: Sequence[int]) -> NDArray[np.int64]:
        """Return class numbers ``(n,)`` of labels; ``rows (n,)`` are their row numbers, for messages.

        Raises:
            InputError: For a missing or unknown label (row and column are named), or two kinds in one file.
        """
        plain = plain_values(labels)
        cache: dict[Any, int] = {}
        out = np.empty(len(plain), dtype=np.int64)
        for index, label in enumerate(plain):
            key = (type(label), label) if label.__hash__ is not None else (str, str(label))
            number = cache.get(key)
            if number is None:
                number = cache[key] = self._number(label, rows[index])
            out[index] = number
        return out

    def note(self) -> str:
        """Say how labels were read, as a sentence."""
        if self.by_name is None:
            return "There were no labels."
        if self.by_name:
            return f"Labels name classes: {few(list(self.names))}, in the order of the columns."
        return f"Labels are class numbers, 0 to {self.num_classes - 1} in the order of the columns."

    def _number(self, label: Any, row: int) -> int:
        text = text_of(label)
        if not text:
            raise InputError(
                OWNER, f"every row must have a label in column {self.column!r}", self._at(row, "none"), FIX
            )
        as_number = whole(text, two=self.num_classes == 2)
        name = next((form for form in (text, str(as_number)) if form in self.names), None)
        number = self.names[name] if name is not None else as_number
        if number is None or (name is None and self._numbered()) or not 0 <= number < self.num_classes:
            allowed = few(list(self.names)) if self.names else f"a number from 0 to {self.num_classes - 1}"
            if self.names and not self._numbered():
                allowed += f", or a number from 0 to {self.num_classes - 1}"
            raise InputError(
                OWNER,
                f"labels in column {self.column!r} must be {allowed}",
                self._at(row, shortened(repr(label), 60)),
                "Name the classes in the order of the columns with --classes, or correct the label.",
            )
        if self.by_name is None:
            self.by_name = name is not None
        elif self.by_name is not (name is not None):
            kind = "the name of a class" if self.by_name else "the number of one"
            raise InputError(
                OWNER,
                f"all labels must be {kind}, as the first is",
                self._at(row, shortened(repr(label), 60)),
                "Use one kind only.",
            )
        return number

    def _numbered(self) -> bool:
        """Return whether classes are named by whole numbers, so that a number is a name."""
        return any(whole(name) is not None for name in self.names)

    def _at(self, row: int, got: str) -> str:
        return f"{got} in row {row} of {self.where}"


def outcomes(values: Values, rows: Sequence[int], *, column: str, where: str) -> NDArray[np.bool_]:
    """Return whether each prediction is right ``(n,)``, from 0 and 1, true and false, yes and no, or correct and wrong.

    Args:
        values: ``n`` values.
        rows: Number of each row, for messages.
        column: Name of the column, for messages.
        where: The file, for messages.

    Raises:
        InputError: For anything else; row and column are named.
    """
    right = np.empty(len(values), dtype=bool)
    for index, name in enumerate(names_of(values, rows, column=column, where=where)):
        word = name.lower()
        if word not in _RIGHT and word not in _WRONG:
            got = f"{plain_values(values)[index]!r:.60} in row {rows[index]} of {where}"
            expected = f"column {column!r} must hold 0 and 1, true and false, yes and no, or correct and incorrect"
            raise InputError(OWNER, expected, got, "Name columns of labels with --predicted and --target.")
        right[index] = word in _RIGHT
    return right


def names_of(values: Values, rows: Sequence[int], *, column: str, where: str) -> list[str]:
    """Return each value as text, by which labels and groups are compared: ``3`` and ``3.0`` are the same.

    Args:
        values: ``n`` values.
        rows: Number of each row, for messages.
        column: Name of the column, for messages.
        where: The file, for messages.

    Raises:
        InputError: For a missing value; row and column are named.
    """
    cache: dict[Any, str] = {}
    names = []
    for index, value in enumerate(plain_values(values)):
        key = (type(value), value) if value.__hash__ is not None else (str, str(value))
        name = cache.get(key)
        if name is None:
            text = text_of(value)
            if not text:
                got = f"none in row {rows[index]} of {where}"
                raise InputError(OWNER, f"every row must have a value in column {column!r}", got, FIX)
            # Leading zeros are part of a name: 007 is not 7.
            number = None if _PADDED.match(text) else whole(text)
            name = cache[key] = text if number is None else str(number)
        names.append(name)
    return names


def are_missing(values: Values) -> NDArray[np.bool_]:
    """Return where there is no value ``(n,)``: nothing, not a number, or empty text."""
    return np.array([not text_of(value) for value in plain_values(values)], dtype=bool)


def text_of(value: Any) -> str:
    """Return a value as text, empty for a missing one."""
    return "" if value is None or (isinstance(value, float) and value != value) else str(value).strip()


def whole(text: str, *, two: bool = False) -> int | None:
    """Return the whole number that a text is, 3.0 and with ``two`` true and false among them; None for other text."""
    if two and text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def few(names: Sequence[str], most: int = 12) -> str:
    """List the first names, and say how many more there are."""
    shown = ", ".join(shortened(str(name), 60) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or describe(names)


def plain_values(values: Values) -> Sequence[Any]:
    """Return the values of a column as Python objects."""
    return values.tolist() if isinstance(values, np.ndarray) else values
