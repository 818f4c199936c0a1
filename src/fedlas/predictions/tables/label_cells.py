"""Cells of multi-label targets: each label is present, absent or unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import Argument, InputError, truncated_list
from fedlas._core.text import truncate
from fedlas._core.types import IntArray
from fedlas.predictions.class_names import parse_whole_number
from fedlas.predictions.multi_label import UNKNOWN
from fedlas.predictions.tables.cells import MISSING, TableChunk, cell_to_text
from fedlas.predictions.tables.names import strip_common_parts

if TYPE_CHECKING:
    from fedlas.predictions.tables.formats.format import Format
    from fedlas.predictions.tables.roles import Columns

_PRESENT = frozenset({"1", "true", "t", "yes", "y", "present", "positive"})
_ABSENT = frozenset({"0", "false", "f", "no", "n", "absent", "negative"})
_NO_ANSWER = frozenset({"", "-1", str(UNKNOWN), *(text.lower() for text in MISSING)})


def multi_label_reader(
    columns: Columns, scores: Mapping[str, str], source: Format, names: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, MultiLabelReader | None]:
    """Return the label names of a multi-label table and the reader of their cells; None for each if absent.

    Args:
        columns: Meaning of the columns.
        scores: Columns of the scores, with the part of each name that ``*`` stands for.
        source: What holds the cells.
        names: Names of the labels where their columns are not needed, or none for those of the scores; None: as the
            columns say.

    Raises:
        InputError: If labels and scores do not belong together, or there is a single one.
    """
    cells = None
    if columns.labels is not None:
        paired, label_names, is_by_order = columns.pair_labels(
            scores, source.names, where=source.label
        )
        names = names or label_names
        cells = MultiLabelReader([*paired.values()], paired if is_by_order else {})
    elif names == ():
        names = strip_common_parts(tuple(scores.values()))
    if names is not None and len(scores) < 2:
        raise InputError(
            "each of several labels must have a score column of its own",
            f"only {next(iter(scores))!r} in {source.label}",
            ("Name all score columns; for a single label use ", Argument("target"), "."),
        )
    return names, cells


class MultiLabelReader:
    """Reads the cells of label columns.

    Args:
        columns: Their names, in the order of the scores.
        paired_by_order: Label column of each score column, where no names agree and the order of the columns decides.

    State:
        How many labels are unknown, and how many cells are -1, 0 and 1.
    """

    def __init__(self, columns: Sequence[str], paired_by_order: Mapping[str, str]) -> None:
        self.columns = tuple(columns)
        self._paired_by_order = paired_by_order
        self._cells = 0
        self._unknown = 0
        self._minus = 0
        self._absent = 0

    def numbers(self, chunk: TableChunk) -> IntArray:
        """Return the targets ``(n, L)`` int64: 1 if present, 0 if absent, -100 if unknown.

        Raises:
            InputError: For anything else; row and column are named.
        """
        columns = [
            np.array(chunk.map_values(name, self._parse_label), dtype=np.int64)
            for name in self.columns
        ]
        target: IntArray = np.stack(columns, axis=1)
        self._cells += target.size
        self._absent += int((target == 0).sum())
        self._minus += int((target == -1).sum())
        target[target == -1] = UNKNOWN
        self._unknown += int((target == UNKNOWN).sum())
        return target

    def check(self, where: str) -> None:
        """Raise InputError if labels are only 1 and -1: -1 then most likely means absent, not unknown.

        Raises:
            InputError: Then.
        """
        if self._minus and not self._absent:
            raise InputError(
                "labels must be 1 (present), 0 (absent), or -1 or empty (unknown)",
                f"only 1 and -1 in {where}",
                "Write 0 for absent labels.",
            )

    def notes(self) -> list[str]:
        """Return notes on pairs that order decides, and on unknown labels."""
        pairs = [f"{score} with {label}" for score, label in self._paired_by_order.items()]
        lines = []
        if pairs:
            lines.append(
                f"No names of scores and labels agree; the order of the columns pairs {truncated_list(pairs)}."
            )
        if self._unknown:
            lines.append(f"{self._unknown:,} of {self._cells:,} labels are unknown and ignored.")
        return lines

    @staticmethod
    def _parse_label(value: Any, place: str) -> int:
        """Return 1, 0, -1 or -100 for a cell."""
        text = cell_to_text(value).lower()
        number = parse_whole_number(text)
        word = text if number is None else str(number)
        if word in _PRESENT:
            return 1
        if word in _ABSENT:
            return 0
        if word in _NO_ANSWER:
            return -1 if word == "-1" else UNKNOWN
        raise InputError(
            "label cells must be 1 (present), 0 (absent), or -1 or empty (unknown)",
            f"{truncate(repr(value), 60)} in {place}",
            ("Correct it, or name other columns by ", Argument("labels"), "."),
        )
