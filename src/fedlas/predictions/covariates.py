"""Covariates: columns of a table that say more about a sample than its scores do, as numbers and codes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, describe, few
from fedlas.predictions.cells import TableChunk, Values, cell_text
from fedlas.predictions.class_names import whole_number
from fedlas.predictions.roles import Columns
from fedlas.predictions.tables.format import Format
from fedlas.predictions.tables.frame import Frame

MOST_VALUES = 256
"""Most values of a column of text: more are names of samples rather than kinds of them."""
_PADDED = re.compile(r"0\d")


@dataclass(frozen=True)
class Covariates:
    """Columns of numbers, and columns of categories, which features hold as the number of each row's value.

    Args:
        numbers: Columns of numbers.
        categories: By column, the values that have a number, from 0; all others, and none, have the number behind.
        means: Mean of each column of numbers, which stands for a missing one; empty in files of the first versions.
        gaps: Columns of numbers with missing ones in the fit: a further feature says where they are.
        one_hot: Whether each value has a column of zeros and ones instead, as in files of the first versions.

    State:
        ``unknown`` counts, by column, the rows so far whose value has no place.
    """

    numbers: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter, compare=False)
    one_hot: bool = False
    means: Mapping[str, float] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    @classmethod
    def learn(cls, source: Format, columns: Columns) -> Self | None:
        """Read the columns of ``covariates`` once, and say what each holds; None without such columns.

        Groups, text and numbers with leading zeros are categories. A missing value is a category of its own; a missing
        number becomes the mean, and a further feature says so, as with scikit-learn's ``SimpleImputer``.

        Raises:
            InputError: If a column does not exist or has more than 256 values that are no numbers.
        """
        names = columns.covariates_in(source.names, where=source.label)
        if not names:
            return None
        groups = frozenset({columns.groups} & {*names})
        return cls.of_columns(source, names, groups, has_gaps=not columns.drop_missing)

    @classmethod
    def of_columns(
        cls,
        source: Format | Mapping[str, Any],
        names: Sequence[str],
        groups: Collection[str | None] = (),
        *,
        has_gaps: bool = True,
    ) -> Self:
        """Return what columns of a table hold, as :meth:`learn`.

        Args:
            source: The table, or a mapping from names to columns.
            names: The columns.
            groups: Those that are categories in any case.
            has_gaps: Whether rows that lack a value stay.
        """
        source = source if isinstance(source, Format) else Frame(source)
        point = source.decimal_point
        numbers = [name for name in names if name not in groups and source.holds_numbers(name)]
        others = [name for name in names if name not in numbers]
        values: dict[str, set[str]] = {name: set() for name in others}
        text = {*groups}
        lacking: set[str] = set()
        for chunk in source.chunks([], others) if others else ():
            for name in others:
                cells = {_key(cell) for cell in _distinct(chunk.values[name])}
                if "" in cells and has_gaps:
                    lacking.add(name)
                cells -= {""}
                if not all(_is_number(cell, point) for cell in cells):
                    text.add(name)
                if len(values[name]) <= MOST_VALUES:
                    values[name] |= cells
        for name in others:
            if name in text and len(values[name]) > MOST_VALUES:
                raise _too_many(name, source.label)
        numbers = [name for name in names if name not in text]
        categories = {
            name: (*sorted(values[name]), *[""] * (name in lacking))
            for name in names
            if name in text
        }
        means, gaps = _means(source, numbers)
        gaps = tuple(name for name in gaps if has_gaps)
        return cls(tuple(numbers), categories, means=means, gaps=gaps)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return (*self.numbers, *self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each feature: that of its column, or ``column=value``."""
        if not self.one_hot:
            return (*self.numbers, *(f"{name} missing" for name in self.gaps), *self.categories)
        places = (f"{name}={value}" for name, values in self.categories.items() for value in values)
        return (*self.numbers, *places)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What an exported calibration takes for each feature: ``region: 0 north, 1 south, 2 none of them``."""
        if self.one_hot:
            return self.names
        values = {
            name: ", ".join(
                f"{n} {value or '(empty)'}" for n, value in enumerate((*each, "none of them"))
            )
            for name, each in self.categories.items()
        }
        plain = self.names[: len(self.numbers) + len(self.gaps)]
        return (*plain, *(f"{name}: {text}" for name, text in values.items()))

    @property
    def levels(self) -> tuple[int, ...]:
        """How many values each feature has; 0 for numbers."""
        categories = () if self.one_hot else tuple(map(len, self.categories.values()))
        return (*[0] * (len(self.names) - len(categories)), *categories)

    def features_of(self, columns: Mapping[str, Any]) -> Tensor:
        """Return the features of columns in memory ``(N, D)``, as :meth:`features`."""
        chunks = Frame(columns).chunks(self.numbers, [*self.categories])
        return torch.cat([self.features(chunk) for chunk in chunks])

    def features(self, chunk: TableChunk) -> Tensor:
        """Return the features of some rows ``(n, D)``, and count values without a place.

        Raises:
            InputError: If a number is missing or infinite; row and column are named.
        """
        parts = [self._numbers(chunk)] if self.numbers else []
        for name, places in self.categories.items():
            numbers = {value: number for number, value in enumerate(places)}
            cells = chunk.values[name]
            position = {cell: numbers.get(_key(cell), len(places)) for cell in _distinct(cells)}
            index = torch.tensor([position[_hashable(cell)] for cell in cells])
            self.unknown[name] += int((index == len(places)).sum())
            if self.one_hot:
                parts.append(torch.nn.functional.one_hot(index, len(places) + 1)[:, :-1].double())
            else:
                parts.append(index.double().unsqueeze(1))
        return torch.cat(parts, dim=1)

    def _numbers(self, chunk: TableChunk) -> Tensor:
        """Return numbers ``(n, numbers + gaps)``, missing ones filled with the mean."""
        columns = {name: chunk.numbers[name] for name in self.numbers}
        is_missing = {name: np.isnan(column) for name, column in columns.items()}
        filled = {
            name: np.where(is_missing[name], self.means.get(name, np.nan), column)
            for name, column in columns.items()
        }
        for name in self.numbers:
            if name not in self.gaps:
                self.unknown[name] += int(is_missing[name].sum())
        whole = replace(chunk, numbers=filled).finite(self.numbers, "covariates").double()
        flags = [torch.from_numpy(is_missing[name]).double() for name in self.gaps]
        return torch.cat([whole, *(flag.unsqueeze(1) for flag in flags)], dim=1)

    def notes(self) -> list[str]:
        """Say which rows so far have a value without a place, as sentences."""
        texts = []
        for name, count in self.unknown.items():
            if not count:
                continue
            if name in self.categories:
                values = few(self.categories[name], 6)
                texts.append(
                    f"{count:,} rows have no value of {name!r}, or one that the fit did not see: they count as none of "
                    f"{values}."
                )
            else:
                texts.append(
                    f"{count:,} rows have no number in {name!r}, where the fit had one in all: "
                    "its mean takes the place."
                )
        return texts

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        categories = {name: list(values) for name, values in self.categories.items()}
        values: dict[str, Any] = {"numbers": list(self.numbers), "categories": categories}
        if self.one_hot:
            return values
        return values | {"codes": True, "means": dict(self.means), "gaps": list(self.gaps)}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Read the result of :meth:`plain`.

        Raises:
            ValueError: If it is something else.
        """
        numbers = content["numbers"]
        categories = content["categories"]
        means = {str(name): float(value) for name, value in content.get("means", {}).items()}
        gaps = content.get("gaps", [])
        lists = [numbers, gaps, *categories.values()]
        if not all(
            isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists
        ):
            raise ValueError("covariates must be lists of names")
        if not {*gaps} <= means.keys() <= {*numbers} or not np.isfinite([*means.values()]).all():
            raise ValueError("means must be those of columns of numbers")
        return cls(
            tuple(numbers),
            {str(name): tuple(values) for name, values in categories.items()},
            one_hot=content.get("codes") is not True,
            means=means,
            gaps=tuple(gaps),
        )


