"""Policy for rows of a table without a score, and their count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedlas._core.check import Argument, InputError, check_choice, check_number

MissingPolicy = Literal["empty", "error"]
_SHOWN = 20
"""Rows that a note lists."""


@dataclass
class Missing:
    """Policy for rows without a score, and the count of such rows.

    Args:
        policy: ``"error"`` refuses the table; ``"empty"`` keeps the rows and leaves their calibrated cells empty.
        most: Largest share of such rows; None for any.

    State:
        ``count`` of such rows, and the ``first`` of them.

    Raises:
        InputError: For another policy, or a share that is not in [0, 1].
    """

    policy: MissingPolicy = "error"
    most: float | None = None
    count: int = field(default=0, init=False)
    first: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_choice("missing=", self.policy, ["empty", "error"])
        if self.most is not None:
            check_number("max_missing", self.most, low=0, high=1)
        if self.most is not None and self.policy == "error":
            raise InputError(
                (Argument("max_missing"), " requires ", Argument("missing", "empty")),
                Argument("missing", "error"),
                (
                    "Choose ",
                    Argument("missing", "empty"),
                    ", or leave ",
                    Argument("max_missing"),
                    " out.",
                ),
            )

    def add(self, rows: Sequence[int], file: str, *, several: bool) -> None:
        """Count rows without a score, given by their row numbers in a file."""
        self.count += len(rows)
        where = f" of {file}" if several else ""
        self.first += [f"{row:,}{where}" for row in rows[: _SHOWN - len(self.first)]]

    def check(self, rows: int, label: str) -> None:
        """Raise InputError if the table is empty, or too many rows or all rows lack a score.

        Raises:
            InputError: Then; the first of them are named.
        """
        if not rows:
            raise InputError(
                "the table must have at least one row", f"none in {label}", "Check the file."
            )
        if self.count == rows:
            raise InputError(
                "at least one row must have a score",
                f"none of {rows:,} in {label}",
                "Check the columns.",
            )
        if self.most is not None and self.count > self.most * rows:
            raise InputError(
                f"at most {100 * self.most:g} % of the rows may lack a score",
                f"{self.count:,} of {rows:,} ({100 * self.count / rows:.3g} %) in {label}: {self._rows()}",
                "Check these rows, or raise the limit.",
            )

    def notes(self, rows: int) -> list[str]:
        """Return a note with the count and the first of the rows without a score, or an empty list."""
        if not self.count:
            return []
        has, get = ("has", "gets") if self.count == 1 else ("have", "get")
        return [
            f"{self.count:,} of {rows:,} rows {has} no score and {get} empty calibrated cells: {self._rows()}."
        ]

    def _rows(self) -> str:
        more = self.count - len(self.first)
        end = f" and {more:,} more" if more else ""
        return f"row{'s' * (self.count > 1)} {', '.join(self.first)}{end}"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as a dict of plain values for JSON."""
        return {"count": self.count, "first": self.first}


def parse_share(text: str) -> float:
    """Return a share parsed from text such as ``1%`` or ``0.01``.

    Raises:
        ValueError: For other text.
    """
    text = text.strip()
    return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
