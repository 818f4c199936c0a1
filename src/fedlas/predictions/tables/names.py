"""Class names: numbers in them, and the spelling of predicted names and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from fedlas._core.check import Argument, InputError, truncated_list
from fedlas._core.row_check import RowCheck
from fedlas.predictions.class_names import parse_whole_number

_PARTS = re.compile(r"[^_. -]*[_. -]|[^_. -]+")
"""Words of a name, each with the separator behind it."""
_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_MAX_NAMES = 10_000
"""Maximum number of distinct names; beyond it they are free answers, not classes."""


def normalize_name(text: str) -> str:
    """Return a name in the form in which names are compared: true and false in lower case."""
    lower = text.lower()
    return lower if lower in ("true", "false") else text


class NameAgreement(RowCheck[tuple[list[str], list[str]]]):
    """Checks that predicted class names and labels are spelled alike.

    State:
        The names so far.
    """

    def __init__(self) -> None:
        self._predicted: dict[str, None] = {}
        self._labels: dict[str, None] = {}
        self._rows = 0
        self._many = False

    def add(self, rows: tuple[list[str], list[str]]) -> None:
        """Add the predicted names and the labels of some rows."""
        predicted, labels = rows
        self._rows += len(labels)
        if self._many:
            return
        self._predicted |= dict.fromkeys(map(normalize_name, predicted))
        self._labels |= dict.fromkeys(map(normalize_name, labels))
        if max(len(self._predicted), len(self._labels)) > _MAX_NAMES:
            self._many = True
            self._predicted.clear()
            self._labels.clear()

    def check(self, where: str) -> None:
        """Raise InputError if no predicted name equals a label, and some differ only in spelling.

        Raises:
            InputError: Then.
        """
        alike = self._similar_names()
        if alike and not self._predicted.keys() & self._labels.keys():
            one, other = alike[0]
            raise InputError(
                "predicted names and labels must have the same spelling",
                f"{one!r} as a prediction and {other!r} as a label in {where}",
                "Write names alike in both columns: they are case-sensitive.",
            )

    def notes(self) -> list[str]:
        """Return notes on names that never match."""
        if self._rows > 1 and not self._many and not self._predicted.keys() & self._labels.keys():
            predicted = truncated_list(list(self._predicted))
            labels = truncated_list(list(self._labels))
            return [
                f"No prediction equals a label: predictions are {predicted}, labels are {labels}."
            ]
        return [
            f"{one!r} and {other!r} are treated as different classes."
            for one, other in self._similar_names()[:3]
        ]

    def _similar_names(self) -> list[tuple[str, str]]:
        """Return pairs of a predicted name and a label that differ only in case or separators."""
        by_letters = {
            _letters_only(label): label for label in self._labels if label not in self._predicted
        }
        pairs = [
            (name, by_letters.get(_letters_only(name)))
            for name in self._predicted
            if name not in self._labels
        ]
        return [(name, label) for name, label in pairs if label is not None]


def _letters_only(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def wildcard_parts(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the part of each name that the single ``*`` of a pattern matches; whole names for other patterns."""
    before, star, after = pattern.partition("*")
    if not star or set(before + after) & set("*?["):
        return list(names)
    return [name[len(before) : len(name) - len(after)] for name in names]


def numeric_parts(names: Sequence[str]) -> list[int]:
    """Return the numbers by which names differ, as in class_1 and class_10; empty if other text differs."""
    if len(names) < 2:
        return []
    before = _common_prefix_length(names)
    after = _common_prefix_length([name[::-1] for name in names])
    parts = [name[before : len(name) - after] for name in names]
    decimals = before > 0 and names[0][before - 1] == "."
    return (
        [int(part) for part in parts] if not decimals and all(map(_DIGITS.fullmatch, parts)) else []
    )


def _common_prefix_length(names: Sequence[str]) -> int:
    """Return the length of the common prefix of names, without digits at its end."""
    first = min(names)
    last = max(names)  # what these share, all between them do
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return len("".join(letter for letter, _ in same).rstrip("0123456789"))


