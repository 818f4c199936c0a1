"""The steps of a study on disk: a trial begins, a trial ends."""

from __future__ import annotations

from fedlas._core.files import remove
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import Trial, best_of, load_trials, save_trial
from fedlas.lab.tune.sampler import draw
from fedlas.lab.tune.space import Method

__all__ = ["begin", "drop_checkpoints", "end", "ended_trials"]


def begin(tuning: Tuning, method: Method, number: int) -> Trial:
    """The trial of a number: from disk if it ended or was drawn before a stop, else drawn now."""
    trials = load_trials(tuning, method)
    if number < len(trials):
        return trials[number]
    trial = Trial(number, draw(tuning, method, trials))
    save_trial(tuning, method, trial)
    return trial


def end(tuning: Tuning, method: Method, trial: Trial, *, keep: bool) -> None:
    """Keep what a trial came to, and of the checkpoints only the best trial's unless ``keep`` says so."""
    save_trial(tuning, method, trial)
    if not keep:
        drop_checkpoints(tuning, method)


def drop_checkpoints(tuning: Tuning, method: Method) -> None:
    """Remove the checkpoints of all ended trials but the best; logs and numbers stay."""
    trials = ended_trials(tuning, method)
    best = best_of(tuning, trials)
    for other in trials:
        if best is None or other.number != best.number:
            for checkpoint in tuning.trial_folder(method, other.number).glob(f"s*/{RunFolder.checkpoint_path}"):
                remove(checkpoint, inside=tuning.folder)


def ended_trials(tuning: Tuning, method: Method) -> list[Trial]:
    """A method's trials that have ended, in order."""
    return [trial for trial in load_trials(tuning, method) if trial.ended]
