"""Drift of covariates and scores without labels: means, category shares, new categories and missing values."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, check_number, error_reason, truncated_list
from fedlas.predictions.tables.cells import MISSING as MISSING_TEXTS
from fedlas.predictions.tables.cells import cell_to_text
from fedlas.predictions.tables.encoder import MAX_VALUES
from fedlas.predictions.tables.read import open_source

if TYPE_CHECKING:
    from fedlas.deploy.card import Card
    from fedlas.predictions import Columns

MEAN_DRIFT = 0.5
"""Change of a column mean, in standard deviations, above which it is drift."""
SHARE_DRIFT = 0.05
"""Change of the share of missing values, or of a category, above which it is drift."""
NEW_CATEGORY_DRIFT = 0.01
"""Share of rows with new categories above which it is drift."""
_MIN_STANDARD_ERRORS = 4.0
"""Number of standard errors that a change must also exceed, so that small samples raise no drift."""
_RARE_SHARE = 0.01
"""Share of rows below which a category is rare, in a column with too many categories to watch each."""
_MIN_CATEGORY_ROWS = 40
"""Least rows of a category to be watched individually in such a column; smaller ones are frequent by chance."""
_NUM_BUCKETS = 256
"""Hash buckets that count the categories of a column with too many categories."""
_MIN_RUNS_PER_CATEGORY = 5
"""Mean number of runs per category below which a column is an identifier, whose values are always new."""
_MIN_BUCKET_ROWS = 5
"""Mean number of rows per bucket below which buckets are merged."""
_MAX_COUNTED = 16 * MAX_VALUES
"""Largest number of distinct values counted at a time."""
_TOLERANCE = 1e-6
"""Tolerance for sums of rounded shares."""
_MAX_NUMBER = 1e150
"""Absolute value from which numbers are treated as text, because their squares overflow."""


@dataclass(frozen=True)
class ColumnDrift:
    """Drift of a column in a period, relative to a reference."""

    period: str
    column: str
    # Such as "moved by +2.0 sd".
    change: str

    def __str__(self) -> str:
        return f"{self.column} {self.change}"


@dataclass
class _ColumnCounts:
    """Running counts of the values of a column: rows, missing values, numbers and categories."""

    rows: int = 0
    missing: int = 0
    texts: int = 0
    numbers: int = 0
    # Sums are of differences from the first number, so that a constant has a deviation of exactly 0.
    first: float = 0.0
    sum: float = 0.0
    squares: float = 0.0
    categories: Counter[str] = field(default_factory=Counter)
    values: Counter[float] = field(default_factory=Counter)
    # Runs of equal text by hash: cards do not name rare categories, and consecutive equal rows are not independent.
    buckets: Counter[int] = field(default_factory=Counter)
    last: str = ""

    def add(self, cells: Iterable[str], decimal_point: str) -> None:
        """Count cells given as text."""
        numbers = []
        categories: Counter[str] = Counter()
        for text in cells:
            number = math.nan
            with suppress(ValueError):
                number = float(text.replace(decimal_point, ".").removesuffix("%"))
            if abs(number) < _MAX_NUMBER:
                numbers.append(number)
            elif text and text not in MISSING_TEXTS:
                categories[text] += 1
                if text != self.last:
                    self.buckets[_hash_bucket(text)] += 1
                self.last = text
            else:
                self.missing += 1
                self.rows += 1
        self.rows += categories.total()
        self.texts += categories.total()
        _add_counts(self.categories, categories)
        if numbers:
            self.add_numbers(np.array(numbers))

    def add_numbers(self, values: NDArray[Any]) -> None:
        """Count numbers ``(n,)``; of lists of numbers ``(n, C)`` only the missing ones are counted."""
        is_missing = np.isnan(values).reshape(len(values), -1).any(axis=1)
        self.rows += len(values)
        self.missing += int(is_missing.sum())
        if values.ndim == 1:
            numbers = values[np.abs(values) < _MAX_NUMBER].astype(np.float64)
            self.texts += len(values) - len(numbers) - int(is_missing.sum())
            if len(numbers) and not self.numbers:
                self.first = float(numbers[0])
            self.numbers += len(numbers)
            differences = numbers - self.first
            self.sum += float(differences.sum())
            self.squares += float(differences @ differences)
            _add_counts(self.values, Counter(numbers.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Return the column statistics as JSON values: rows, missing share, mean, deviation, and category shares.

        Where there are more than :data:`~fedlas.predictions.tables.encoder.MAX_VALUES` categories, only those in at
        least 1 % of the rows have a share of their own.
        """
        result: dict[str, Any] = {
            "rows": self.rows,
            "missing": self.missing / max(1, self.rows),
            "texts": self.texts / max(1, self.rows),
        }
        if self.numbers:
            mean = self.sum / self.numbers
            sd = math.sqrt(max(0.0, self.squares / self.numbers - mean**2))
            value, count = self.values.most_common(1)[0]
            result |= {"mean": self.first + mean, "sd": sd, "numbers": self.numbers}
            result |= {"most": value, "share_of_most": count / self.numbers}
        if self.categories:
            shares = {text: count / self.rows for text, count in self.categories.most_common()}
            if len(shares) > MAX_VALUES:
                shares = {text: share for text, share in shares.items() if share >= _RARE_SHARE}
                result["rare"] = result["texts"] - sum(shares.values())
                result["buckets"] = [self.buckets[b] for b in range(_NUM_BUCKETS)]
                result["names"] = len(self.categories)
            result["shares"] = shares
        return result


