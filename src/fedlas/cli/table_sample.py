"""The first rows of a table, and what their cells look like: probabilities, dates, confidences of answers."""

from __future__ import annotations

import math
import re
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.predictions.tables.formats.by_suffix import open_format
from fedlas.predictions.tables.roles import Columns

_INDEX_PATTERN = re.compile(r"|Unnamed: \d+|__index_level_\d+__|(row_?)?(id|index)", re.I)
_TIME_WORDS = re.compile(
    r"(.*[_. -])?(date|datetime|time|timestamp|month|day)([_. -].*)?", re.I | re.S
)
_TIME_RANGES = (
    (190001, 210012),  # 202610
    (19000101, 21001231),  # 20261014
    (8e8, 5e9),  # seconds since 1970
    (8e11, 5e12),  # and milliseconds
)
_FEW = 50
"""Cells of a column that are looked at for what takes time to read."""


class TableSample:
    """First rows of a table by column.

    Args:
        path: The table.
        chosen: Roles that the user named: a separator, and paths of nested JSON fields.

    Attributes:
        names: All columns.
        texts: Cells as text, by column, without columns that count rows.
        numbers: Numbers of columns where all cells are numbers or empty, by column.
        dates: Columns of dates, and whether they can be read as times.
        rows: Number of rows.

    Raises:
        InputError: If there are no rows, or the file cannot be read.
    """

    def __init__(self, path: Path, chosen: Columns) -> None:
        from fedlas.predictions.tables.cells import cell_to_text, parse_number

        self.path = path
        source = open_format(path, chosen.separator)
        source.expand_paths(chosen.paths)
        self.label = source.label
        self.names = list(source.names)
        chunk = next(iter(source.chunks([], source.names)), None)
        if chunk is None:
            raise InputError("the table must have rows", path, "Check that the file is complete.")
        self.rows = len(chunk.rows)
        self._cells = {name: list(chunk.values[name]) for name in source.names}
        columns = {
            name: [cell_to_text(each) for each in cells] for name, cells in self._cells.items()
        }
        named = {value for value in vars(chosen).values() if isinstance(value, str)}
        self.texts = {
            name: texts
            for name, texts in columns.items()
            if name in named or not _INDEX_PATTERN.fullmatch(name)
        }
        self.numbers: dict[str, list[float]] = {}
        for name, texts in self.texts.items():
            mark = source.column_decimal_point(name)
            numbers = [parse_number(text, mark) for text in texts if text]
            if numbers and None not in numbers:
                self.numbers[name] = [each for each in numbers if each is not None]
        self.dates = {
            name: is_read for name in self.texts if (is_read := self._are_dates(name)) is not None
        }

    def values(self, name: str) -> set[str]:
        """Return the distinct values of a column."""
        return {text for text in self.texts[name] if text}

    def columns_matching(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the columns whose name matches a pattern."""
        return [name for name in self.texts if pattern.fullmatch(name)]

    def is_probability(self, name: str) -> bool:
        """Return whether a column looks like probabilities: numbers in [0, 1], not only 0 and 1."""
        numbers = self.numbers.get(name, [])
        inside = all(0 <= number <= 1 for number in numbers)
        return inside and any(0 < number < 1 for number in numbers)

    def is_constant_within(self, name: str, clusters: str) -> bool:
        """Return whether all rows of each cluster have the same value in a column."""
        pairs = {*zip(self.texts[clusters], self.texts[name], strict=True)}
        return len(pairs) == len({*self.texts[clusters]})

    def stated_share(self, name: str) -> float:
        """Return the share of cells that state a confidence, or 0 if it is less than half or cells are numbers."""
        from fedlas.predictions.language.stated import stated_confidence

        texts = [text for text in self.texts[name] if text][:_FEW]
        if not texts or name in self.numbers:
            return 0.0
        stated = stated_confidence([text[:2000] for text in texts])
        share = sum(map(math.isfinite, stated.tolist())) / len(texts)
        return share if share >= 0.5 else 0.0

    def log_probabilities(self) -> dict[str, str]:
        """Return the columns of log-probabilities: ``"mean"`` of those of tokens, or ``"p-true"``."""
        return {
            name: "p-true" if "true" in name.lower() else "mean"
            for name, cells in self._cells.items()
            if all(_are_log_probabilities(name, cell) for cell in cells[:_FEW])
        }

    def _are_dates(self, name: str) -> bool | None:
        """Return whether a column of dates can be read; None if it holds no dates."""
        from fedlas.predictions.times import AmbiguousDateError, parse_times

        texts = [text for text in self.texts[name] if text]
        if name in self.numbers:
            numbers = self.numbers[name]
            whole = all(number.is_integer() for number in numbers)
            within = any(low <= min(numbers) <= max(numbers) <= high for low, high in _TIME_RANGES)
            return True if whole and within and _TIME_WORDS.fullmatch(name) else None
        if not texts:
            return None
        try:
            times = parse_times(texts)
        except AmbiguousDateError:
            return False
        return True if times is not None and times.dtype.kind == "M" else None


def _are_log_probabilities(name: str, cell: object) -> bool:
    """Return whether a cell holds log-probabilities of tokens: of a server's answer, or a list that is called so."""
    from fedlas.predictions.language.log_probabilities import token_logprobs

    if not isinstance(cell, list | dict) or not cell:
        return False
    if isinstance(cell, list) and not isinstance(cell[0], dict) and "log" not in name.lower():
        return False
    try:
        values = token_logprobs(cell)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return bool(values) and all(
        isinstance(each, int | float) and each <= 0 for each in values or ()
    )
