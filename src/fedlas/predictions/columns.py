"""Which columns of a table hold scores and labels, and which class a label names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe, suggestion

OWNER = "predictions"
"""Who complains about a table."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table as the user names them; nothing is guessed.

    Args:
        logits: Column names separated by commas, in the order of the classes; a name with ``*`` or ``?`` stands for all
            that match, in the order of the file. A single name is either one column of lists, or the logit of the
            positive one of two classes.
        probs: The same for probabilities.
        target: Column of the labels; None if there are none.
        classes: Names of the classes in the order of the columns; none if labels are numbers from 0, or the names of
            the columns.

    Raises:
        InputError: If both logits and probs are named, or neither; or for an empty or repeated name.

    Example:
        >>> Columns(probs="p_*", target="label").kind
        'probs'
    """

    logits: str | None = None
    probs: str | None = None
    target: str | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.logits is None) == (self.probs is None):
            got = "neither" if self.logits is None else f"logits {self.logits!r} and probs {self.probs!r}"
            raise InputError(
                OWNER,
                "either --logits or --probs must name columns",
                got,
                "Say what the columns hold: the file does not show it.",
            )
        if not all(self.words) or len(set(self.words)) < len(self.words):
            got = repr(self.logits or self.probs)
            raise InputError(OWNER, f"--{self.kind} must name columns, each once", got, "Write a,b,c or 'prefix_*'.")
        if any(not name for name in self.classes) or len(set(self.classes)) < len(self.classes):
            raise InputError(OWNER, "--classes must name classes, each once", ",".join(self.classes), "Write a,b,c.")

    @property
    def kind(self) -> str:
        """``"logits"`` or ``"probs"``."""
        return "probs" if self.logits is None else "logits"

    @property
    def words(self) -> list[str]:
        """Names and patterns of the columns of scores."""
        return [word.strip() for word in str(self.logits or self.probs).split(",")]

    def find(self, names: Sequence[str], *, where: str) -> Found:
        """The columns among ``names``.

        Args:
            names: Of all columns, in the order of the file.
            where: The file, for messages.

        Raises:
            InputError: If one is missing, a pattern matches fewer than two or its matches are numbered out of order, a
                column is named twice (by the file or by the user), or the label is among the scores.
        """
        for name, times in Counter(names).most_common(1):
            if times > 1:
                raise InputError(
                    OWNER, "column names must differ", f"{name!r} {times} times in {where}", "Rename them."
                )
        found: list[str] = []
        parts: list[str] = []
        for word in self.words:
            if word in names or not set(word) & set("*?["):
                matches = [_known(word, names, f"--{self.kind}", where)]
                parts.append(word)
            else:
                matches = [name for name in names if fnmatchcase(name, word) and name != self.target]
                if len(matches) < 2:
                    raise InputError(
                        OWNER,
                        f"--{self.kind} {word!r} must match at least two columns",
                        f"{len(matches)} of {_few(names)} in {where}",
                        "Name the columns; a single one is the positive class of two.",
                    )
                stands = _matched(word, matches)
                _check_order(stands, word, where)
                parts += stands
            found += matches
        if len(set(found)) < len(found) or self.target in found:
            twice = next(name for name in found if found.count(name) > 1 or name == self.target)
            raise InputError(
                OWNER, "a column must be named once", f"{twice!r} twice", "Name each column for one thing."
            )
        if self.target is not None:
            _known(self.target, names, "--target", where)
        return Found(tuple(found), tuple(parts))


@dataclass(frozen=True)
class Found:
    """Columns of scores in a file.

    Attributes:
        scores: Their names, in the order of the classes.
        parts: What each is called as a class: the part that ``*`` stands for, or the whole name.
    """

    scores: tuple[str, ...]
    parts: tuple[str, ...]


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

    def numbers(self, labels: Sequence[Any] | NDArray[Any], first_row: int) -> NDArray[np.int64]:
        """Class numbers ``(n,)`` of the labels of rows ``first_row`` and following, counted from 1.

        Raises:
            InputError: For a missing or unknown label (row and column are named), or two kinds in one file.
        """
        plain = labels.tolist() if isinstance(labels, np.ndarray) else labels
        known: dict[Any, int] = {}
        out = np.empty(len(plain), dtype=np.int64)
        for place, label in enumerate(plain):
            key = (type(label), label) if label.__hash__ is not None else (str, str(label))
            number = known.get(key)
            if number is None:
                number = known[key] = self._number(label, first_row + place)
            out[place] = number
        return out

    def said(self) -> str:
        """How labels were understood, as a sentence."""
        if self.by_name is None:
            return "There were no labels."
        if self.by_name:
            return f"Labels name classes: {_few(list(self.names))}, in the order of the columns."
        return f"Labels are class numbers, 0 to {self.num_classes - 1} in the order of the columns."

    def _number(self, label: Any, row: int) -> int:
        text = "" if label is None or (isinstance(label, float) and label != label) else str(label).strip()
        if not text:
            raise InputError(
                OWNER, f"every row must have a label in column {self.column!r}", self._at(row, "none"), FIX
            )
        whole = _whole(text, two=self.num_classes == 2)
        name = next((form for form in (text, str(whole)) if form in self.names), None)
        number = self.names[name] if name is not None else whole
        if number is None or (name is None and self._numbered()) or not 0 <= number < self.num_classes:
            allowed = _few(list(self.names)) if self.names else f"a number from 0 to {self.num_classes - 1}"
            if self.names and not self._numbered():
                allowed += f", or a number from 0 to {self.num_classes - 1}"
            raise InputError(
                OWNER,
                f"labels in column {self.column!r} must be {allowed}",
                self._at(row, repr(label)),
                "Name the classes in the order of the columns with --classes, or correct the label.",
            )
        if self.by_name is None:
            self.by_name = name is not None
        elif self.by_name is not (name is not None):
            kind = "the name of a class" if self.by_name else "the number of one"
            raise InputError(
                OWNER, f"all labels must be {kind}, as the first is", self._at(row, repr(label)), "Use one kind only."
            )
        return number

    def _numbered(self) -> bool:
        """Whether classes are named by whole numbers, so that a number is a name."""
        return any(_whole(name) is not None for name in self.names)

    def _at(self, row: int, got: str) -> str:
        return f"{got} in row {row} of {self.where}"


FIX = "Fill it in, or remove the row."


def split_names(text: str | None) -> tuple[str, ...]:
    """The names in ``a,b,c``; none for None."""
    return () if text is None else tuple(word.strip() for word in text.split(","))


def _known(name: str, names: Sequence[str], option: str, where: str) -> str:
    if name in names:
        return name
    raise InputError(OWNER, f"{option} must name a column of {where}", repr(name), suggestion(name, names))


def _matched(pattern: str, names: Sequence[str]) -> list[str]:
    """What the only ``*`` of a pattern stands for in each name; the names themselves for other patterns."""
    before, star, after = pattern.partition("*")
    if not star or set(before + after) & set("*?["):
        return list(names)
    return [name[len(before) : len(name) - len(after)] for name in names]


def _check_order(parts: Sequence[str], pattern: str, where: str) -> None:
    """Refuse columns that are numbered and not in order, as after sorting by name: 0, 1, 10, 2."""
    numbers = [_whole(part) for part in parts]
    plain = [number for number in numbers if number is not None]
    if len(plain) < len(parts):
        return
    start = min(plain)
    if start not in (0, 1) or plain != list(range(start, start + len(plain))):
        raise InputError(
            OWNER,
            f"columns that match {pattern!r} must be numbered from 0 or 1, without gaps and in order",
            f"{_few(parts)} in {where}",
            "Name them one by one in the order of the classes, a,b,c.",
        )


def _whole(text: str, *, two: bool = False) -> int | None:
    """The whole number that a text is, also as 3.0; with ``two`` also true and false; None if it is none."""
    if two and text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _few(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(map(str, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or describe(names)
