"""Covariates: columns of a table that say more about a sample than its scores do, as numbers and codes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from torch import Tensor

from fedlas._core.check import InputError, describe, few


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


def check_covariates(covariates: object, features: Tensor | None) -> None:
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


def covariates_of(text: object, path: object) -> Covariates:
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
