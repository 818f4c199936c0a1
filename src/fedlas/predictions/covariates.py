"""Covariates: columns that describe a sample beyond its scores, encoded as numbers and category codes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe, reject_other_content, truncated_list


@dataclass(frozen=True)
class Covariates:
    """Encoding of covariate columns as features: numeric columns as they are, categorical columns as codes.

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
        """Names of all covariate columns."""
        return (*self.numbers, *self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each feature: the name of its column, or ``column=value`` if one-hot encoded."""
        if not self.one_hot:
            return (*self.numbers, *(f"{name} missing" for name in self.gaps), *self.categories)
        places = (f"{name}={value}" for name, values in self.categories.items() for value in values)
        return (*self.numbers, *places)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Description of each feature for users of an exported calibration, such as ``region: 0 north, 1 south``."""
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
        """Number of known values of each feature; 0 for numeric features."""
        categories = () if self.one_hot else tuple(map(len, self.categories.values()))
        return (*[0] * (len(self.names) - len(categories)), *categories)

    def notes(self) -> list[str]:
        """Return notes that count missing values and values that the fit did not see."""
        texts = []
        for name, count in self.unknown.items():
            if not count:
                continue
            if name in self.categories:
                values = truncated_list(self.categories[name], 6)
                texts.append(
                    f"{count:,} rows have a missing or unseen value of {name!r} and are treated as none of {values}."
                )
            else:
                texts.append(
                    f"{count:,} rows lack a number in {name!r}, which no row of the fit did: its mean is used."
                )
        return texts

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as a dict for JSON."""
        categories = {name: list(values) for name, values in self.categories.items()}
        values: dict[str, Any] = {"numbers": list(self.numbers), "categories": categories}
        if self.one_hot:
            return values
        return values | {"codes": True, "means": dict(self.means), "gaps": list(self.gaps)}

    @classmethod
    @reject_other_content
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the covariates in a dict of :meth:`to_dict`.

        Raises:
            InputError: If it is something else.
        """
        numbers = content["numbers"]
        categories = content["categories"]
        means = {str(name): float(value) for name, value in content.get("means", {}).items()}
        gaps = content.get("gaps", [])
        lists = [numbers, gaps, *categories.values()]
        if not all(
            isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists
        ):
            raise ValueError("numbers, gaps and categories must be lists of text")
        if not {*gaps} <= means.keys() <= {*numbers} or not np.isfinite([*means.values()]).all():
            raise ValueError("means must be finite numbers of numeric columns")
        return cls(
            tuple(numbers),
            {str(name): tuple(values) for name, values in categories.items()},
            one_hot=content.get("codes") is not True,
            means=means,
            gaps=tuple(gaps),
        )


def check_covariates(covariates: object, features: NDArray[Any] | None) -> None:
    """Raise InputError unless ``covariates`` is None or describes each column of the features.

    Raises:
        InputError: If it is none, or of other columns.
    """
    if covariates is None:
        return
    width = None if features is None else features.shape[1]
    if not isinstance(covariates, Covariates) or len(covariates.names) != width:
        raise InputError(
            "covariates must be a Covariates object that describes each column of features",
            f"{describe(covariates)} and {'no' if width is None else width} features",
            "Leave covariates out, or read the table with fedlas.read_predictions.",
        )


def covariates_from_json(text: object, path: object) -> Covariates:
    """Return the covariates in the JSON text of an array in a file.

    Raises:
        InputError: If it does not.
    """
    try:
        return Covariates.from_dict(json.loads(str(text)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "array 'covariates' must describe the features in JSON",
            f"{path} ({error})",
            "Save the predictions again.",
        ) from error
