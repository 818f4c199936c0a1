"""The trials of a study in worker processes, with the result of one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError, check_count
from fedlas._core.ranks import new_accelerator
from fedlas._core.threads import available_cores, limited_to
from fedlas.lab.data.readers.roots import ENVIRONMENT
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.threads import threads_for
from fedlas.lab.runs.workers import Worker, visible_gpus
from fedlas.lab.runs.workers import end as end_processes
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import Trial, load_trials
from fedlas.lab.tune.sampler import STARTUP, known_to
from fedlas.lab.tune.space import Method
from fedlas.lab.tune.steps import begin, end, ended_trials
from fedlas.lab.tune.trial import run_trial

__all__ = ["in_workers", "worker_count"]

RETRIES = 2
"""How often a trial whose process was killed resumes from its checkpoint."""


def worker_count(tuning: Tuning, workers: int | None) -> int:
    """Trials at a time.

    Args:
        tuning: The study.
        workers: The number; None is one a core where a run has one thread and there is no GPU, else one.

    Raises:
        InputError: If it is no whole number of at least 1, or above 1 in one of several processes of a launcher.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if workers is not None:
        count = check_count("fedlas tune", "workers", workers)
        if launched and count > 1:
            got = f"{count} in each of {os.environ['WORLD_SIZE']} processes of a launcher"
            raise InputError("fedlas tune", "workers must be 1 under a launcher", got, "Start it without the launcher.")
    else:
        threads = None if launched else threads_for(tuning.runs(tuning.methods[0], 0, {})[0])
        count = 1 if threads is None or visible_gpus() else max(1, available_cores() // threads)
    left = (method.trials(tuning.budget) - len(ended_trials(tuning, method)) for method in tuning.methods)
    # More would wait for the trials that theirs are drawn from.
    return min(count, max(1, sum(min(each, max(tuning.batch, STARTUP)) for each in left)))


@dataclass(frozen=True)
class _Job:
    """A trial, with what a process needs to do it in the same way."""

    tuning: Tuning
    method: Method
    trial: Trial
    start: int
    threads: int
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))
    place: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(
        default_factory=lambda: {key: os.environ[key] for key in (ENVIRONMENT,) if key in os.environ}
    )

    @property
    def key(self) -> tuple[str, int]:
        return self.method.name, self.trial.number


def in_workers(
    tuning: Tuning,
    count: int,
    start: int,
    *,
    keep: bool,
    ended: Callable[[Method, Trial, list[Trial]], None],
    after_round: Callable[[], Any],
) -> None:
    """Do every trial that has not ended, ``count`` at a time.

    A trial is drawn as soon as the trials that its draw depends on have ended, earlier rounds first. So its parameters
    are those of a study that does one trial after the other.

    Args:
        tuning: The study; its folder is prepared and locked.
        count: Trials at a time.
        start: Entry of ``environment.json`` for this start.
        keep: Keep the checkpoints of all trials.
        ended: Called with method, trial and all trials of the method when one has ended.
        after_round: Called after one more trial of each method.

    Raises:
        InputError: For the first error that is no divergence, or if a process was killed more than twice; the other
            trials are stopped, and resume when the study does.
    """
    gpus = visible_gpus()
    devices = [gpus[number % len(gpus)] if gpus else None for number in range(count)]
    workers = [Worker(tuning.folder, number, visible, _work) for number, visible in enumerate(devices)]
    threads = max(1, torch.get_num_threads() // count)  # a small model takes one, whatever there is
    tries: dict[tuple[str, int], int] = {}
    rounds = _rounds(tuning)
    try:
        while True:
            # Give each free worker the next trial that can be drawn.
            for worker in workers:
                given = {other.job.key for other in workers if other.job is not None}
                if worker.job is None and (drawn := _next(tuning, given)) is not None:
                    worker.give(_Job(tuning, *drawn, start, threads))
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                return

            # Collect what has ended. One whose process was lost has not, and is given again.
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection not in ready:
                    continue
                job, found = worker.job, worker.take()
                if isinstance(found, Exception):
                    raise found
                if not isinstance(found, Trial):
                    tries[job.key] = tries.get(job.key, 0) + 1
                    if tries[job.key] > RETRIES:
                        raise _killed(job, found, tries[job.key])
                    continue
                end(tuning, job.method, found, keep=keep)
                ended(job.method, found, load_trials(tuning, job.method))
            if (now := _rounds(tuning)) > rounds:
                rounds = now
                after_round()
    finally:
        end_processes([worker.process for worker in workers])


def _next(tuning: Tuning, given: set[tuple[str, int]]) -> tuple[Method, Trial] | None:
    """The trial of the earliest round that nobody does and that can be drawn; None if there is none."""
    found = {method.name: load_trials(tuning, method) for method in tuning.methods}
    for number in range(max(method.trials(tuning.budget) for method in tuning.methods)):
        for method in tuning.methods:
            trials = found[method.name]
            if number >= method.trials(tuning.budget) or number > len(trials) or (method.name, number) in given:
                continue
            if number < len(trials):  # begun before a stop, or lost with its process
                if not trials[number].ended:
                    return method, trials[number]
            elif all(trial.ended for trial in trials[: known_to(tuning, number)]):
                return method, begin(tuning, method, number)
    return None


def _rounds(tuning: Tuning) -> int:
    """Rounds in which every method has had its trial; a method with fewer trials than others has had all of its."""
    most = max(method.trials(tuning.budget) for method in tuning.methods)
    done = []
    for method in tuning.methods:
        trials, planned = load_trials(tuning, method), method.trials(tuning.budget)
        first = next((trial.number for trial in trials if not trial.ended), len(trials))
        done.append(most if first >= planned else first)
    return min(done)


def _work(job: _Job) -> Trial | Exception:
    """Do a trial in a worker."""
    try:
        os.chdir(job.place)
        os.environ.update(job.environment)
        sys.argv = list(job.command)
        accelerator, number = new_accelerator(), job.trial.number

        def label(run: Run) -> str:
            return f"{run.loss} trial {number} seed {run.seed}"

        with limited_to(job.threads):
            return run_trial(job.tuning, job.method, job.trial, accelerator, label=label, start=job.start)
    except InputError as error:
        return error
    except Exception as error:  # noqa: BLE001 - other errors may not survive the way to the other process
        expected = f"trial {job.trial.number} of {job.method.name} must run"
        return InputError(
            "fedlas tune", expected, f"{type(error).__name__}: {error}", "Correct it, and start it again."
        )


def _killed(job: _Job, how: str, times: int) -> InputError:
    expected = f"the process of trial {job.trial.number} of {job.method.name} must not be killed"
    fix = "It may have run out of memory: use fewer --workers. The same command resumes."
    return InputError("fedlas tune", expected, f"{how}, {times} times", fix)