def _hash_bucket(text: str) -> int:
    """Return the hash bucket of a category, stable across processes."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=1).digest()[0]


def _add_counts(counter: Counter[Any], counts: Mapping[Any, int]) -> None:
    """Add ``counts`` to ``counter``, and drop the rarest values if there are too many."""
    counter.update(counts)
    if len(counter) > _MAX_COUNTED:
        frequent = counter.most_common(_MAX_COUNTED // 2)
        counter.clear()
        counter.update(dict(frequent))


def column_statistics(files: Sequence[Path], columns: Columns | None) -> dict[str, dict[str, Any]]:
    """Return the statistics of each covariate and numeric score column in ``files``, for :func:`find_drift`.

    Raises:
        InputError: If a column does not exist.
    """
    if columns is None or columns.covariates is None:
        return {}
    cells: dict[str, _ColumnCounts] = {}
    for file in files:
        source, _ = open_source(file, columns)
        source.expand_paths(columns.paths)
        covariates = columns.find_covariates(source.names, where=source.label)
        scores = _numeric_score_columns(source.names, columns)
        names = [name for name in covariates if name not in scores]
        source.missing = MISSING_TEXTS
        for chunk in source.chunks(scores, names):
            for name in names:
                texts = map(cell_to_text, chunk.values[name])
                mark = source.column_decimal_point(name)
                cells.setdefault(name, _ColumnCounts()).add(texts, mark)
            for name in scores:
                cells.setdefault(name, _ColumnCounts()).add_numbers(chunk.numbers[name])
    return {name: column.to_dict() for name, column in cells.items()}


def _numeric_score_columns(names: Sequence[str], columns: Columns) -> list[str]:
    """Return the names of the numeric score columns."""
    patterns = columns.split_option(columns.kind or "logits")
    are_numbers = columns.cell_form == "number"
    return [
        name
        for name in names
        if are_numbers and any(name == text or fnmatchcase(name, text) for text in patterns)
    ]


def card_column_statistics(card: Card) -> dict[str, dict[str, Any]]:
    """Return the column statistics of the test samples stored in a card; empty if there are none.

    Raises:
        InputError: If the statistics are invalid.
    """
    try:
        return read_column_statistics({} if card.columns is None else card.columns)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "the card must have valid column statistics",
            f"columns of {card.name} ({error_reason(error)})",
            "Write the card again: fedlas card VAL TEST --covariates COLUMNS.",
        ) from error


def read_column_statistics(content: object) -> dict[str, dict[str, Any]]:
    """Return validated column statistics, as :func:`column_statistics` returned them.

    Raises:
        KeyError, TypeError, ValueError: If values are missing, invalid or inconsistent.
    """
    if not isinstance(content, dict):
        raise TypeError("columns must be a JSON object")
    return {name: _read_statistics(name, column) for name, column in content.items()}


def _read_statistics(name: str, column: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(column, dict):
        raise TypeError(f"{name} must be a JSON object")
    rows = check_count("rows", column["rows"])
    shares = {part: column[part] for part in ("missing", "texts", "rare") if part in column}
    if "mean" in column or "numbers" in column:
        if check_count("numbers", column["numbers"]) > rows:
            raise ValueError(f"{name} has {column['numbers']} numbers in {rows} rows")
        for part, low in (("mean", -_MAX_NUMBER), ("most", -_MAX_NUMBER), ("sd", 0.0)):
            # JSON integers may be too large for an array.
            column = {**column, part: check_number(part, column[part], low=low, high=_MAX_NUMBER)}
        shares["share_of_most"] = column["share_of_most"]
    for part, share in {"missing": column["missing"], **shares}.items():
        check_number(part, share, low=-_TOLERANCE, high=1 + _TOLERANCE)
    if "shares" in column or "rare" in column:
        parts = [*dict(column["shares"]).values(), column.get("rare", 0.0)]
        total = sum(check_number("share", share, low=-_TOLERANCE, high=1) for share in parts)
        if abs(total - column["texts"]) > _TOLERANCE:
            raise ValueError(f"the category shares of {name} must add up to the share of text")
    if "buckets" in column:
        if len([check_count("runs", runs, low=0) for runs in column["buckets"]]) != _NUM_BUCKETS:
            raise ValueError(
                f"{name} has {len(column['buckets'])} buckets instead of {_NUM_BUCKETS}"
            )
        check_count("names", column["names"])
    return dict(column)


def find_drift(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], period: str = ""
) -> list[ColumnDrift]:
    """Return the drift of each column that is in both statistics, from ``before`` to ``now``."""
    return [
        ColumnDrift(period, name, change)
        for name, column in now.items()
        if name in before
        for change in _describe_changes(before[name], column)
    ]


def check_comparable_columns(
    before: Mapping[str, Any], now: Mapping[str, Any], patterns: Sequence[str]
) -> None:
    """Raise InputError if a column that matches ``patterns`` is missing in ``before``.

    Raises:
        InputError: If the card lacks a column.
    """
    lacking = [
        name
        for name in now
        if name not in before and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if lacking:
        raise InputError(
            "the card must have statistics of the columns of --covariates",
            f"a card without {truncated_list(lacking)}",
            "Write the card with --covariates, or add --history to compare with the first period.",
        )


def _describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    texts = (before.get("texts", 0.0), now.get("texts", 0.0))
    is_number = before.get("numbers", 0) >= before["rows"] * texts[0]
    if is_number and "mean" in before and "mean" in now:
        changes += _describe_mean_change(before, now)
    if _shares_differ(before, now, (before["missing"], now["missing"]), SHARE_DRIFT):
        changes.append(f"is missing in {100 * now['missing']:.0f} % of rows")
    if not is_number:
        texts = (1 - before["missing"] - texts[0], 1 - now["missing"] - texts[1])
    if "texts" in before and "texts" in now and _shares_differ(before, now, texts, SHARE_DRIFT):
        what = "no number" if is_number else "a number"
        changes.append(f"is {what} in {_format_share_change(texts)}")
    if "shares" in before and not is_number:
        changes += _describe_category_changes(before, now)
    return changes


def _describe_mean_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a description of the mean change, or of a former constant that varies; empty if there is no drift."""
    gap = now["mean"] - before["mean"]
    if before["sd"] > 0:
        error = math.sqrt(before["sd"] ** 2 / before["numbers"] + now["sd"] ** 2 / now["numbers"])
        is_drift = abs(gap) > max(MEAN_DRIFT * before["sd"], _MIN_STANDARD_ERRORS * error)
        return [f"moved by {gap / before['sd']:+.1f} sd"] if is_drift else []
    changed_share = 1 - now["share_of_most"]
    if now["most"] != before["mean"]:
        # At most as many rows have the former constant as the most frequent number.
        changed_share = max(0.5, changed_share)
    if not _shares_differ(before, now, (0.0, changed_share), NEW_CATEGORY_DRIFT):
        return []
    share = f"{100 * changed_share:.0f} % of rows or more"
    return [f"was {before['mean']:g} in every row and is another number in {share}"]