def pair_names(
    scores: Mapping[str, str], labels: Mapping[str, str], where: str
) -> tuple[list[int] | None, tuple[str, ...]]:
    """Return the index of the label column of each score column, or None if no names agree, and the label names.

    Names agree without case, spaces, hyphens and underscores. Where none do, the order of the columns decides.

    Args:
        scores: Names of the columns of scores, each with the part that a pattern left of it.
        labels: The same of the columns of labels.
        where: The file, for messages.

    Raises:
        InputError: If there is not one label for each score.

    Example:
        >>> pair_names({"p_A": "A", "p_b": "b"}, {"y_b": "b", "y_a": "a"}, "t.csv")
        ([1, 0], ('A', 'b'))
    """
    for of_scores, of_labels in (
        (tuple(scores.values()), tuple(labels.values())),
        (strip_common_parts([*scores]), strip_common_parts([*labels])),
    ):
        score_keys, label_keys = _comparable_names(of_scores), _comparable_names(of_labels)
        if len(score_keys) < len(of_scores) or len(label_keys) < len(of_labels):  # a and A are two
            score_keys, label_keys = (
                {name: name for name in names} for names in (of_scores, of_labels)
            )
        if score_keys.keys() == label_keys.keys():
            places = {key: of_labels.index(name) for key, name in label_keys.items()}
            return [places[key] for key in score_keys], of_scores
        if score_keys.keys() & label_keys.keys():
            alone = [name for key, name in score_keys.items() if key not in label_keys]
            alone_labels = [name for key, name in label_keys.items() if key not in score_keys]
            raise InputError(
                "every score column must have a label column, and every label column a score column",
                f"{_missing_text(alone, 'label')}{' and ' * bool(alone and alone_labels)}"
                f"{_missing_text(alone_labels, 'score')} in {where}",
                "List the columns of both in the same order: a,b,c.",
            )
    if len(scores) != len(labels):
        raise InputError(
            "there must be one label column per score column",
            f"{truncated_list(list(labels))} for {truncated_list(list(scores))} in {where}",
            "List the columns of both in the same order: a,b,c.",
        )
    return None, strip_common_parts([*labels])


def _comparable_names(names: Sequence[str]) -> dict[str, str]:
    """Return each name by the form in which it is compared; fewer than the names if some have the same."""
    return {_letters_only(name): name for name in names}


def _missing_text(names: Sequence[str], what: str) -> str:
    return f"no {what} of {truncated_list(list(names))}" if names else ""


def strip_common_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return names without their common prefix and suffix, such as ``edema`` for ``p_edema``."""
    if len(names) < 2:
        return tuple(names)
    parts = [_PARTS.findall(name) for name in names]
    fewest = min(map(len, parts)) - 1
    first = next((n for n in range(fewest) if len({each[n] for each in parts}) > 1), fewest)
    last = next(
        (n for n in range(fewest - first) if len({each[-1 - n] for each in parts}) > 1),
        fewest - first,
    )
    return tuple("".join(each[first : len(each) - last]).strip("_. -") for each in parts)


def check_increasing_numbers(names: Sequence[str], where: str) -> None:
    """Raise InputError if numbers in column names do not increase, as after sorting as text: 0, 1, 10, 2."""
    numbers = numeric_parts(names)
    if numbers != sorted(numbers):
        raise InputError(
            "score columns must be in the order of the numbers in their names",
            f"{truncated_list([str(number) for number in numbers])} in {where}",
            (
                "They are sorted as text: list the columns in class order, or name the classes by ",
                Argument("classes"),
                ".",
            ),
        )


def check_consecutive_numbers(parts: Sequence[str], pattern: str, where: str) -> None:
    """Raise InputError if numbered columns are not in order, as after sorting as text: 0, 1, 10, 2."""
    numbers = [number for part in parts if (number := parse_whole_number(part)) is not None]
    start = min(numbers, default=0)
    if len(numbers) == len(parts) and (
        start not in (0, 1) or numbers != [*range(start, start + len(numbers))]
    ):
        as_text = "They are sorted as text. " if sorted(numbers) != numbers else ""
        raise InputError(
            f"columns that match {pattern!r} must be numbered consecutively from 0 or 1",
            f"{truncated_list(parts)} in {where}",
            f"{as_text}List them in class order: a,b,c.",
        )
