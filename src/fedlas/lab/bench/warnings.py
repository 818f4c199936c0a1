"""One line about the warnings of finished runs, with the command that shows them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.alarms import alarm_epochs


def alarms_of(runs: Sequence[Run], folder: Path) -> list[str]:
    """Return a line if gate or indicator raised alarms after the warm-up of finished runs; none without alarms.

    Args:
        runs: Finished runs.
        folder: Of the run, or of all runs of a bench.
    """
    names = []
    for run in runs:
        epochs, warmup = run.recipe.train.epochs, run.recipe.schedule.warmup_epochs
        if alarm_epochs(RunFolder(run.folder).log, epochs=epochs, warmup_epochs=warmup):
            names.append(run.name)
    command = shlex.join(["fedlas", "diagnose", str(folder), "--details"])
    return [f"Gate or indicator raised alarms in {_counted(names)}; look at them: {command}"] if names else []


def notes_of(runs: Sequence[Run]) -> list[str]:
    """Return a line if fits of finished runs warned; none without warnings."""
    names = [run.name for run in runs if RunFolder(run.folder).metrics.get("notes")]
    return [f"A fit warned in {_counted(names)}; the report lists it under the runs."] if names else []


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} runs"
