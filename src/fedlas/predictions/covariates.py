"""Covariates: columns of a table that say more about a sample than its scores do, as numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.predictions.cells import TableChunk, Values, cell_text, few, whole_number
from fedlas.predictions.columns import Columns
from fedlas.predictions.tables.table import Table

MOST_VALUES = 256
"""Most values of a column of text: more are names of samples rather than kinds of them."""
_PADDED = re.compile(r"0\d")


@dataclass(frozen=True)
class Covariates:
    """Columns of numbers, and columns of which each value becomes a column of zeros and ones.

    Args:
        numbers: Columns of numbers.
        categories: By column, the values that have a place; all others count as none of them.

    State:
        ``unknown`` counts, by column, the rows so far whose value has no place.
    """

    numbers: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter, compare=False)

    @classmethod
    def learn(cls, source: Table, columns: Columns) -> Self | None:
        """Read the columns of ``covariates`` once, and say what each holds; None without such columns.

        Groups, text and numbers with leading zeros are categories.

        Raises:
            InputError: If a column does not exist or has more than 256 values that are no numbers.
        """
        names = columns.covariates_in(source.names, where=source.label)
        if not names:
            return None
        point = source.decimal_point
        values: dict[str, set[str]] = {name: set() for name in names}
        text = {columns.groups} & {*names}
        for chunk in source.chunks([], names):
            for name in names:
                cells = {_key(cell) for cell in _distinct(chunk.values[name])} - {""}
                if not all(_is_number(cell, point) for cell in cells):
                    text.add(name)
                if len(values[name]) <= MOST_VALUES:
                    values[name] |= cells
        for name in names:
            if name in text and len(values[name]) > MOST_VALUES:
                raise _too_many(name, source.label)
        numbers = tuple(name for name in names if name not in text)
        return cls(numbers, {name: tuple(sorted(values[name])) for name in names if name in text})

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return (*self.numbers, *self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each feature: a column of numbers, or ``column=value``."""
        places = (f"{name}={value}" for name, values in self.categories.items() for value in values)
        return (*self.numbers, *places)

    def features(self, chunk: TableChunk) -> Tensor:
        """Return the features of some rows ``(n, D)``, and count values without a place.

        Raises:
            InputError: If a number is missing or infinite; row and column are named.
        """
        parts = [chunk.finite(self.numbers, "covariates").double()] if self.numbers else []
        for name, places in self.categories.items():
            numbers = {value: number for number, value in enumerate(places)}
            cells = chunk.values[name]
            position = {cell: numbers.get(_key(cell), len(places)) for cell in _distinct(cells)}
            index = torch.tensor([position[_hashable(cell)] for cell in cells])
            self.unknown[name] += int((index == len(places)).sum())
            one_hot = torch.nn.functional.one_hot(index, len(places) + 1)
            parts.append(one_hot[:, :-1].double())
        return torch.cat(parts, dim=1)

    def notes(self) -> list[str]:
        """Say which rows so far have a value without a place, as sentences."""
        return [
            f"{count:,} rows have no value of {name!r}, or one that the fit did not see: they count as none of "
            f"{few(self.categories[name], 6)}."
            for name, count in self.unknown.items()
            if count
        ]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        categories = {name: list(values) for name, values in self.categories.items()}
        return {"numbers": list(self.numbers), "categories": categories}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Read the result of :meth:`plain`.

        Raises:
            ValueError: If it is something else.
        """
        numbers = content["numbers"]
        categories = content["categories"]
        lists = [numbers, *categories.values()]
        if not all(
            isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists
        ):
            raise ValueError("covariates must be lists of names")
        return cls(
            tuple(numbers), {str(name): tuple(values) for name, values in categories.items()}
        )


def _too_many(name: str, label: str) -> InputError:
    return InputError(
        f"a column of covariates must hold numbers, or at most {MOST_VALUES} different values",
        f"more in column {name!r} of {label}",
        "Leave it out: a value that names one sample says nothing about the next.",
    )


def _hashable(cell: Any) -> Any:
    return cell if cell.__hash__ is not None else str(cell)


def _distinct(cells: Values) -> set[Any]:
    return {_hashable(cell) for cell in cells}


def _key(cell: Any) -> str:
    """Return a value as text, by which values are compared: 3 and 3.0 are the same, 007 and 7 are not."""
    text = cell_text(cell)
    number = None if _PADDED.match(text) else whole_number(text)
    return text if number is None else str(number)


def _is_number(text: str, decimal_point: str) -> bool:
    if _PADDED.match(text):
        return "." in text or decimal_point in text
    with suppress(ValueError):
        plain = text.replace(decimal_point, ".").removesuffix("%")
        return bool(np.isfinite(float(plain)))
    return False
