"""Columns of a stream, watched without labels: means, shares of categories, new categories, and missing values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, reason
from fedlas._core.files import read_json
from fedlas.deploy.card import Card
from fedlas.predictions import Columns
from fedlas.predictions.cells import MISSING as MISSING_TEXTS
from fedlas.predictions.cells import cell_text, few
from fedlas.predictions.covariates import MOST_VALUES
from fedlas.predictions.read import open_source

MOVED = 0.5
"""Standard deviations by which a column's mean moves before that is called drift."""
MISSING = 0.05
"""Change of the share of missing values, or of a category, that is called drift."""
NEW = 0.01
"""Share of rows with categories that were not there before that is called drift."""
_CERTAIN = 4.0
"""Standard errors that a drift must exceed too, so that few rows raise none."""


@dataclass(frozen=True)
class Drift:
    """A column that moved in a period, against what it was before."""

    period: str
    column: str
    # Such as "moved by +2.0 sd".
    change: str

    def __str__(self) -> str:
        return f"{self.column} {self.change}"


@dataclass
class _Cells:
    """What was counted of a column so far."""

    rows: int = 0
    missing: int = 0
    numbers: int = 0
    sum: float = 0.0
    squares: float = 0.0
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, decimal_point: str) -> None:
        """Count a cell."""
        self.rows += 1
        number = math.nan
        with suppress(ValueError):
            number = float(text.replace(decimal_point, ".").removesuffix("%"))
        if math.isfinite(number):
            self.numbers += 1
            self.sum += number
            self.squares += number * number
        elif not text or text in MISSING_TEXTS:
            self.missing += 1
        # One more than are watched: a column of names has no shares.
        elif text in self.texts or len(self.texts) <= MOST_VALUES:
            self.texts[text] += 1

    def add_numbers(self, values: NDArray[Any]) -> None:
        """Count numbers ``(n,)``, or lists of them ``(n, C)``, of which only missing ones are counted."""
        is_missing = np.isnan(values).reshape(len(values), -1).any(axis=1)
        self.rows += len(values)
        self.missing += int(is_missing.sum())
        if values.ndim == 1:
            numbers = values[np.isfinite(values)].astype(np.float64)
            self.numbers += len(numbers)
            self.sum += float(numbers.sum())
            self.squares += float(numbers @ numbers)

    def plain(self) -> dict[str, Any]:
        """Return rows, missing share, mean and standard deviation of numbers, and shares of categories."""
        result: dict[str, Any] = {
            "rows": self.rows,
            "missing": self.missing / max(1, self.rows),
        }
        if 0 < len(self.texts) <= MOST_VALUES:
            shares = {text: count / self.rows for text, count in self.texts.most_common()}
            return {**result, "shares": shares}
        if self.numbers and not self.texts:
            mean = self.sum / self.numbers
            variance = max(0.0, self.squares / self.numbers - mean**2)
            result |= {"mean": mean, "sd": math.sqrt(variance), "numbers": self.numbers}
        return result


def column_sums(files: Sequence[Path], columns: Columns | None) -> dict[str, dict[str, Any]]:
    """Return what :func:`drift_between` compares of each column of covariates, and of the scores.

    Raises:
        InputError: If a column does not exist.
    """
    if columns is None or columns.covariates is None:
        return {}
    cells: dict[str, _Cells] = {}
    for file in files:
        source, _ = open_source(file, columns)
        covariates = columns.covariates_in(source.names, where=source.label)
        scores = _scores_in(source.names, columns)
        names = [name for name in covariates if name not in scores]
        source.missing = MISSING_TEXTS
        for chunk in source.chunks(scores, names):
            for name in names:
                column = cells.setdefault(name, _Cells())
                for cell in chunk.values[name]:
                    column.add(cell_text(cell), source.decimal_point)
            for name in scores:
                cells.setdefault(name, _Cells()).add_numbers(chunk.numbers[name])
    return {name: column.plain() for name, column in cells.items()}


def _scores_in(names: Sequence[str], columns: Columns) -> list[str]:
    """Return the columns of scores that are numbers."""
    patterns = columns.words(columns.kind or "logits")
    are_numbers = columns.confidence_as == "number"
    return [
        name
        for name in names
        if are_numbers and any(name == text or fnmatchcase(name, text) for text in patterns)
    ]


def columns_of_card(card_file: Path) -> dict[str, dict[str, Any]]:
    """Return what a card, or that of a run folder, holds of the columns of its test samples; empty if nothing.

    Raises:
        InputError: If it is no card, or holds something else.
    """
    card = card_file / "card.json" if card_file.is_dir() else card_file
    Card.read(card)
    columns: dict[str, dict[str, Any]] = read_json(card).get("columns", {})
    try:
        drift_between(columns, columns)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            "the card must hold what the monitor compares with",
            f"{card} ({reason(error)})",
            "Write one with fedlas card VAL TEST --covariates COLUMNS.",
        ) from error
    return columns


def drift_between(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], period: str = ""
) -> list[Drift]:
    """Return each drift of columns from what they were before; columns that only one has are not compared."""
    return [
        Drift(period, name, change)
        for name, column in now.items()
        if name in before
        for change in _changes(before[name], column)
    ]


def check_columns(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse columns that nothing can be compared with.

    Raises:
        InputError: If a card holds other columns.
    """
    lacking = [name for name in now if name not in before]
    if lacking:
        raise InputError(
            "the card must hold the columns of --covariates",
            f"no {few(lacking)} on it",
            "Write the card with --covariates; or add --history, which compares with its first period.",
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    if "mean" in before and "mean" in now and before["sd"] > 0:
        gap = now["mean"] - before["mean"]
        error = math.sqrt(before["sd"] ** 2 / before["numbers"] + now["sd"] ** 2 / now["numbers"])
        if abs(gap) > max(MOVED * before["sd"], _CERTAIN * error):
            changes.append(f"moved by {gap / before['sd']:+.1f} sd")
    if _differ(before, now, (before["missing"], now["missing"]), MISSING):
        changes.append(f"is missing in {100 * now['missing']:.0f} % of rows")
    shares = before.get("shares", {})
    if shares:
        changes += _new_shares(before, now, shares)
    return changes


def _new_shares(
    before: Mapping[str, Any], now: Mapping[str, Any], shares: Mapping[str, float]
) -> list[str]:
    """Return the categories whose shares changed, and those that are new."""
    live = now.get("shares", {})
    changes = []
    for text, share in shares.items():
        if _differ(before, now, (share, live.get(text, 0.0)), MISSING):
            changes.append(
                f"is {text!r} in {100 * live.get(text, 0.0):.0f} % of rows, before in {100 * share:.0f} %"
            )
    new = {text: share for text, share in live.items() if text not in shares}
    if _differ(before, now, (0.0, sum(new.values())), NEW):
        changes.append(
            f"has new categories in {100 * sum(new.values()):.0f} % of rows: {few([*new], 4)}"
        )
    return changes


def _differ(
    before: Mapping[str, Any], now: Mapping[str, Any], shares: tuple[float, float], least: float
) -> bool:
    """Return whether a share changed by more than ``least``, and than chance."""
    share = max(shares)
    error = math.sqrt(share * (1 - share) * (1 / before["rows"] + 1 / now["rows"]))
    return abs(shares[1] - shares[0]) > max(least, _CERTAIN * error)
