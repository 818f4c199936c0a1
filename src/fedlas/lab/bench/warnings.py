"""What the finished runs of a bench warned of, each kind once: a run's own files say more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.alarms import alarm_epochs

_NAMED = 2


def alarms_of(runs: Iterable[Run]) -> list[str]:
    """A line about the alarms of gate and indicator after the warm-up of finished runs; none without alarms."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        epochs, warmup = run.recipe.train.epochs, run.recipe.schedule.warmup_epochs
        for kind in alarm_epochs(RunFolder(run.folder).log, epochs=epochs, warmup_epochs=warmup):
            kinds.setdefault(kind, []).append(run.name)
    return [f"Alarms: {', '.join(_counted(kinds))}. Each run's log.jsonl has every one."] if kinds else []


def notes_of(runs: Iterable[Run]) -> list[str]:
    """A line for each warning of the fits of finished runs; the report has them whole."""
    notes: dict[str, list[str]] = {}
    for run in runs:
        for note in RunFolder(run.folder).metrics.get("notes", ()):
            notes.setdefault(str(note).split(". ")[0].rstrip("."), []).append(run.name)
    return [f"{line}." for line in _counted(notes)]


def _counted(found: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{what} ({', '.join(runs) if len(runs) <= _NAMED else f'{len(runs)} runs'})" for what, runs in found.items()
    ]
