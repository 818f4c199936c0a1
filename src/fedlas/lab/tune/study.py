"""The trials of a study, round by round, so that every method has had the same budget whenever the study stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import remove_parts, write_json, write_text
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.terminal import say
from fedlas._core.yaml_text import read_yaml
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.claim import check_data, check_vacant, locked
from fedlas.lab.runs.data import data_fingerprint
from fedlas.lab.runs.environment import note_start
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.checkpoint import differences
from fedlas.lab.train.progress import duration
from fedlas.lab.tune.plan import STUDY, Tuning
from fedlas.lab.tune.record import Trial, best_of, load_trials
from fedlas.lab.tune.space import Method
from fedlas.lab.tune.steps import begin, drop_checkpoints, end, ended_trials
from fedlas.lab.tune.trial import run_trial
from fedlas.lab.tune.workers import in_workers, worker_count

__all__ = ["check_study", "run_study", "settings"]


def run_study(
    tuning: Tuning,
    *,
    console: Any,
    keep: bool = False,
    workers: int | None = 1,
    after_round: Callable[[], Any] = lambda: None,
) -> None:
    """Do every trial that has not ended.

    Args:
        tuning: From :func:`fedlas.lab.tune.plan.plan_tuning`.
        console: ``rich.console.Console`` for a line per trial.
        keep: Keep the checkpoints of all trials instead of those of each method's best trial.
        workers: Trials at a time; more than one are in processes of their own, and come to the same. None is one a core
            where the model is small and there is no GPU, else one.
        after_round: Called on the main process after one more trial of each method, under the folder's lock.

    Raises:
        InputError: If the folder holds another study, or a study on other data, or is in use; nothing changes then.
            Also for an error of a run, except a loss that is no longer finite, which ends only its trial.

    State:
        Everything is written to ``tuning.folder``. After a stop at any moment, the same call resumes the study.
    """
    accelerator = new_accelerator()
    on_main(accelerator, partial(check_study, tuning))
    fingerprint = data_fingerprint(tuning.runs(tuning.methods[0], 0, {})[0])  # an error of the data shows here
    with locked(tuning.folder, accelerator):
        # Round by round over the methods, so that a study that is stopped has spent the same on each.
        start = on_main(accelerator, partial(_open, tuning, fingerprint, accelerator.device, keep=keep))
        show = _Progress(tuning, console)
        count = worker_count(tuning, workers)
        if count > 1:
            in_workers(tuning, count, start, keep=keep, ended=show.ended, after_round=after_round)
            return
        for number in range(max(method.trials(tuning.budget) for method in tuning.methods)):
            # A round in which nothing was left to do writes nothing, so a finished study is only read.
            worked = False
            for method in tuning.methods:
                if number >= method.trials(tuning.budget):
                    continue
                trial = on_main(accelerator, partial(begin, tuning, method, number))
                if not trial.ended:
                    label = partial(show.label, number)
                    trial = run_trial(tuning, method, trial, accelerator, label=label, start=start)
                    on_main(accelerator, partial(end, tuning, method, trial, keep=keep))
                    worked = True
                    show.ended(method, trial, on_main(accelerator, partial(load_trials, tuning, method)))
            if worked:
                on_main(accelerator, after_round)


def check_study(tuning: Tuning) -> None:
    """Refuse a folder in which this study cannot continue; only reads.

    Raises:
        InputError: If the folder is a run's or has other content, or holds a study with another recipe, space,
            objective or seeds (every difference is named), with a method that is left out now, or with more trials than
            the budget.
    """
    old = _read(tuning.folder / STUDY)
    # A new study needs a folder that nothing else lives in.
    if old is None:
        if RunFolder(tuning.folder).config_path.exists():
            raise InputError(
                "fedlas tune", "--out must not be the folder of a run", tuning.folder, "Choose another one."
            )
        check_vacant("fedlas tune", tuning.folder, (RunFolder.lock_path.name, STUDY))
        return

    # Methods may be added, but those of the old study must be here, unchanged.
    new, before = tuning.config(), old.get("methods")
    before = before if isinstance(before, dict) else {}
    left_out = [f"{name}: tuned before, left out now" for name in before if name not in new["methods"]]
    shared = {name: space for name, space in new["methods"].items() if name in before}
    kept = {name: space for name, space in before.items() if name in shared}
    if found := [*differences({**old, "methods": kept}, {**new, "methods": shared}), *left_out]:
        raise InputError(
            "fedlas tune",
            "its folder must hold the same study",
            f"{tuning.folder}, which differs in {'; '.join(found)}",
            "Use the old settings to resume (--trials and --losses may grow), or another --out.",
        )
    for method in tuning.methods:
        done = sum(trial.ended for trial in load_trials(tuning, method))
        if done > method.trials(tuning.budget):
            expected = f"--trials must be at least the {done} that {method.name} has had in {tuning.folder}"
            raise InputError("fedlas tune", expected, tuning.budget, f"Write --trials {done}, or choose another --out.")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = read_yaml(path) if path.exists() else None
    except (OSError, ValueError) as error:
        raise InputError(
            "fedlas tune", f"{STUDY} must be readable YAML", f"{path} ({error})", "Choose another --out."
        ) from error
    return content if isinstance(content, dict) or content is None else {}


def _open(tuning: Tuning, fingerprint: dict[str, Any], device: Any, *, keep: bool) -> int:
    """Prepare the locked folder for this study; returns the number of earlier starts."""
    yaml = require("yaml", extra="bench")
    check_study(tuning)
    folder = RunFolder(tuning.folder)
    check_data(folder, fingerprint)
    trials = [tuning.trial_folder(method, n) for method in tuning.methods for n in range(method.trials(tuning.budget))]
    remove_parts(tuning.folder, *trials)
    write_text(tuning.folder / STUDY, yaml.safe_dump(tuning.config(), sort_keys=False))
    write_json(folder.data_path, fingerprint)
    for method in () if keep else tuning.methods:
        drop_checkpoints(tuning, method)  # an earlier start may have been stopped before it did
    starts = len(folder.starts)
    if any(len(ended_trials(tuning, method)) < method.trials(tuning.budget) for method in tuning.methods):
        note_start(tuning.folder, device, optuna=require("optuna", extra="tune").__version__)
    return starts


class _Progress:
    """Counts trials, prints the result of each, and estimates the time left, which the bars of runs show too."""

    def __init__(self, tuning: Tuning, console: Any) -> None:
        self.tuning, self.console = tuning, console
        self.total = sum(method.trials(tuning.budget) for method in tuning.methods)
        self.before = self.done = sum(len(ended_trials(tuning, method)) for method in tuning.methods)
        self.began = time.monotonic()

    def label(self, number: int, run: Run) -> str:
        """Text in front of a run's bar."""
        left = self.left()
        rest = "" if left is None else f", {left} left"
        return f"[{self.done + 1}/{self.total}{rest}] {run.loss} trial {number} seed {run.seed}"

    def left(self) -> str | None:
        """Estimated time for the other trials, from those of this start; None before the first."""
        if self.done == self.before:
            return None
        return duration((time.monotonic() - self.began) / (self.done - self.before) * (self.total - self.done))

    def ended(self, method: Method, trial: Trial, trials: list[Trial]) -> None:
        """Print the result of a trial that ended."""
        self.done += 1
        goal, best = self.tuning.goal, best_of(self.tuning, trials)
        head = f"[{self.done}/{self.total}] {method.name} trial {trial.number}{' (preset)' if trial.is_preset else ''}"
        if trial.value is None:
            text, style = f"{head}  failed: {trial.reason}", "red"
        else:
            better = best is not None and best.number != trial.number
            was = f"  best {goal.show(best.value)} in trial {best.number}" if best is not None and better else ""
            text, style = f"{head}  {goal.title} {goal.show(trial.value)}{was}  {settings(trial.params)}".rstrip(), None
        say(text, style=style, on=self.console)
        if (left := self.left()) and self.done < self.total:
            say(f"  about {left} for {self.total - self.done} more", style="dim", on=self.console)


def settings(params: Mapping[str, Any]) -> str:
    """Parameters as text, such as ``alpha 0.05, beta 4``."""
    return ", ".join(f"{key} {format(value, 'g' if isinstance(value, float) else '')}" for key, value in params.items())
