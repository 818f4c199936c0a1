"""What the finished runs of a bench warned of, in a line for each kind: a run's log and its page say more."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.alarms import alarm_epochs

_MOST = 3


def warnings_of(runs: Sequence[Run]) -> list[str]:
    """Alarms of gate and indicator, and warnings of the fits of the temperature.

    Args:
        runs: Finished runs.

    Returns:
        Nothing for runs without any; else a line for the alarms and one for each text of a fit.
    """
    alarms: dict[str, list[str]] = {}
    notes: dict[str, list[str]] = {}
    for run in runs:
        folder, recipe = RunFolder(run.folder), run.recipe
        raised = alarm_epochs(folder.log, epochs=recipe.train.epochs, warmup_epochs=recipe.schedule.warmup_epochs)
        for kind in raised:
            alarms.setdefault(kind, []).append(run.name)
        for note in folder.metrics.get("notes", ()):
            notes.setdefault(str(note), []).append(run.name)
    lines = [f"{note} ({_named(names)})" for note, names in notes.items()]
    if alarms:
        kinds = "; ".join(f"{kind} ({_named(names)})" for kind, names in alarms.items())
        lines.append(f"alarms: {kinds}. log.jsonl in each run's folder has every one; fedlas diagnose shows them.")
    return lines


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _MOST else f"{len(names)} runs"
