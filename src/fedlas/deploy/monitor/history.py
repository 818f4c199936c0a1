"""History of a monitored service: one record per period, such as a month, in a JSON file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, error_reason, truncated_list
from fedlas._core.files import read_json, remove, write_atomically, write_json
from fedlas._core.outputs import STANDARD_STREAM, json_kind
from fedlas._core.text import printable
from fedlas.deploy.monitor.columns import ColumnDrift, card_column_statistics, find_drift
from fedlas.deploy.monitor.period import Period
from fedlas.deploy.monitor.state import (
    FileDigest,
    clear_pending_periods,
    file_digests,
    read_pending_periods,
)
from fedlas.predictions.tables.files import Name, find_files, store_address
from fedlas.predictions.tables.formats.compression import data_stem

if TYPE_CHECKING:
    from fedlas.deploy.monitor.look import Monitor

FORMAT = "fedlas.history/1"
HISTORY = json_kind("a history of fedlas monitor", FORMAT)


class PeriodHistory:
    """Periods in a history file, to which one period is added or replaced; the caller must hold the lock.

    Args:
        path: History file, which need not exist yet.
        names: Files of the new period, as passed by the user.
        local_names: Local names of these files, see :func:`~fedlas.predictions.tables.files.local_copies`.
        name: Name of the period; empty to derive it from the file names. A period of the same name, or else of the
            same files, is replaced; otherwise the period is appended.
        state: State file of the stream, which counts the samples of earlier periods, or None.

    Attributes:
        periods: All periods; the new one only after :meth:`add`.
        has_recovered_periods: Whether periods of an interrupted call were recovered from the state.

    Raises:
        InputError: If the file is not a history, a file belongs to another period, or the state already counts the
            period.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[Name],
        local_names: Sequence[Name],
        name: str = "",
        state: Path | None = None,
    ) -> None:
        self.path = path
        self._state = state
        self.periods = read_history(path) if path.exists() else []
        self.has_recovered_periods = (
            state is not None and state.exists() and self._add_pending_periods(state)
        )
        if not name and STANDARD_STREAM in map(str, names):
            raise InputError(
                "with --history, a period read from standard input must have a name",
                STANDARD_STREAM,
                "Pass --period, such as 2026-05.",
            )
        # File names may contain any character, and are shown on a page and in a terminal.
        self._files = tuple(printable(str(file)) for file in _list_file_names(names, local_names))
        self._contents = file_digests(local_names)
        self._name = printable(name or " ".join(data_stem(Path(str(file))) for file in names))
        self._index = self._find_index(is_named=bool(name))
        if state is not None and state.exists() and self._index < len(self.periods):
            raise InputError(
                "with --state, the period must be new, because counted samples cannot be removed",
                f"{self.periods[self._index].period!r}, which is in {path}",
                f"To replace the period, leave out --state, or remove {state} and {path} and run all periods in order.",
            )

    def _add_pending_periods(self, state: Path) -> bool:
        """Add periods that the state counts but an interrupted call did not write; return whether there were any."""
        pending = read_pending_periods(state)
        present = {(period.period, period.contents) for period in self.periods}
        lacking = [each for each in pending if (each.period, each.contents) not in present]
        if lacking:
            self.periods += lacking
            write_history(self.path, self.periods)
        if pending:
            clear_pending_periods(state)
        return bool(lacking)

    def _find_index(self, *, is_named: bool) -> int:
        """Return the index of the period to replace (same files or same name), or the number of periods to append."""
        new = [content.digest for content in self._contents]
        names = [period.period for period in self.periods]
        place = names.index(self._name) if self._name in names else len(names)
        if not is_named:
            same = [sorted(period.contents) == sorted(new) != [] for period in self.periods]
            if any(same):
                place = same.index(True)
                self._name = names[place]
            elif place < len(names):
                raise InputError(
                    "the name of a period must be new, because its files differ",
                    f"{self._name!r}, in {self.path} for {truncated_list(self.periods[place].files)}",
                    "Pass --period with a new name, such as 2026-05, or with this name to replace the period.",
                )
        _check_no_duplicates(
            self._contents, self.periods[:place] + self.periods[place + 1 :], self.path
        )
        return place

    def add(
        self, watcher: Monitor, card_file: Path, columns: Mapping[str, Any]
    ) -> list[ColumnDrift]:
        """Add the period that a monitor has read, and return the drift of its columns; the file is not written.

        Args:
            watcher: Monitor that has read the files of the period.
            card_file: Card file, or its folder.
            columns: Result of :func:`~fedlas.deploy.monitor.columns.column_statistics`.
        """
        card = card_file / "card.json" if card_file.is_dir() else card_file
        content = {
            "period": self._name,
            "files": [*self._files],
            "contents": [content.digest for content in self._contents],
            "card": watcher.card.name,
            "digest": hashlib.sha256(card.read_bytes()).hexdigest()[:16],
            "made": watcher.card.date,
            **watcher.last_update,
            "alarms": watcher.alarm_names,
            "columns": columns,
            "columns_of_card": card_column_statistics(watcher.card),
        }
        new = Period.from_dict(content)
        self.periods[self._index :] = [new, *self.periods[self._index + 1 :]]
        # Periods of the same card are compared with the statistics of the card, not with those in the history.
        self.periods = [
            replace(each, columns_of_card=new.columns_of_card)
            if each.digest == new.digest
            else each
            for each in self.periods
        ]
        return [drift for drift in find_period_drift(self.periods) if drift.period == self._name]

    def write(self, watcher: Monitor) -> None:
        """Write the history and the state: both, or neither if one cannot be written.

        If the call is interrupted in between, the state keeps the period, and the next call adds it to the history.
        """
        if self._state is None:
            write_history(self.path, self.periods)
            return
        before = self._state.read_bytes() if self._state.exists() else None
        watcher.write_state(self._state, pending=[self.periods[self._index]])
        try:
            write_history(self.path, self.periods)
        except InputError:
            if before is None:
                remove(self._state, inside=self._state.parent)
            else:
                write_atomically(self._state, lambda file: file.write(before))
            raise
        clear_pending_periods(self._state)


