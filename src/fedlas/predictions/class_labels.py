"""What labels, outcomes and groups say as they stand in a file: a class, right or wrong, the name of a group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe, shortened

OWNER = "predictions"
"""Who complains about a table."""
FIX = "Fill it in, remove the row, or add --drop-missing."
_PADDED = re.compile(r"0\d")
Values = Sequence[Any] | NDArray[Any]
"""Those of a column, as they stand there."""


class Labels:
    """From labels as they stand in a file to class numbers.

    A label is the name of a class (of ``names``), or, if no name is a whole number, its number from 0 in the order of
    the columns; all of a file are of one kind. ``True`` and ``False`` are 1 and 0 where there are two classes.

    Args:
        num_classes: ``C``.
        names: Of the classes, in the order of the columns; empty if they have none.
        column: Of the labels, for messages.
        where: The file, for messages.

    State:
        Which kind the first label was.
    """

    def __init__(self, num_classes: int, names: Sequence[str], *, column: str, where: str) -> None:
        self.num_classes, self.column, self.where = num_classes, column, where
        self.names = {name: number for number, name in enumerate(names)}
        self.by_name: bool | None = None

    def numbers(self, labels: Values, rows: Sequence[int]) -> NDArray[np.int64]:
        """Class numbers ``(n,)`` of the labels of ``rows (n,)``, whose numbers messages name.

        Raises:
            InputError: For a missing or unknown label (row and column are named), or two kinds in one file.
        """
        plain = plain_values(labels)
        known: dict[Any, int] = {}
        out = np.empty(len(plain), dtype=np.int64)
        for place, label in enumerate(plain):
            key = (type(label), label) if label.__hash__ is not None else (str, str(label))
            number = known.get(key)
            if number is None:
                number = known[key] = self._number(label, rows[place])
            out[place] = number
        return out

    def said(self) -> str:
        """How labels were understood, as a sentence."""
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
        counted = whole(text, two=self.num_classes == 2)
        name = next((form for form in (text, str(counted)) if form in self.names), None)
        number = self.names[name] if name is not None else counted
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
        """Whether classes are named by whole numbers, so that a number is a name."""
        return any(whole(name) is not None for name in self.names)

    def _at(self, row: int, got: str) -> str:
        return f"{got} in row {row} of {self.where}"


def outcomes(values: Values, rows: Sequence[int], *, column: str, where: str) -> NDArray[np.bool_]:
    """Whether each prediction is right ``(n,)``, from 0 and 1 or true and false.

    Args:
        values: ``n`` of them.
        rows: Number of each row, for messages.
        column: For messages.
        where: The file, for messages.

    Raises:
        InputError: For anything else; row and column are named.
    """
    found = [whole(name, two=True) for name in names_of(values, rows, column=column, where=where)]
    for place, number in enumerate(found):
        if number not in (0, 1):
            got = f"{plain_values(values)[place]!r:.60} in row {rows[place]} of {where}"
            fix = "Name columns of labels with --predicted and --target."
            raise InputError(OWNER, f"column {column!r} must hold 0 and 1, or true and false", got, fix)
    return np.array(found, dtype=bool)


def names_of(values: Values, rows: Sequence[int], *, column: str, where: str) -> list[str]:
    """Each value as text, by which labels and groups are compared: ``3`` and ``3.0`` are the same.

    Args:
        values: ``n`` of them.
        rows: Number of each row, for messages.
        column: For messages.
        where: The file, for messages.

    Raises:
        InputError: For a missing one; row and column are named.
    """
    known: dict[Any, str] = {}
    found = []
    for place, value in enumerate(plain_values(values)):
        key = (type(value), value) if value.__hash__ is not None else (str, str(value))
        name = known.get(key)
        if name is None:
            text = text_of(value)
            if not text:
                got = f"none in row {rows[place]} of {where}"
                raise InputError(OWNER, f"every row must have a value in column {column!r}", got, FIX)
            # Leading zeros are part of a name: 007 is not 7.
            number = None if _PADDED.match(text) else whole(text)
            name = known[key] = text if number is None else str(number)
        found.append(name)
    return found


def are_missing(values: Values) -> NDArray[np.bool_]:
    """Where there is no value ``(n,)``: nothing, not a number, or empty text."""
    return np.array([not text_of(value) for value in plain_values(values)], dtype=bool)


def text_of(value: Any) -> str:
    """A value as text; empty where there is none."""
    return "" if value is None or (isinstance(value, float) and value != value) else str(value).strip()


def whole(text: str, *, two: bool = False) -> int | None:
    """The whole number that a text is, also as 3.0; with ``two`` also true and false; None if it is none."""
    if two and text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def few(names: Sequence[str], most: int = 12) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(shortened(str(name), 60) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or describe(names)


def plain_values(values: Values) -> Sequence[Any]:
    """Values of a column as Python has them."""
    return values.tolist() if isinstance(values, np.ndarray) else values
