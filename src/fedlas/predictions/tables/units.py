"""Units of table columns: percent signs, decimal mark, and range of values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fedlas._core.check import InputError, truncated_list

if TYPE_CHECKING:
    from fedlas.predictions.tables.cells import TableChunk

_MARKS = {".": "a decimal point", ",": "a decimal comma"}
_RARE = 1e-6
"""Probability below which percentages that are all at most 1 are taken for fractions."""
_ALIKE = "Write the table as for the fit, or fit the calibration to a table like this one."


@dataclass
class Units:
    """Units of numeric columns, learned from rows or fixed by a fit with which other tables are compared.

    Args:
        percent: By column, whether its numbers have percent signs.
        decimal: The decimal mark of a text file, ``"."`` or ``","``; None if its first rows show none.
        ranges: By column, the lowest and highest value; probabilities have none, since theirs is known.
        small: Share of scores of at most 1, where they are percentages by an option.
        of_fit: Whether these are the units of a fit, which other rows must have.
        known: Whether the units of the fit are known; files of the first versions do not hold them.

    State:
        ``outside`` counts, by column, values farther outside the fit's range than the range is wide.
    """

    percent: dict[str, bool] = field(default_factory=dict)
    decimal: str | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    small: float | None = None
    of_fit: bool = False
    known: bool = True
    outside: Counter[str] = field(default_factory=Counter, compare=False)
    _sizes: Counter[str] = field(default_factory=Counter, compare=False)

    def learn_decimal_mark(self, mark: str | None, where: str) -> None:
        """Record the decimal mark of a table; raise InputError if it differs from the fit's.

        Raises:
            InputError: If the fit had another.
        """
        if self.of_fit and None not in (mark, self.decimal) and mark != self.decimal:
            raise InputError(
                f"numbers must have {_MARKS[self.decimal or '.']}, as in the fit",
                f"{_MARKS[mark or '.']} in {where}",
                _ALIKE,
            )
        self.decimal = self.decimal or mark

    def add(self, chunk: TableChunk, ranged: Collection[str]) -> None:
        """Record the percent signs of a chunk, and the value range of the columns ``ranged``.

        Raises:
            InputError: If a column has percent signs and had none before, or the reverse.
        """
        for name, is_percent in chunk.percent.items():
            if self.percent.setdefault(name, is_percent) != is_percent:
                before = "in the fit" if self.of_fit else "in earlier rows"
                signs = ("no percent signs", "percent signs")
                raise InputError(
                    f"column {name!r} must have {signs[not is_percent]}, as {before}",
                    f"{signs[is_percent]} in {chunk.file}",
                    _ALIKE if self.of_fit else "Write all rows in the same unit.",
                )
        for name in ranged:
            values = chunk.numbers[name][np.isfinite(chunk.numbers[name])]
            if not len(values):
                continue
            low, high = self.ranges.get(name, (np.inf, -np.inf))
            if self.of_fit and name in self.ranges:
                margin = max(high - low, 0.0)
                far = (values < low - margin) | (values > high + margin)
                self.outside[name] += int(far.sum())
            elif not self.of_fit:  # a column without a number in the fit has no range
                self.ranges[name] = min(low, float(values.min())), max(high, float(values.max()))

    def count_percentages(self, values: Any) -> None:
        """Count percentage scores, and how many are at most 1."""
        self._sizes["all"] += values.size
        self._sizes["small"] += int((values <= 1).sum())

    def finish(self, where: str) -> None:
        """Set the share of small percentages after the last row; raise InputError if they look like fractions.

        Raises:
            InputError: If all are at most 1, which those of the fit make improbable.
        """
        total = self._sizes["all"]
        if not self.of_fit:
            self.small = (self._sizes["small"] + 1) / (total + 2) if total else None
        elif self.small is not None and self._all_at_most_one and self.small**total < _RARE:
            raise InputError(
                "scores must be percentages, as in the fit",
                f"{total:,} numbers of at most 1 in {where}",
                "Multiply them by 100, or fit the calibration to a table like this one.",
            )

    @property
    def _all_at_most_one(self) -> bool:
        """Whether all percentages so far are at most 1."""
        return 0 < self._sizes["all"] == self._sizes["small"]

    def notes(self) -> list[str]:
        """Return notes on values that may be in another unit than the fit's."""
        lines = []
        if not self.known:
            lines.append(
                "The calibration was saved by an early version without units, so percent signs, decimal mark and range "
                "of values are not checked. Fit it again to have them checked."
            )
        far = [
            f"{name!r} ({count:,} values; fit: {self.ranges[name][0]:.4g} to {self.ranges[name][1]:.4g})"
            for name, count in self.outside.most_common()
            if count
        ]
        if far:
            lines.append(
                f"Values are far outside the range of the fit; check the unit of {truncated_list(far, 6)}."
            )
        if self.of_fit and self.small is not None and self._all_at_most_one:
            lines.append("All scores are at most 1 %; multiply them by 100 if they are fractions.")
        return lines

    def as_fit_units(self) -> Units:
        """Return a copy as the reference units of a fit, with all counts reset."""
        return replace(self, of_fit=self.known, outside=Counter(), _sizes=Counter())

    def to_dict(self) -> dict[str, Any] | None:
        """Return the units as a dict for JSON, or None if they are unknown."""
        if not self.known:
            return None
        return {
            "percent": sorted(name for name, is_percent in self.percent.items() if is_percent),
            "plain": sorted(name for name, is_percent in self.percent.items() if not is_percent),
            "decimal": self.decimal,
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "small": self.small,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any] | None) -> Self:
        """Return the units of a fit from a dict of :meth:`to_dict`; unknown units if ``content`` is None.

        Raises:
            ValueError: If it is something else.
        """
        if content is None:
            return cls(known=False)
        percent = {str(name): True for name in content["percent"]}
        percent |= {str(name): False for name in content["plain"]}
        ranges = {
            str(name): (float(low), float(high)) for name, (low, high) in content["ranges"].items()
        }
        decimal, small = content["decimal"], content["small"]
        if decimal not in (None, *_MARKS) or not (small is None or 0 < float(small) < 1):
            raise ValueError(
                "units must have a known decimal mark and a share of small values between 0 and 1"
            )
        return cls(percent, decimal, ranges, small, of_fit=True)