def _list_file_names(names: Sequence[Name], local_names: Sequence[Name]) -> list[str]:
    """Return the file names that ``names`` and patterns match; files in remote stores keep their address."""
    result: list[str] = []
    for name, local in zip(names, local_names, strict=True):
        is_copy = str(name) == STANDARD_STREAM or store_address(name) is not None
        result += [str(name)] if is_copy else [str(file.path) for file in find_files([local])]
    return result


def _check_no_duplicates(
    contents: Sequence[FileDigest], others: Sequence[Period], path: Path
) -> None:
    """Raise InputError if a file, compared by content, is in another period or twice in this one."""
    fix = "Leave the file out, or pass exactly the files of that period to run it again."
    counted = {digest: other.period for other in others for digest in other.contents}
    for content in contents:
        period = counted.get(content.digest)
        if period or [each.digest for each in contents].count(content.digest) > 1:
            where = (
                f"with the same content as a file of {period!r} in {path}" if period else "twice"
            )
            raise InputError(
                "each file must be in only one period of a history, and only once",
                f"{content.name}, {where}",
                fix,
            )


def write_history(path: Path, periods: Sequence[Period]) -> None:
    """Write periods to a history file atomically."""
    write_json(path, {"format": FORMAT, "periods": [period.to_dict() for period in periods]})


def read_history(path: Path) -> list[Period]:
    """Return the periods in a history file.

    Raises:
        InputError: If the file is not a valid history.
    """
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"the format is {content['format']!r}")
        periods = [*map(Period.from_dict, content["periods"])]
        if len({period.period for period in periods}) < len(periods):
            raise ValueError("two periods have the same name")
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "--history must be a new file, or a history written by fedlas monitor",
            f"{path} ({error_reason(error)})",
            "Pass another file, or move this one.",
        ) from error
    return periods


def find_period_drift(periods: Sequence[Period]) -> list[ColumnDrift]:
    """Return the drift of each column and period, relative to the card or else to the first period of the card."""
    first: dict[str, dict[str, Any]] = {}
    result = []
    for period in periods:
        before = first.setdefault(period.digest, dict(period.columns_of_card))
        result += find_drift(before, period.columns, period.period)
        for name, column in period.columns.items():
            before.setdefault(name, column)
    return result
