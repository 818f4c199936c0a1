"""Encoder of covariates: infers column types and categories, and converts rows to features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.types import FloatArray
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.tables.cells import (
    PADDED,
    TableChunk,
    Values,
    cell_to_text,
    parse_label_number,
)
from fedlas.predictions.tables.formats.format import Format
from fedlas.predictions.tables.formats.frame import Frame

if TYPE_CHECKING:
    from fedlas.predictions.tables.roles import Columns

MAX_VALUES = 256
"""Maximum number of distinct values of a categorical column; beyond it they identify samples."""


def infer_covariates(source: Format, columns: Columns) -> Covariates | None:
    """Read the covariate columns once and return their encoding, or None if there are none.

    Groups, text and numbers with leading zeros are categories. A missing value is a category of its own; a missing
    number becomes the mean, and a further feature says so, as with scikit-learn's ``SimpleImputer``.

    Raises:
        InputError: If a column does not exist or has more than 256 values that are no numbers.
    """
    names = columns.find_covariates(source.names, where=source.label)
    if not names:
        return None
    groups = frozenset({columns.groups} & {*names})
    return infer_column_covariates(source, names, groups, has_gaps=not columns.drop_missing)


def infer_column_covariates(
    source: Format | Mapping[str, Any],
    names: Sequence[str],
    groups: Collection[str | None] = (),
    *,
    has_gaps: bool = True,
) -> Covariates:
    """Return the encoding of the given columns of a table.

    Args:
        source: The table, or a mapping from names to columns.
        names: The columns.
        groups: Those that are categories in any case.
        has_gaps: Whether rows that lack a value stay.
    """
    source = source if isinstance(source, Format) else Frame(source)
    numbers = [name for name in names if name not in groups and source.has_numeric_type(name)]
    others = [name for name in names if name not in numbers]
    values: dict[str, set[str]] = {name: set() for name in others}
    text = {*groups}
    lacking: set[str] = set()
    for chunk in source.chunks([], others) if others else ():
        for name in others:
            cells = {_cell_key(cell) for cell in _distinct_cells(chunk.values[name])}
            if "" in cells and has_gaps:
                lacking.add(name)
            cells -= {""}
            if not all(_is_number(cell, source.column_decimal_point(name)) for cell in cells):
                text.add(name)
            if len(values[name]) <= MAX_VALUES:
                values[name] |= cells
    for name in others:
        if name in text and len(values[name]) > MAX_VALUES:
            raise _too_many_values_error(name, source.label)
    numbers = [name for name in names if name not in text]
    categories = {
        name: (*sorted(values[name]), *[""] * (name in lacking)) for name in names if name in text
    }
    means, gaps = _means_and_gaps(source, numbers)
    gaps = tuple(name for name in gaps if has_gaps)
    return Covariates(tuple(numbers), categories, means=means, gaps=gaps)


def encode_columns(covariates: Covariates, columns: Mapping[str, Any]) -> FloatArray:
    """Return the features ``(N, D)`` of columns in memory."""
    chunks = Frame(columns).chunks(covariates.numbers, [*covariates.categories])
    return np.concatenate([encode_rows(covariates, chunk) for chunk in chunks])


def encode_rows(covariates: Covariates, chunk: TableChunk) -> FloatArray:
    """Return the features ``(n, D)`` of a chunk; unseen values are counted in ``covariates.unknown``.

    Raises:
        InputError: If a number is missing or infinite; row and column are named.
    """
    parts = [_encode_numbers(covariates, chunk)] if covariates.numbers else []
    for name, places in covariates.categories.items():
        numbers = {value: number for number, value in enumerate(places)}
        cells = chunk.values[name]
        position = {
            cell: numbers.get(_cell_key(cell), len(places)) for cell in _distinct_cells(cells)
        }
        index = np.array([position[_to_hashable(cell)] for cell in cells], np.int64)
        covariates.unknown[name] += int((index == len(places)).sum())
        if covariates.one_hot:
            parts.append((index[:, None] == np.arange(len(places))).astype(np.float64))
        else:
            parts.append(index.astype(np.float64)[:, None])
    return np.concatenate(parts, axis=1)


def _encode_numbers(covariates: Covariates, chunk: TableChunk) -> FloatArray:
    """Return the numeric features ``(n, numbers + gaps)``: values with missing ones imputed, then flags."""
    columns = {name: chunk.numbers[name] for name in covariates.numbers}
    is_missing = {name: np.isnan(column) for name, column in columns.items()}
    filled = {
        name: np.where(is_missing[name], covariates.means.get(name, np.nan), column)
        for name, column in columns.items()
    }
    for name in covariates.numbers:
        if name not in covariates.gaps:
            covariates.unknown[name] += int(is_missing[name].sum())
    whole = replace(chunk, numbers=filled).stack_finite(covariates.numbers, "covariates")
    flags = [is_missing[name][:, None] for name in covariates.gaps]
    return np.concatenate([whole, *flags], axis=1, dtype=np.float64)


def _means_and_gaps(
    source: Format, names: Sequence[str]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the mean of each numeric column, and the columns with missing values."""
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


def _too_many_values_error(name: str, label: str) -> InputError:
    return InputError(
        f"a covariate column must hold numbers, or at most {MAX_VALUES} different values",
        f"more in column {name!r} of {label}",
        "Leave it out: a value that identifies one sample does not help to predict others.",
    )


def _to_hashable(cell: object) -> Any:
    return cell if cell.__hash__ is not None else str(cell)


def _distinct_cells(cells: Values) -> set[Any]:
    return {_to_hashable(cell) for cell in cells}


def _cell_key(cell: object) -> str:
    """Return a cell as text for comparison: 3 and 3.0 are equal, 007 and 7 are not."""
    text = cell_to_text(cell)
    number = parse_label_number(text)
    return text if number is None else str(number)


def _is_number(text: str, decimal_point: str) -> bool:
    if PADDED.match(text):
        return "." in text or decimal_point in text
    with suppress(ValueError):
        plain = text.replace(decimal_point, ".").removesuffix("%")
        return bool(np.isfinite(float(plain)))
    return False
