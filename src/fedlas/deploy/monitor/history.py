"""Periods of a monitored service, such as months: one row each, in a JSON file that a page shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, few, reason
from fedlas._core.files import read_json, remove, write_atomically, write_json
from fedlas._core.outputs import STANDARD, json_kind
from fedlas._core.text import printable
from fedlas.deploy.monitor.columns import Drift, columns_of_card, drift_between
from fedlas.deploy.monitor.look import Monitor
from fedlas.deploy.monitor.period import Period
from fedlas.deploy.monitor.state import Content, contents_of, forget_pending, take_pending
from fedlas.predictions.tables.files import Name, address_of, files_of
from fedlas.predictions.tables.formats.compression import stem_of

FORMAT = "fedlas.history/1"
HISTORY = json_kind("a history of fedlas monitor", FORMAT)


class PeriodHistory:
    """The periods in a file, and the place of a new one among them; the caller has locked it.

    Args:
        path: The file; there may be none yet.
        names: Files of the new period, as they were passed.
        here: Their names on this machine, see :func:`~fedlas.predictions.tables.files.local_names`.
        name: Name of the period, whose place it takes; empty for that of its files. A new one comes last, and the same
            files take their own place.
        state: State of the stream, if there is one, which counts the samples of the earlier periods.

    Attributes:
        periods: All periods, the new one only once it was added.
        is_completed: Whether periods were added that the state counted in a call that was stopped.

    Raises:
        InputError: If the file is no history, the period is of files of another one, or the state counts it.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[Name],
        here: Sequence[Name],
        name: str = "",
        state: Path | None = None,
    ) -> None:
        self.path = path
        self._state = state
        self.periods = read_history(path) if path.exists() else []
        self.is_completed = state is not None and state.exists() and self._complete(state)
        if not name and STANDARD in map(str, names):
            raise InputError(
                "with --history, a period from standard input must have a name",
                STANDARD,
                "Name it by --period, such as 2026-05.",
            )
        # Names of files may hold anything, and a page and a terminal show them.
        self._files = tuple(printable(str(file)) for file in _names_of(names, here))
        self._contents = contents_of(here)
        self._name = printable(name or " ".join(stem_of(Path(str(file))) for file in names))
        self._place = self._place_of(is_named=bool(name))
        if state is not None and state.exists() and self._place < len(self.periods):
            raise InputError(
                "with --state, a period must be new: its samples cannot be taken back",
                f"{self.periods[self._place].period!r}, which is in {path}",
                f"To replace it, leave out --state; or remove {state} and {path}, and run all periods in order.",
            )

    def _complete(self, state: Path) -> bool:
        """Add what the state counts since the call that counted it was stopped before it wrote here."""
        pending = take_pending(state)
        present = {(period.period, period.contents) for period in self.periods}
        lacking = [each for each in pending if (each.period, each.contents) not in present]
        if lacking:
            self.periods += lacking
            write_history(self.path, self.periods)
        if pending:
            forget_pending(state)
        return bool(lacking)

    def _place_of(self, *, is_named: bool) -> int:
        """Return the place of the new period: that of the same files or the same name, or else the last."""
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
                    "files of another period must have another name",
                    f"{self._name!r} in {self.path} of {few(self.periods[place].files)}",
                    "Name this one by --period, such as 2026-05; to replace the other, by its name.",
                )
        _check_counted_once(
            self._contents, self.periods[:place] + self.periods[place + 1 :], self.path
        )
        return place

    def add(self, watcher: Monitor, card_file: Path, columns: Mapping[str, Any]) -> list[Drift]:
        """Add what the monitor saw to the periods, and return the drift of its columns; nothing is written.

        Args:
            watcher: What watched the files.
            card_file: The card, or its folder.
            columns: What :func:`~fedlas.deploy.monitor.columns.column_sums` returned.
        """
        card = card_file / "card.json" if card_file.is_dir() else card_file
        content = {
            "period": self._name,
            "files": [*self._files],
            "contents": [content.digest for content in self._contents],
            "card": watcher.card.name,
            "digest": hashlib.sha256(card.read_bytes()).hexdigest()[:16],
            "made": watcher.card.date,
            **watcher.last_look,
            "alarms": watcher.alarmed,
            "columns": columns,
            "columns_of_card": columns_of_card(watcher.card),
        }
        new = Period.read(content)
        self.periods[self._place :] = [new, *self.periods[self._place + 1 :]]
        # The card says what its periods are compared with, whatever the history says.
        self.periods = [
            replace(each, columns_of_card=new.columns_of_card)
            if each.digest == new.digest
            else each
            for each in self.periods
        ]
        return [drift for drift in drifts(self.periods) if drift.period == self._name]

    def write(self, watcher: Monitor) -> None:
        """Write the periods and the state that counts the new one: both, or neither if one cannot be written.

        A call that is stopped in between leaves a state that holds the period until the next call has added it here.
        """
        if self._state is None:
            write_history(self.path, self.periods)
            return
        before = self._state.read_bytes() if self._state.exists() else None
        watcher.write_state(self._state, pending=[self.periods[self._place]])
        try:
            write_history(self.path, self.periods)
        except InputError:
            if before is None:
                remove(self._state, inside=self._state.parent)
            else:
                write_atomically(self._state, lambda file: file.write(before))
            raise
        forget_pending(self._state)


def _names_of(names: Sequence[Name], here: Sequence[Name]) -> list[str]:
    """Return the files of names and patterns, in stores as they are named there."""
    result: list[str] = []
    for name, local in zip(names, here, strict=True):
        is_copy = str(name) == STANDARD or address_of(name) is not None
        result += [str(name)] if is_copy else [str(file.path) for file in files_of([local])]
    return result


def _check_counted_once(contents: Sequence[Content], others: Sequence[Period], path: Path) -> None:
    """Check that no file is in two periods, or twice in one, by what it holds."""
    fix = "Leave it out; to run that period again, pass all of its files alone."
    counted = {digest: other.period for other in others for digest in other.contents}
    for content in contents:
        period = counted.get(content.digest)
        if period or [each.digest for each in contents].count(content.digest) > 1:
            where = f"of the same content as one of {period!r} in {path}" if period else "twice"
            raise InputError(
                "a file must be in one period of a history, and once",
                f"{content.name}, {where}",
                fix,
            )


def write_history(path: Path, periods: Sequence[Period]) -> None:
    """Write the periods of a history, atomically."""
    write_json(path, {"format": FORMAT, "periods": [period.plain() for period in periods]})


def read_history(path: Path) -> list[Period]:
    """Return the periods of a history.

    Raises:
        InputError: If the file is none, or holds what no monitor writes.
    """
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        periods = [*map(Period.read, content["periods"])]
        if len({period.period for period in periods}) < len(periods):
            raise ValueError("two periods of one name")
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "--history must be a file that it wrote, or a new one",
            f"{path} ({reason(error)})",
            "Name another file, or move that one away.",
        ) from error
    return periods


def drifts(periods: Sequence[Period]) -> list[Drift]:
    """Return each drift of a column from its card, or else from the first period of the same card."""
    first: dict[str, dict[str, Any]] = {}
    result = []
    for period in periods:
        before = first.setdefault(period.digest, dict(period.columns_of_card))
        result += drift_between(before, period.columns, period.period)
        for name, column in period.columns.items():
            before.setdefault(name, column)
    return result