def check_covariates(covariates: Any, features: Tensor | None) -> None:
    """Refuse a description of features that are not there.

    Raises:
        InputError: If it is none, or of other columns.
    """
    if covariates is None:
        return
    width = None if features is None else features.shape[1]
    if not isinstance(covariates, Covariates) or len(covariates.names) != width:
        raise InputError(
            "covariates must be Covariates that name each column of the features",
            f"{describe(covariates)} for {'no' if width is None else width} features",
            "Leave covariates out, or read the table with fedlas.read_predictions.",
        )


def covariates_of(text: Any, path: object) -> Covariates:
    """Return the covariates that an array of a file describes.

    Raises:
        InputError: If it does not.
    """
    try:
        return Covariates.read(json.loads(str(text)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "array 'covariates' must describe the features",
            f"{path} ({error})",
            "Save the predictions again.",
        ) from error


def _means(source: Format, names: Sequence[str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the mean of each column of numbers, over the rows that have one, and the columns that lack some."""
    sums = dict.fromkeys(names, 0.0)
    counts = Counter[str]()
    lacking: set[str] = set()
    for chunk in source.chunks(names, []) if names else ():
        for name in names:
            column = chunk.numbers[name]
            if np.isnan(column).any():
                lacking.add(name)
            column = column[np.isfinite(column)]
            sums[name] += float(column.sum(dtype=np.float64))
            counts[name] += len(column)
    means = {name: sums[name] / max(counts[name], 1) for name in names}
    return means, tuple(name for name in names if name in lacking)


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
