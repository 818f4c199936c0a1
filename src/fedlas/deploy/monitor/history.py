"""Periods of a monitored service, such as months: one row each, in a JSON file that a page shows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, reason
from fedlas._core.files import read_json, write_json
from fedlas._core.outputs import json_kind
from fedlas.deploy.monitor.columns import Drift, columns_of_card, drift_between
from fedlas.deploy.monitor.look import Monitor

FORMAT = "fedlas.history/1"
HISTORY = json_kind("a history of fedlas monitor", FORMAT)


def open_period(
    path: Path, files: Sequence[Path], name: str = "", state: Path | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Return the periods of a history and the place of a new one among them, before anything is watched.

    Args:
        path: The history; there may be none yet.
        files: Files of the period.
        name: Name of the period, whose place it takes; empty for that of the files. A new one comes last.
        state: State of the stream, if there is one, which counts the samples of the earlier periods.

    Raises:
        InputError: If the file is no history, a period of that name is of other files, or the state counts it.
    """
    row: dict[str, Any] = {
        "period": name or " ".join(file.stem for file in files),
        "files": [str(file) for file in files],
    }
    periods = read_history(path) if path.exists() else []
    names = [period["period"] for period in periods]
    if row["period"] not in names:
        return [*periods, row], len(periods)
    place = names.index(row["period"])
    earlier = periods[place].get("files", row["files"])
    if not name and [*map(os.path.realpath, earlier)] != [*map(os.path.realpath, files)]:
        raise InputError(
            "files of another period must have another name",
            f"{row['period']!r} in {path} of {', '.join(earlier)}",
            "Name this one by --period, such as 2026-05; to replace the other, by its name.",
        )
    if state is not None and state.exists():
        raise InputError(
            "with --state, a period must be new: its samples cannot be taken back",
            f"{row['period']!r}, which is in {path}",
            f"To replace it, leave out --state; or remove {state} and {path}, and run all periods in order.",
        )
    periods[place] = row
    return periods, place


def with_period(
    periods: Sequence[dict[str, Any]],
    place: int,
    watcher: Monitor,
    card_file: Path,
    columns: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return all periods of a history with what the monitor saw last.

    Args:
        periods: What :func:`open_period` returned.
        place: The place of the period that the monitor saw.
        watcher: What watched the files.
        card_file: The card, or its folder.
        columns: What :func:`~fedlas.deploy.monitor.columns.column_sums` returned.
    """
    card = card_file / "card.json" if card_file.is_dir() else card_file
    row = {
        **periods[place],
        "card": watcher.card.name,
        "digest": hashlib.sha256(card.read_bytes()).hexdigest()[:16],
        "made": read_json(card).get("made", {}).get("on", ""),
        **watcher.last_look,
        "alarms": watcher.content["alarms"],
        "columns": columns,
        "columns_of_card": columns_of_card(card_file),
    }
    return [*periods[:place], row, *periods[place + 1 :]]


def write_history(path: Path, periods: Sequence[Mapping[str, Any]]) -> None:
    """Write the periods of a history, atomically."""
    write_json(path, {"format": FORMAT, "periods": periods})


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the periods of a history.

    Raises:
        InputError: If the file is none.
    """
    fix = "Name another file, or move that one away."
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        return [dict(each) for each in content["periods"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        got = f"{path} ({reason(error)})"
        raise InputError(
            "--history must be a file that it wrote, or a new one", got, fix
        ) from error


def drifts(periods: Sequence[Mapping[str, Any]]) -> list[Drift]:
    """Return each drift of a column from its card, or else from the first period of the same card."""
    first: dict[str, dict[str, Any]] = {}
    result = []
    for row in periods:
        before = first.setdefault(row["digest"], dict(row.get("columns_of_card", {})))
        result += drift_between(before, row["columns"], row["period"])
        for name, column in row["columns"].items():
            before.setdefault(name, column)
    return result
