"""Whether predicted names and labels are written alike, or never agree by their spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedlas._core.check import InputError
from fedlas.predictions.cells import few

_MOST_NAMES = 10_000
"""Names that are compared; where there are more, they are answers, not classes."""


def same_name(text: str) -> str:
    """Return a name for comparison: truth values without their case."""
    lower = text.lower()
    return lower if lower in ("true", "false") else text


class NamesAgree:
    """Compares the names that are predicted with those of the labels.

    State:
        The names so far.
    """

    def __init__(self) -> None:
        self._predicted: dict[str, None] = {}
        self._labels: dict[str, None] = {}
        self._rows = 0
        self._many = False

    def add(self, predicted: Sequence[str], labels: Sequence[str]) -> None:
        """Add the names of some rows."""
        self._rows += len(labels)
        if self._many:
            return
        self._predicted |= dict.fromkeys(map(same_name, predicted))
        self._labels |= dict.fromkeys(map(same_name, labels))
        if max(len(self._predicted), len(self._labels)) > _MOST_NAMES:
            self._many = True
            self._predicted.clear()
            self._labels.clear()

    def check(self, where: str) -> None:
        """Refuse names that differ in their spelling alone, if no two agree.

        Raises:
            InputError: Then.
        """
        alike = self._alike()
        if alike and not self._predicted.keys() & self._labels.keys():
            one, other = alike[0]
            fix = "Write names in one way in both columns: they are compared letter by letter."
            expected = "predicted names must be written like the labels"
            raise InputError(expected, f"{one!r}, and {other!r} as a label, in {where}", fix)

    def notes(self) -> list[str]:
        """Say which names never agree, as sentences."""
        if self._rows > 1 and not self._many and not self._predicted.keys() & self._labels.keys():
            predicted = few(list(self._predicted))
            labels = few(list(self._labels))
            return [
                f"No label is ever predicted: predicted are {predicted}; the labels are {labels}."
            ]
        return [
            f"{one!r} and {other!r} count as different names." for one, other in self._alike()[:3]
        ]

    def _alike(self) -> list[tuple[str, str]]:
        """Return names that differ in case, blanks and underscores alone."""
        by_letters = {
            _letters(label): label for label in self._labels if label not in self._predicted
        }
        pairs = [
            (name, by_letters.get(_letters(name)))
            for name in self._predicted
            if name not in self._labels
        ]
        return [(name, label) for name, label in pairs if label is not None]


def _letters(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).casefold()
