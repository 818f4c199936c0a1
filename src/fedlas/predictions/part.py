"""Some rows of a table whose values are all there, and what messages call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.predictions.class_labels import FIX, OWNER, Values, are_missing, names_of, outcomes, plain_values
from fedlas.predictions.sources import Block


@dataclass(frozen=True)
class Part:
    """Rows of a :class:`~fedlas.predictions.sources.Block`, perhaps not all.

    Attributes:
        rows: Number of each in the file ``(n,)``, counted from 1.
        numbers: As in the block.
        lists: As there.
        plain: As there.
        file: Its name, for messages.
    """

    rows: NDArray[np.int64]
    numbers: tuple[NDArray[np.floating[Any]], ...]
    lists: tuple[bool, ...]
    plain: Mapping[str, Values]
    file: str

    @classmethod
    def of(cls, block: Block, file: str, *, drop: bool) -> Part:
        """The rows of a block; with ``drop`` only those in which no value is missing."""
        rows = np.arange(block.first_row, block.first_row + len(block.numbers[0]))
        if not drop:
            return cls(rows, block.numbers, block.lists, block.plain, file)
        missing = np.zeros(len(rows), dtype=bool)
        for values in block.numbers:
            missing |= np.isnan(values).any(axis=1)
        for column in block.plain.values():
            missing |= are_missing(column)
        kept = np.flatnonzero(~missing)
        numbers = tuple(values[kept] for values in block.numbers)
        columns = {name: plain_values(column) for name, column in block.plain.items()}
        plain = {name: [plain[place] for place in kept.tolist()] for name, plain in columns.items()}
        return cls(rows[kept], numbers, block.lists, plain, file)

    def where(self, place: int) -> str:
        """What messages call a row."""
        return f"row {self.rows[place]}"

    def column_of(self, names: Sequence[str]) -> Callable[[int], str]:
        """From the number of a column to what messages call it; ``names`` are those that were named."""

        def called(number: int) -> str:
            of_lists = f"{names[0]!r}, number {number}" if len(names) == 1 and number else repr(names[0])
            return f"{repr(names[number]) if len(names) > 1 else of_lists} of {self.file}"

        return called

    def finite(self, group: int, names: Sequence[str], what: str) -> NDArray[np.floating[Any]]:
        """A group of numbers ``(n, columns)``.

        Raises:
            InputError: If one is missing or infinite; row and column are named.
        """
        values = self.numbers[group]
        wrong = ~np.isfinite(values)
        if wrong.any():
            row, column = (int(place[0]) for place in np.nonzero(wrong))
            value = values[row, column]
            got = "no number" if np.isnan(value) else f"{value:.6g}"
            called = self.column_of(names)(column)
            raise InputError(
                OWNER, f"{what} must be finite numbers", f"{got} in {self.where(row)}, column {called}", FIX
            )
        return values

    def outcomes(self, column: str) -> NDArray[np.bool_]:
        """Whether each prediction is right ``(n,)``.

        Raises:
            InputError: As :func:`~fedlas.predictions.class_labels.outcomes`.
        """
        return outcomes(self.plain[column], self.rows.tolist(), column=column, where=self.file)

    def names(self, column: str) -> list[str]:
        """The values of a column as text.

        Raises:
            InputError: As :func:`~fedlas.predictions.class_labels.names_of`.
        """
        return names_of(self.plain[column], self.rows.tolist(), column=column, where=self.file)
