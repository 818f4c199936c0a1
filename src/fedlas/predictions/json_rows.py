"""Rows of JSON lines, and values at paths into them: ``choices.0.logprobs.content``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.files import parse_json
from fedlas._core.text import shortened
from fedlas.predictions.cells import few


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each object of a file, with its number from 1; empty lines do not count.

    Raises:
        InputError: If a line is something else.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), 1):
            yield number, json_row(line, number, path.name)


def json_row(line: str, number: int, file: str) -> dict[str, Any]:
    """Return the object in a line.

    Raises:
        InputError: If it is something else.
    """
    try:
        row = parse_json(line, finite=False)
        if not isinstance(row, dict):
            raise ValueError(f"{type(row).__name__}")
    except ValueError as error:
        got = f"{error} in row {number} of {file}"
        fix = "Write one object a line."
        raise InputError("every line must be a JSON object", got, fix) from error
    return row


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


def numbers_at(
    values: Sequence[Any], name: str, rows: Sequence[int], file: str
) -> NDArray[np.float64]:
    """Return numbers ``(n,)``, or ``(n, C)`` of lists of one length; NaN for a missing one, or for text.

    Raises:
        InputError: For something else; row and column are named.
    """
    width = next((len(value) for value in values if isinstance(value, list)), None)
    array = np.full((len(values), 1 if width is None else width), np.nan)
    for value, row, cells in zip(values, rows, array, strict=True):
        numbers = value if isinstance(value, list) else [value]
        if width is not None and (numbers is not value or len(value) != width):
            got = f"{len(value) if isinstance(value, list) else 0} in row {row} of {file}"
            expected = f"lists of column {name!r} must all hold {width} numbers"
            raise InputError(expected, got, "Write one number for each class.")
        for place, number in enumerate(numbers):
            if isinstance(number, bool | dict | list):
                got = f"{shortened(repr(number), 60)} in row {row} of {file}"
                raise InputError(f"column {name!r} must hold numbers", got, _fix(number, name))
            with suppress(TypeError, ValueError):
                cells[place] = float(number)
    return array[:, 0] if width is None else array


def _fix(value: Any, name: str) -> str:
    if isinstance(value, dict) and "logprob" in value:
        return "Pass confidence_as= mean, sum or min for log-probabilities of tokens."
    if isinstance(value, dict):
        return f"Name a number in it: {few([f'{name}.{key}' for key in value])}."
    return "Name another column."
