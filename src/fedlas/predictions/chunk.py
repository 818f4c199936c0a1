"""Rows of a table as its file holds them, and their names in messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.predictions.class_labels import FIX, OWNER, Values, are_missing, names_of, outcomes, plain_values


@dataclass(frozen=True)
class Chunk:
    """Some rows of a table.

    Attributes:
        rows: Number of each row in the file ``(n,)``, counted from 1; a header is no row.
        numbers: For each group of number columns ``(n, columns)``; or ``(n, C)`` from one column of lists.
        lists: Whether each group comes from one column of lists.
        values: Values of other columns, ``n`` of each, by the name of the column.
        file: Name of the file, for messages.
    """

    rows: NDArray[np.int64]
    numbers: tuple[NDArray[np.floating[Any]], ...]
    lists: tuple[bool, ...]
    values: Mapping[str, Values]
    file: str

    def complete(self, names: Sequence[Sequence[str]], *, optional: str | None) -> tuple[Chunk, Counter[str]]:
        """Return the rows without missing values, and how many rows lack one in each column.

        Args:
            names: Columns of each group of numbers.
            optional: A column that may lack values.
        """
        lacking = {}
        for group, columns in zip(self.numbers, names, strict=True):
            for number, name in enumerate(columns):
                lacking[name] = np.isnan(group if len(columns) == 1 else group[:, [number]]).any(axis=1)
        lacking |= {name: are_missing(column) for name, column in self.values.items() if name != optional}
        whole = ~np.logical_or.reduce(list(lacking.values()))
        counts = Counter({name: int(missing.sum()) for name, missing in lacking.items() if missing.any()})
        if whole.all():
            return self, counts
        complete = np.flatnonzero(whole).tolist()
        values = {name: [plain[row] for row in complete] for name, plain in self._plain().items()}
        numbers = tuple(group[whole] for group in self.numbers)
        return replace(self, rows=self.rows[whole], numbers=numbers, values=values), counts

    def _plain(self) -> dict[str, Sequence[Any]]:
        return {name: plain_values(column) for name, column in self.values.items()}

    def where(self, row: int) -> str:
        """Return the name of a row in messages."""
        return f"row {self.rows[row]}"

    def column_of(self, names: Sequence[str]) -> Callable[[int], str]:
        """Return a function from the number of a column to its name in messages; ``names`` are those of the group."""

        def name_of(number: int) -> str:
            of_lists = f"{names[0]!r}, number {number}" if len(names) == 1 and number else repr(names[0])
            return f"{repr(names[number]) if len(names) > 1 else of_lists} of {self.file}"

        return name_of

    def finite(self, group: int, names: Sequence[str], what: str) -> Tensor:
        """Return a group of numbers ``(n, columns)``.

        Raises:
            InputError: If one is missing or infinite; row and column are named.
        """
        values = self.numbers[group]
        if not np.isfinite(values).all():
            row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(values)))
            value = values[row, column]
            got = "no number" if np.isnan(value) else f"{value:.6g}"
            where = f"{got} in {self.where(row)}, column {self.column_of(names)(column)}"
            raise InputError(OWNER, f"{what} must be finite numbers", where, FIX)
        return torch.from_numpy(np.require(values, requirements=["C", "W"]))

    def outcomes(self, column: str) -> Tensor:
        """Return whether each prediction is right ``(n,)``.

        Raises:
            InputError: As :func:`~fedlas.predictions.class_labels.outcomes`.
        """
        return torch.from_numpy(outcomes(self.values[column], self.rows.tolist(), column=column, where=self.file))

    def names(self, column: str, *, missing: str | None = None) -> list[str]:
        """Return the values of a column as text; ``missing`` stands for no value.

        Raises:
            InputError: As :func:`~fedlas.predictions.class_labels.names_of`, where ``missing`` is None.
        """
        values = self.values[column]
        if missing is not None:
            absent = are_missing(values).tolist()
            values = [missing if gone else value for gone, value in zip(absent, plain_values(values), strict=True)]
        return names_of(values, self.rows.tolist(), column=column, where=self.file)
