"""What runs were made with: commands and environments of their starts, configurations; and their logs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from fedlas.lab.runs.summary import Summary


def environment(starts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each key the distinct values over the starts, as text; several say that they differ."""
    merged: dict[str, dict[str, None]] = {}
    for start in starts:
        for key, value in _flat(start).items():
            if key != "command":
                merged.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in merged.items()}


def commands(starts: Iterable[Mapping[str, Any]]) -> list[str]:
    """The distinct commands of the starts, in their order."""
    found: dict[str, None] = {}
    for start in starts:
        command = start.get("command")
        if isinstance(command, list):
            command = shlex.join(map(str, command))
        if isinstance(command, str) and command.strip():
            found[command.strip()] = None
    return list(found)


def configurations(summary: Summary) -> dict[str, tuple[str, str]]:
    """For each method the name of its first run and the text of that run's ``config.yaml``, where there is one."""
    found: dict[str, tuple[str, str]] = {}
    for run in summary.runs:
        if run.loss not in found and (text := run.folder.text(run.folder.config_path)) is not None:
            found[run.loss] = (run.name, text.rstrip())
    return found


def history(summary: Summary) -> dict[str, list[Mapping[str, Any]]]:
    """The log records of all seeds of each method, as :func:`fedlas.plots.training_curves` takes them."""
    lines: dict[str, list[Mapping[str, Any]]] = {method: [] for method in summary.methods}
    for run in summary.runs:
        lines[run.loss] += run.folder.log
    return lines


_WORDS = {None: "unknown", True: "yes", False: "no"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= _flat(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _WORDS[item] if item is None or isinstance(item, bool) else _text(item)
    return found
