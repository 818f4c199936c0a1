"""Base class of checks over the rows of a table, read in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

Rows = TypeVar("Rows", contravariant=True)


class RowCheck(ABC, Generic[Rows]):
    """Check that accumulates chunks of rows, and then raises an error about the table or returns notes.

    A check of what rows of a live table say is one more in ``calibrated/tables/apply.py``: :class:`EdgeCount` and
    :class:`ScoreDirection`. :class:`NameAgreement` watches names as they are read.

    These do not fit: ``Units``, which belong to a fit, too, and are saved with it; ``ProbabilityChecker`` and
    ``LabelReader``, which return the rows converted; ``Missing`` and ``AnswerCounter``, which count rows that no other
    check sees, and whose policy decides.
    """

    @abstractmethod
    def add(self, rows: Rows) -> None:
        """Update the check with a chunk of rows."""

    def check(self, where: str) -> None:
        """Raise InputError if the rows of the whole table fail the check.

        Raises:
            InputError: With ``where`` they are.
        """

    @abstractmethod
    def notes(self) -> list[str]:
        """Return notes about unusual rows so far, or an empty list."""
