"""Metrics of a run, before and after temperature scaling, and a summary of its training alarms."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.log import alarm_epochs
from fedlas.metrics import METRICS, evaluate
from fedlas.predictions import Predictions


def measure_predictions(
    val: Predictions | None, test: Predictions, *, num_bins: int = 15
) -> dict[str, Any]:
    """Return the metrics before and after temperature scaling, which is fitted to ``val`` by NLL.

    Returns:
        ``temperature`` (NLL optimum), ``temperature_ece`` (grid, for parity with published tables), ``notes``
        (warnings of the fits), and the metrics ``val``, ``test``, ``test_calibrated``. Without ``val`` the
        temperatures are None, and ``val`` and ``test_calibrated`` are empty.
    """
    if val is None:
        unknown: dict[str, Any] = {
            "temperature": None,
            "temperature_ece": None,
            "notes": [],
            "val": {},
        }
        return {**unknown, "test": default_metrics(test, num_bins), "test_calibrated": {}}
    scaling, notes = fit_with_notes(TemperatureScaling(), val)
    grid, more = fit_with_notes(TemperatureScaling(objective="ece", num_bins=num_bins), val)
    return {
        "temperature": scaling.temperature,
        "temperature_ece": grid.temperature,
        "notes": [*notes, *more],
        "val": default_metrics(val, num_bins),
        "test": default_metrics(test, num_bins),
        "test_calibrated": default_metrics(scaling.transform(test), num_bins),
    }


def default_metrics(predictions: Predictions, num_bins: int = 15) -> dict[str, float]:
    """Return the default metrics and AURC, which shows if calibration costs ranking quality."""
    return {**evaluate(predictions, num_bins=num_bins), "aurc": METRICS["aurc"].value(predictions)}


def summarize_alarms(runs: Sequence[Run], folder: Path) -> list[str]:
    """Return one line on the most frequent gate or indicator alarm after the warm-up; empty without alarms.

    Args:
        runs: Finished runs.
        folder: Folder of the run, or of all runs of a bench.
    """
    names: list[str] = []
    kinds = Counter[str]()
    for run in runs:
        epochs = run.recipe.train.epochs
        warmup = run.recipe.schedule.warmup_epochs
        by_kind = alarm_epochs(RunFolder(run.folder).log, epochs=epochs, warmup_epochs=warmup)
        names += [run.name] * bool(by_kind)
        kinds.update(by_kind.keys())
    if not names:
        return []
    ((kind, count),) = kinds.most_common(1)
    meaning = _GATE_ALARM if kind.startswith("gate") else _INDICATOR_ALARM
    command = shlex.join(["fedlas", "runs", "diagnose", str(folder), "--details"])
    return [f"Alarms in {format_runs(names)}, mostly {kind!r} ({count}): {meaning}; {command}"]


_GATE_ALARM = (
    "the gate smooths nearly all samples in one direction, like label smoothing; compare with ls"
)
_INDICATOR_ALARM = (
    "the indicator's running mean does not fit held-out samples yet, so strengths are unreliable; train longer, or "
    "lower the learning rate"
)
"""Meaning of an alarm of the gate, and of one of the indicator, and what to do."""


def format_runs(names: Sequence[str]) -> str:
    """Return the name of the only run, or the number of runs, such as ``3 runs``."""
    return names[0] if len(names) == 1 else f"{len(names)} runs"
