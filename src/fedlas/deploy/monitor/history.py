"""Periods of a monitored service, such as months: one row each, in a JSON file that a page shows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, reason
from fedlas._core.files import read_json, write_json
from fedlas.deploy.monitor.look import Monitor
from fedlas.predictions import Columns
from fedlas.predictions.cells import cell_text
from fedlas.predictions.read import open_source

FORMAT = "fedlas.history/1"
MOVED = 0.5
"""Standard deviations of the first period by which a column's mean moves before that is called drift."""
MISSING = 0.05
"""Change of the share of missing values that is called drift."""
_CERTAIN = 4.0
"""Standard errors that a drift must exceed too, so that few rows raise none."""


@dataclass(frozen=True)
class Drift:
    """A column that moved in a period, against the first period of the same card."""

    period: str
    column: str
    # In standard deviations; None for a change of the share that is missing.
    moved: float | None
    missing: float

    def __str__(self) -> str:
        if self.moved is not None:
            return f"{self.column} moved by {self.moved:+.1f} sd"
        return f"{self.column} is missing in {100 * self.missing:.0f} % of rows"


def column_sums(files: Sequence[Path], columns: Columns | None) -> dict[str, dict[str, float]]:
    """Return rows, missing values, mean and standard deviation of each column of covariates.

    Text counts as there and has no mean.

    Raises:
        InputError: If a column does not exist.
    """
    if columns is None or columns.covariates is None:
        return {}
    result: dict[str, dict[str, float]] = {}
    for file in files:
        source, _ = open_source(file, columns)
        names = columns.covariates_in(source.names, where=source.label)
        for chunk in source.chunks([], names):
            for name in names:
                sums = result.setdefault(
                    name, dict.fromkeys(("rows", "missing", "numbers", "sum", "squares"), 0.0)
                )
                for cell in chunk.values[name]:
                    _count(sums, cell_text(cell), source.decimal_point)
    return {name: _moments(sums) for name, sums in result.items()}


def _count(sums: dict[str, float], text: str, decimal_point: str) -> None:
    sums["rows"] += 1
    number = math.nan
    with suppress(ValueError):
        number = float(text.replace(decimal_point, ".").removesuffix("%"))
    if math.isfinite(number):
        sums["numbers"] += 1
        sums["sum"] += number
        sums["squares"] += number * number
    else:
        sums["missing"] += not text or text.lower() in ("nan", "none", "null")


def _moments(sums: Mapping[str, float]) -> dict[str, float]:
    count = sums["numbers"]
    moments = {"rows": sums["rows"], "missing": sums["missing"] / max(1.0, sums["rows"])}
    if count:
        mean = sums["sum"] / count
        moments |= {
            "mean": mean,
            "sd": math.sqrt(max(0.0, sums["squares"] / count - mean**2)),
            "numbers": count,
        }
    return moments


def open_period(
    path: Path, files: Sequence[Path], name: str = ""
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the other periods of a history and the beginning of a new one, before anything is watched.

    Args:
        path: The history; there may be none yet.
        files: Files of the period.
        name: Name of the period, whose place it takes; empty for that of the files.

    Raises:
        InputError: If the file is no history, or has a period of that name of other files.
    """
    row: dict[str, Any] = {
        "period": name or " ".join(file.stem for file in files),
        "files": [str(file) for file in files],
    }
    others = []
    for period in read_history(path) if path.exists() else []:
        if period["period"] != row["period"]:
            others.append(period)
        elif not name and period.get("files", row["files"]) != row["files"]:
            raise InputError(
                "files of another period must have another name",
                f"{row['period']!r} in {path} of {', '.join(period['files'])}",
                "Name this one by --period, such as 2026-05; to replace the other, by its name.",
            )
    return others, row


def add_period(
    path: Path,
    periods: tuple[list[dict[str, Any]], dict[str, Any]],
    watcher: Monitor,
    card_file: Path,
    columns: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Add what the monitor saw last to a history, and return all periods.

    Args:
        path: The history.
        periods: What :func:`open_period` returned.
        watcher: What watched the files.
        card_file: The card, or its folder.
        columns: What :func:`column_sums` returned.
    """
    others, row = periods
    card = card_file / "card.json" if card_file.is_dir() else card_file
    content = read_json(card)
    row = {
        **row,
        "card": watcher.card.name,
        "digest": hashlib.sha256(card.read_bytes()).hexdigest()[:16],
        "made": content.get("made", {}).get("on", ""),
        **watcher.last_look,
        "alarms": watcher.content["alarms"],
        "columns": columns,
    }
    everything = [*others, row]
    write_json(path, {"format": FORMAT, "periods": everything})
    return everything


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
    """Return each drift of a column from the first period of the same card."""
    first: dict[tuple[str, str], Mapping[str, float]] = {}
    result = []
    for row in periods:
        for name, now in row["columns"].items():
            before = first.setdefault((row["digest"], name), now)
            if before is not now:
                result += _drift(row["period"], name, before, now)
    return result


def _drift(
    period: str, name: str, before: Mapping[str, float], now: Mapping[str, float]
) -> list[Drift]:
    changes = []
    if "mean" in before and "mean" in now and before["sd"] > 0:
        gap = now["mean"] - before["mean"]
        error = math.sqrt(before["sd"] ** 2 / before["numbers"] + now["sd"] ** 2 / now["numbers"])
        if abs(gap) > max(MOVED * before["sd"], _CERTAIN * error):
            changes.append(Drift(period, name, gap / before["sd"], now["missing"]))
    gap = now["missing"] - before["missing"]
    share = max(before["missing"], now["missing"])
    error = math.sqrt(share * (1 - share) * (1 / before["rows"] + 1 / now["rows"]))
    if abs(gap) > max(MISSING, _CERTAIN * error):
        changes.append(Drift(period, name, None, now["missing"]))
    return changes
