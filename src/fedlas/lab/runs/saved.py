"""What a run folder holds beside its numbers: command, environment, configuration, log, predictions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import is_file
from fedlas.lab.runs.environment import read_starts
from fedlas.lab.runs.folder import read_config
from fedlas.lab.runs.summary import FinishedRun, Summary
from fedlas.lab.train import read_log
from fedlas.predictions import Predictions

FILES = (
    "metrics.json",
    "log.jsonl",
    "config.yaml",
    "environment.json",
    "predictions/val.npz",
    "predictions/test.npz",
    "intervals.json",
)
"""Files of a run folder that a report links to, where they exist."""
_DEFAULT_BINS = 15


def environment(summary: Summary) -> dict[str, list[str]]:
    """For each key the distinct values over all starts of the finished runs, as text; several say that they differ."""
    merged: dict[str, dict[str, None]] = {}
    for start in _starts(summary):
        for key, value in _flat(start).items():
            if key != "command":
                merged.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in merged.items()}


def commands(summary: Summary) -> list[str]:
    """The distinct commands that made the finished runs, in the order of the runs and of their starts."""
    found: dict[str, None] = {}
    for start in _starts(summary):
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
        if run.loss not in found and (run.path / "config.yaml").is_file():
            found[run.loss] = (run.name, _read_text(run.path / "config.yaml").rstrip())
    return found


def history(summary: Summary) -> dict[str, list[Mapping[str, Any]]]:
    """The log records of all seeds of each method, as :func:`fedlas.plots.training_curves` takes them."""
    lines: dict[str, list[Mapping[str, Any]]] = {method: [] for method in summary.methods}
    for run in summary.runs:
        lines[run.loss] += read_log(run.path / "log.jsonl")
    return lines


def load_predictions(run: FinishedRun) -> Predictions | str:
    """The run's predictions on the test set, or why there are none."""
    path = run.path / "predictions" / "test.npz"
    if not is_file(path):
        return f"{run.name}: predictions/test.npz is missing"
    try:
        return Predictions.load(path)
    except InputError as error:
        return f"{run.name}: {error}"


def num_bins(run: FinishedRun) -> int:
    """Number of bins the run's metrics were computed with; 15, the default, where its configuration does not say."""
    train = (read_config(run.path) or {}).get("train")
    value = train.get("num_bins") if isinstance(train, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else _DEFAULT_BINS


def files(run: FinishedRun) -> list[str]:
    """Those of :data:`FILES` that the run has, relative to its folder."""
    return [name for name in FILES if is_file(run.path / name)]


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _starts(summary: Summary) -> list[dict[str, Any]]:
    return [start for run in summary.runs for start in read_starts(run.path / "environment.json")]


_WORDS = {None: "unknown", True: "yes", False: "no"}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    found: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= _flat(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _WORDS[item] if item is None or isinstance(item, bool) else _text(item)
    return found