def _describe_category_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return descriptions of changed category shares, new categories, and changes among rare categories."""
    shares: Mapping[str, float] = before["shares"]
    current_shares: Mapping[str, float] = now.get("shares", {})
    is_open = "rare" in before
    if is_open or "rare" in now:
        shares = _frequent_categories(before)
    pairs = {text: (share, current_shares.get(text, 0.0)) for text, share in shares.items()}
    if is_open:
        share_bounds = {
            text: before["shares"].get(text, _RARE_SHARE)
            for text in current_shares
            if text not in shares
        }
        pairs |= {
            text: (share, current_shares[text])
            for text, share in share_bounds.items()
            if current_shares[text] > share
        }
    changes = [
        f"is {text!r} in {_format_share_change(pair, 'at most ' * (text not in before['shares']))}"
        for text, pair in pairs.items()
        if _shares_differ(before, now, pair, SHARE_DRIFT)
    ]
    new = {text: share for text, share in current_shares.items() if text not in before["shares"]}
    if not is_open and _shares_differ(before, now, (0.0, sum(new.values())), NEW_CATEGORY_DRIFT):
        changes.append(
            f"has new categories in {100 * sum(new.values()):.0f} % of rows: {truncated_list([*new], 4)}"
        )
    if is_open or "rare" in now:
        others = (
            before["texts"] - sum(shares.values()),
            now["texts"] - sum(current_shares.get(text, 0.0) for text in shares),
        )
        if _shares_differ(before, now, others, SHARE_DRIFT):
            changes.append(f"is one of the rare categories in {_format_share_change(others)}")
    runs = sum(before.get("buckets", ()))
    # If rare categories were dropped, `names` is a lower bound.
    if not changes and runs >= _MIN_RUNS_PER_CATEGORY * before.get("names", runs + 1):
        share = _changed_rare_share(before, now, [*shares])
        if share > SHARE_DRIFT:
            changes.append(f"has other rare categories in {100 * share:.0f} % of rows or more")
    return changes


def _changed_rare_share(
    before: Mapping[str, Any], now: Mapping[str, Any], frequent_names: Sequence[str]
) -> float:
    """Return a lower bound on the share of rows whose rare categories changed, or 0 if within chance.

    The buckets of rare categories are compared by a chi-squared test; a run of equal rows counts once.
    """
    counts = np.zeros((2, _NUM_BUCKETS))
    for place, column in enumerate((before, now)):
        counts[place] = column.get("buckets", 0.0)
        for text, share in column.get("shares", {}).items() if "buckets" not in column else ():
            counts[place, _hash_bucket(text)] += share * column["rows"]
    counts[:, [_hash_bucket(text) for text in frequent_names]] = 0.0
    totals = counts.sum(axis=1, keepdims=True)
    while counts.shape[1] > 2 and totals.min() < _MIN_BUCKET_ROWS * counts.shape[1]:
        counts = counts.reshape(2, 2, -1).sum(axis=1)
    counts = counts[:, counts.sum(axis=0) > 0]
    degrees = counts.shape[1] - 1
    if totals.min() < 1.0 or degrees < 1:
        return 0.0
    # Two-sample chi-squared statistic; its cube root is nearly normal (Wilson-Hilferty).
    shares = counts / totals
    variance = counts.sum(axis=0) / totals.sum() * (1.0 / totals).sum()
    statistic = float(((shares[0] - shares[1]) ** 2 / variance).sum())
    spread = 2.0 / (9.0 * degrees)
    if (statistic / degrees) ** (1 / 3) - 1.0 + spread <= _MIN_STANDARD_ERRORS * math.sqrt(spread):
        return 0.0
    by_chance = float(np.sqrt(2.0 / math.pi * variance).sum())
    gap = 0.5 * (float(np.abs(shares[0] - shares[1]).sum()) - by_chance)
    return float(
        gap * (now["texts"] - sum(now["shares"].get(text, 0.0) for text in frequent_names))
    )


def _frequent_categories(column: Mapping[str, Any]) -> dict[str, float]:
    """Return the shares of the categories frequent enough to be watched individually."""
    # Twice the threshold of a rare category, so that a small decrease does not make it rare.
    fewest = max(2 * _RARE_SHARE, _MIN_CATEGORY_ROWS / column["rows"])
    return {text: share for text, share in column["shares"].items() if share >= fewest}


def category_limits(columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a known limit, as a sentence, for each column with too many categories to watch individually."""
    return [
        f"{name} has more than {MAX_VALUES} categories. Those in less than {200 * _RARE_SHARE:.0f} % of the rows, "
        f"{100 * (column['texts'] - sum(_frequent_categories(column).values())):.0f} % in total, are watched only as a "
        "group, so a few new categories are not detected."
        for name, column in columns.items()
        if "rare" in column
    ]


def _format_share_change(shares: tuple[float, float], qualifier: str = "") -> str:
    """Return the current and the previous share as text, such as ``"10 % of rows, before in 5 %"``."""
    return f"{100 * shares[1]:.0f} % of rows, before in {qualifier}{100 * shares[0]:.0f} %"


def _shares_differ(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    shares: tuple[float, float],
    min_change: float,
) -> bool:
    """Return whether two shares ``(before, now)`` differ by more than ``min_change`` and by more than chance."""
    share = min(1.0, max(shares))
    error = math.sqrt(share * (1 - share) * (1 / before["rows"] + 1 / now["rows"]))
    return abs(shares[1] - shares[0]) > max(min_change, _MIN_STANDARD_ERRORS * error)
