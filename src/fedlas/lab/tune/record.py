"""A trial on disk: ``trial.json`` in its folder, which holds all that the study knows about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import read_json, write_json
from fedlas.lab.train import merit
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.space import Method

__all__ = ["DONE", "DRAWN", "FAILED", "Trial", "best_of", "load_trials", "save_trial"]

DRAWN, DONE, FAILED = "drawn", "done", "failed"
_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """One setting of one method.

    Attributes:
        number: Number of the trial, counted from 0, which is the preset.
        params: Value of each parameter.
        state: ``drawn`` (its runs have not ended), ``done`` or ``failed``.
        value: The objective, averaged over the seeds; None unless done.
        seeds: Result of each seed's run: ``value``, ``epoch`` (the selected one), ``seconds``.
        seconds: Training time of all its runs, over all starts.
        reason: The error that ended it, if it failed.
        start: Entry of ``environment.json`` under which it ended, counted from 0.
    """

    number: int
    params: Mapping[str, Any]
    state: str = DRAWN
    value: float | None = None
    seeds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    start: int | None = None

    @property
    def is_preset(self) -> bool:
        """Whether the trial is the recipe's own setting."""
        return self.number == 0

    @property
    def ended(self) -> bool:
        """Whether its runs have ended."""
        return self.state != DRAWN


def save_trial(tuning: Tuning, method: Method, trial: Trial) -> None:
    """Write a trial atomically."""
    write_json(tuning.trial_folder(method, trial.number) / _FILE, asdict(trial))


def load_trials(tuning: Tuning, method: Method) -> list[Trial]:
    """The method's trials so far, in order. The last one may not have ended.

    Raises:
        InputError: If a trial cannot be read.
    """
    trials: list[Trial] = []
    while (path := tuning.trial_folder(method, len(trials)) / _FILE).exists():
        trials.append(_read(path, len(trials)))
    return trials


def best_of(tuning: Tuning, trials: Sequence[Trial]) -> Trial | None:
    """The best trial that is done, the first one among equals; None if none is done."""
    done = [(merit(tuning.goal.metric, trial.value), trial) for trial in trials if trial.value is not None]
    return max(done, key=lambda pair: pair[0], default=(0.0, None))[1]


def _read(path: Path, number: int) -> Trial:
    names = {f.name for f in fields(Trial)}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        got = f"{path} ({error})"
    else:
        got = str(path)
        if isinstance(content, dict) and content.keys() == names and content["number"] == number:
            return Trial(**content)
    fix = "Remove the folders of this trial and of those after it to do them again."
    raise InputError("fedlas tune", "trial.json must be what an earlier start wrote", got, fix)
