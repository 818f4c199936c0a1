"""One trial on disk: ``trial.json`` in its folder, which is all that the study knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import read_json, write_json
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.space import Method

DRAWN, DONE, FAILED = "drawn", "done", "failed"
_FILE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """One setting of one method.

    Attributes:
        number: Counted from 0, the preset.
        params: Value of each parameter.
        state: ``drawn`` (its runs are not over), ``done`` or ``failed``.
        value: The objective, the mean over the seeds; None unless done.
        seeds: What each seed's run came to: ``value``, ``epoch`` (the one selected), ``seconds``.
        seconds: Training time of all its runs, over all starts.
        reason: What it died of, if it failed.
        start: Which entry of ``environment.json`` it ended under, counted from 0.
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
        """Whether it is the recipe's own setting."""
        return self.number == 0

    @property
    def ended(self) -> bool:
        """Whether its runs are over."""
        return self.state != DRAWN


def save_trial(tuning: Tuning, method: Method, trial: Trial) -> None:
    """Write it, whole or not at all."""
    write_json(tuning.trial_folder(method, trial.number) / _FILE, asdict(trial))


def load_trials(tuning: Tuning, method: Method) -> list[Trial]:
    """The method's trials so far, in order; the last one may be under way.

    Raises:
        InputError: If one cannot be read.
    """
    trials: list[Trial] = []
    while (path := tuning.trial_folder(method, len(trials)) / _FILE).exists():
        trials.append(_read(path, len(trials)))
    return trials


def best_of(tuning: Tuning, trials: Sequence[Trial]) -> Trial | None:
    """The best trial that is done, of equals the first; None if none is."""
    best, highest = None, None
    for trial in trials:
        if trial.value is not None and (highest is None or tuning.goal.better(trial.value, highest)):
            best, highest = trial, trial.value
    return best


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
    fix = "Remove the folder of this trial and of those after it, and they are done again."
    raise InputError("fedlas tune", "trial.json must be what an earlier start wrote", got, fix)
