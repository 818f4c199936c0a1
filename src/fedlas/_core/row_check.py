"""What watches the rows of a table, some at a time, and says in the end what it found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

Rows = TypeVar("Rows", contravariant=True)


class RowCheck(ABC, Generic[Rows]):
    """Watches rows that are read some at a time: refuses a table once all are read, or says what is unusual.

    A check of what rows of a live table say is one more in ``calibrated/tables/apply.py``: :class:`EdgeCount` and
    :class:`ScoreDirection`. :class:`NamesAgree` watches names as they are read.

    These do not fit: ``Units``, which belong to a fit, too, and are saved with it; ``Probabilities`` and ``Labels``,
    which return the rows converted; ``Missing`` and ``Answers``, which count rows that no other check sees, and whose
    policy decides.
    """

    @abstractmethod
    def add(self, rows: Rows) -> None:
        """Take in some rows."""

    def check(self, where: str) -> None:
        """Refuse the table of all rows.

        Raises:
            InputError: With ``where`` they are.
        """

    @abstractmethod
    def notes(self) -> list[str]:
        """Return sentences on the rows so far; none where nothing is unusual."""
