"""Rows of JSON lines, and values at paths into them: ``choices.0.logprobs.content``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.files import parse_json
from fedlas._core.text import shortened
from fedlas.predictions.cells import few
from fedlas.predictions.sources import ROWS, Cells


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object of a file, with its number from 1; empty lines do not count.

    Raises:
        InputError: If a line is something else.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), 1):
            try:
                row = parse_json(line, finite=False)
                if not isinstance(row, dict):
                    raise ValueError(f"{type(row).__name__}")
            except ValueError as error:
                got = f"{error} in row {number} of {path.name}"
                raise InputError(
                    "every line must be a JSON object", got, "Write one object a line."
                ) from error
            yield number, row


def at_path(row: Any, path: str) -> Any:
    """Return the value at a path of keys and places in lists; None if there is none.

    Example:
        >>> at_path({"choices": [{"text": "Paris"}]}, "choices.0.text")
        'Paris'
    """
    if isinstance(row, dict) and path in row:
        return row[path]
    if isinstance(row, str) and row.lstrip()[:1] in ("{", "["):  # JSON in JSON
        with suppress(ValueError):
            row = parse_json(row, finite=False)
    if isinstance(row, list):
        first, _, rest = path.partition(".")
        row = row[int(first)] if first.isdecimal() and int(first) < len(row) else None
        return at_path(row, rest) if rest else row
    if not isinstance(row, dict):
        return None
    # Keys may hold dots themselves: the longest that exists counts.
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        key = ".".join(parts[:length])
        if key in row:
            rest = ".".join(parts[length:])
            return at_path(row[key], rest) if rest else row[key]
    return None


def path_chunks(path: Path, numbers: Sequence[str], others: Sequence[str]) -> Iterator[Cells]:
    """Yield columns of some rows at a time, at paths into their objects.

    Raises:
        InputError: If a column of numbers holds something else; row and column are named.
    """
    rows = json_rows(path)
    while batch := list(islice(rows, ROWS)):
        values = {
            name: [at_path(row, name) for _, row in batch]
            for name in dict.fromkeys([*numbers, *others])
        }
        first = batch[0][0]
        cells: dict[str, NDArray[np.floating[Any]]] = {
            name: _numbers(values[name], name, first, path.name) for name in numbers
        }
        yield cells, {name: values[name] for name in others}


def _numbers(values: Sequence[Any], name: str, first: int, file: str) -> NDArray[np.float64]:
    """Return numbers ``(n,)``, or ``(n, C)`` of lists of one length; NaN for a missing one, or for text."""
    width = next((len(value) for value in values if isinstance(value, list)), None)
    shape = (len(values),) if width is None else (len(values), width)
    array = np.full(shape, np.nan)
    for row, value in enumerate(values):
        place = f"in row {first + row} of {file}"
        if width is not None and not (isinstance(value, list) and len(value) == width):
            got = f"{len(value) if isinstance(value, list) else 0} {place}"
            expected = f"lists of column {name!r} must all hold {width} numbers"
            raise InputError(expected, got, "Write one number for each class.")
        for place_in_list, number in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(number, bool | dict | list):
                got = f"{shortened(repr(number), 60)} {place}"
                raise InputError(f"column {name!r} must hold numbers", got, _fix(number, name))
            with suppress(TypeError, ValueError):
                array[(row, place_in_list)[: array.ndim]] = float(number)
    return array


def _fix(value: Any, name: str) -> str:
    if isinstance(value, dict) and "logprob" in value:
        return "Add --confidence-as mean, sum or min for log-probabilities of tokens."
    if isinstance(value, dict):
        return f"Name a number in it: {few([f'{name}.{key}' for key in value])}."
    return "Name another column."
