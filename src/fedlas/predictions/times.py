"""Times of samples that are written as text: numbers, ISO 8601, and dates of spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError

_MONTH = re.compile(r"\d{4}-\d{2}")
_DAY_AND_MONTH = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})([T ]\d{2}:\d{2}(?::\d{2})?)?", re.ASCII
)
"""A date with the year at its end, such as 14.10.2026, with a time or without."""


class AmbiguousDateError(InputError):
    """Dates such as 03/04/2026, of which nothing says whether the day or the month comes first."""


def parse_times(texts: Sequence[object]) -> NDArray[Any] | None:
    """Return texts as an array ``(N,)`` of numbers, or of dates or times; None if they are neither.

    Dates are in ISO 8601, or written as 14.10.2026 or 10/14/2026, with a time or without. In the latter two the part
    that exceeds 12 in some row is the day; with dots the day comes first if none does.

    Raises:
        AmbiguousDateError: If nothing says whether the day or the month comes first.
    """
    cells = [str(text).strip() for text in texts]
    with suppress(ValueError):
        return np.array([float(cell) for cell in cells])
    parts = [_DAY_AND_MONTH.fullmatch(cell) for cell in cells]
    if cells and None not in parts:
        cells = _to_iso_dates([part.groups() for part in parts if part is not None])
    with suppress(ValueError):
        moments = [datetime.fromisoformat(_with_offset(cell)) for cell in cells]
        # Times of several zones are compared in one; those that name none are of one zone.
        zones = {moment.tzinfo is None for moment in moments}
        if zones == {False}:
            moments = [moment.astimezone(UTC).replace(tzinfo=None) for moment in moments]
        if len(zones) == 1:
            return np.array(moments, dtype="datetime64[us]")
    if all(_MONTH.fullmatch(cell) for cell in cells):
        with suppress(ValueError):
            return np.array(cells, dtype="datetime64[M]")
    return None


def _with_offset(cell: str) -> str:
    """Return a time with the offset +00:00 in place of the word UTC."""
    return f"{cell[:-3].rstrip()}+00:00" if cell.endswith(" UTC") else cell


def _to_iso_dates(dates: Sequence[Sequence[str]]) -> list[str]:
    """Return dates in ISO 8601, from the parts of each: first number, separator, second, year, and time if any."""
    exceeds = [any(int(date[place]) > 12 for date in dates) for place in (0, 2)]
    if not any(exceeds) and any(date[1] != "." for date in dates):
        first, separator, second, year, _ = dates[0]
        example = separator.join((first, second, year))
        raise AmbiguousDateError(
            "dates must show whether the day or the month comes first",
            f"{example!r}, and no part above 12 in any row",
            "Write all as 2026-05-31.",
            argument="time",
        )
    day, month = (2, 0) if exceeds[1] else (0, 2)
    return [f"{date[3]}-{int(date[month]):02}-{int(date[day]):02}{date[4] or ''}" for date in dates]
