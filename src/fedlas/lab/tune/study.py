"""The trials of a study, drawn and kept by optuna, and trained on the validation part alone."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn, cast

import torch

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import remove
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.streams import derive
from fedlas._core.terminal import say
from fedlas._core.threads import available_cores, limited_to
from fedlas.lab.data import Splits
from fedlas.lab.data.base import Part
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective, threads_for
from fedlas.lab.runs.claim import check_vacant, claim, locked
from fedlas.lab.runs.data import data_fingerprint, fingerprints, prepare_data
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.training import train_run, training_job
from fedlas.lab.runs.workers import Worker, end, visible_gpus
from fedlas.lab.train import DivergedError
from fedlas.lab.train.checkpoint import differences
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.space import Method, text_of
from fedlas.objective.predict import predict

__all__ = ["STORAGE", "load_studies", "run_study", "without_test"]

STORAGE = "optuna.log"
"""Journal file of optuna with a study for each method; ``optuna-dashboard`` opens it."""
_STARTUP = 5
"""Trials that are drawn uniformly before the sampler learns from earlier ones."""


@dataclass(frozen=True)
class _Job:
    """A trial, with what a worker process needs to train it."""

    tuning: Tuning
    method: Method
    number: int
    params: dict[str, Any]
    threads: int | None = None
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def name(self) -> str:
        return f"{self.method.name} trial {self.number}"

    @property
    def folder(self) -> Path:
        return self.tuning.trial_folder(self.method, self.number)


def run_study(tuning: Tuning, *, workers: int | None = 1) -> None:
    """Train the trials that have not ended. In each round every method has one, so that all have the same budget.

    Args:
        tuning: From :func:`fedlas.lab.tune.plan.plan_tuning`.
        workers: Trials at a time, in processes; None is one a core where the model is small and there is no GPU.

    Raises:
        InputError: If the folder holds another study or other files, or is in use; or for an error of a run. A loss
            that is no longer finite ends only its trial.

    State:
        ``tuning.folder`` gets optuna's journal and the logs of all runs. After a stop, the same call resumes the study;
        a trial that was stopped resumes from its last checkpoint.
    """
    accelerator = new_accelerator()
    example = tuning.runs(tuning.methods[0], 0, {})[0]
    data = data_fingerprint(example)  # an error in the data shows here
    threads = threads_for(example)
    if workers is None:
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        workers = 1 if threads is None or visible_gpus() or launched else max(1, available_cores() // threads)
    recipes = [path.name for path in tuning.folder.glob("best*.yaml")]
    names = [RunFolder.lock_path.name, STORAGE, "trials", ".workers", "bench", *recipes]
    on_main(accelerator, partial(check_vacant, "fedlas tune", tuning.folder, names))
    with locked(tuning.folder, accelerator):
        studies: dict[str, Any] = {}  # of the main process, which alone draws and keeps
        on_main(accelerator, lambda: studies.update(_open(tuning, data)))
        if workers > 1:
            _in_workers(tuning, studies, workers)
            return
        while (job := on_main(accelerator, partial(_next, tuning, studies))) is not None:
            with limited_to(threads):
                result = _train(job, accelerator)
            on_main(accelerator, partial(_tell, studies, job, *result))


def load_studies(tuning: Tuning) -> dict[str, Any]:
    """Return the ``optuna.Study`` of each method, by name; new ones where there are none."""
    optuna = require("optuna", extra="tune")
    direction = "maximize" if tuning.maximize else "minimize"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it prints a line for each study
    try:
        backend = optuna.storages.journal.JournalFileBackend(str(tuning.folder / STORAGE))
        storage = optuna.storages.JournalStorage(backend)
        return {
            method.name: optuna.create_study(
                study_name=method.name, storage=storage, direction=direction, load_if_exists=True
            )
            for method in tuning.methods
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{tuning.folder / STORAGE} ({error})"
        raise InputError(
            "fedlas tune", f"{STORAGE} must be a journal of optuna", got, "Choose another --out."
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open(tuning: Tuning, data: dict[str, Any]) -> dict[str, Any]:
    """Load the studies of a locked folder; refuse other settings, and forget trials that were not fully drawn."""
    states = require("optuna.trial", extra="tune").TrialState
    studies = load_studies(tuning)
    for method in tuning.methods:
        study, config = studies[method.name], {**tuning.config(method), "images": data}
        if changes := differences(study.user_attrs.get("config", config), config):
            got = f"{tuning.folder}, which differs for {method.name} in {'; '.join(changes)}"
            fix = "Use the old settings to resume (--trials and --losses may grow), or another --out."
            raise InputError("fedlas tune", "its folder must hold the same study", got, fix)
        study.set_user_attr("config", config)
        for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if "params" not in trial.user_attrs:
                study.tell(trial.number, state=states.FAIL)
    return studies


def _next(tuning: Tuning, studies: Mapping[str, Any], busy: Collection[str] = ()) -> _Job | None:
    """Return a trial that was stopped, else draw one of the method that has had the fewest; None if there is none."""
    states = require("optuna.trial", extra="tune").TrialState
    counts: dict[str, int] = {}
    for method in tuning.methods:
        trials = studies[method.name].get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == states.RUNNING and f"{method.name} trial {trial.number}" not in busy:
                return _Job(tuning, method, trial.number, trial.user_attrs["params"])
        counts[method.name] = sum(t.state in (states.COMPLETE, states.PRUNED, states.RUNNING) for t in trials)
    open_methods = [method for method in tuning.methods if counts[method.name] < method.trials(tuning.budget)]
    if not open_methods:
        return None
    return _draw(tuning, min(open_methods, key=lambda method: counts[method.name]), studies)


def _draw(tuning: Tuning, method: Method, studies: Mapping[str, Any]) -> _Job:
    """Draw a trial: first the preset, then each setting of a space that the budget covers, else as TPE suggests."""
    optuna, study = require("optuna", extra="tune"), studies[method.name]
    tried = [trial.user_attrs.get("params") for trial in study.get_trials(deepcopy=False)]
    space = dict(method.space)
    if method.preset not in tried:
        space = {key: domain for key, domain in space.items() if domain.contains(method.preset[key])}
        study.enqueue_trial({key: method.preset[key] for key in space})
    elif method.trials(tuning.budget) == method.trials(sys.maxsize):
        settings = (dict(zip(space, values, strict=True)) for values in product(*map(list, space.values())))
        study.enqueue_trial(next(setting for setting in settings if setting not in tried))
    # A seed for each draw, so that a resumed study does not repeat the draws of its first start.
    seed = derive(0, f"tune/{method.name}/{len(tried)}")
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, constant_liar=True)
    trial = study.ask({key: domain.distribution() for key, domain in space.items()})
    params = {**method.preset, **trial.params}
    trial.set_user_attr("params", params)
    return _Job(tuning, method, trial.number, params)


def _tell(studies: Mapping[str, Any], job: _Job, value: float | None, reason: str) -> None:
    """Give the value of a trial to optuna, print it, and remove its checkpoints."""
    study, states = studies[job.method.name], require("optuna.trial", extra="tune").TrialState
    study.tell(job.number, value, state=states.PRUNED if value is None else states.COMPLETE)
    for checkpoint in job.folder.glob(f"*/{RunFolder.checkpoint_path}"):
        remove(checkpoint, inside=job.tuning.folder)
    outcome = f"{job.tuning.title} {value:.4f}" if value is not None else f"diverged: {reason}"
    say(f"{job.name}  {outcome}  {text_of(job.params)}".rstrip(), stderr=True)


def _in_workers(tuning: Tuning, studies: Mapping[str, Any], count: int) -> None:
    """Train ``count`` trials at a time; one whose process is killed resumes in another process, at most twice."""
    gpus, lost = visible_gpus(), Counter[str]()
    threads = max(1, torch.get_num_threads() // count)
    workers = [Worker(tuning.folder, n, gpus[n % len(gpus)] if gpus else None, _work) for n in range(count)]
    try:
        while True:
            for worker in workers:
                busy = {other.job.name for other in workers if other.job is not None}
                if worker.job is None and (job := _next(tuning, studies, busy)) is not None:
                    worker.give(replace(job, threads=threads))
            ready = wait([worker.connection for worker in workers if worker.job is not None])
            for worker in workers:
                if worker.job is None or worker.connection not in ready:
                    continue
                job, result = worker.job, worker.take()
                if isinstance(result, InputError):
                    raise result
                if isinstance(result, tuple):
                    _tell(studies, job, *result)
                    continue
                lost[job.name] += 1
                if lost[job.name] > 2:
                    fix = "It may have run out of memory: use fewer --workers. The same command resumes."
                    raise InputError("fedlas tune", f"the process of {job.name} must not be killed", result, fix)
            if not any(worker.job for worker in workers) and _next(tuning, studies) is None:
                return
    finally:
        end([worker.process for worker in workers])


def _work(job: _Job) -> tuple[float | None, str] | InputError:
    """Train a trial in a worker process."""
    os.chdir(job.cwd)
    try:
        with limited_to(job.threads):
            return _train(job, new_accelerator())
    except InputError as error:
        return error
    except Exception as error:  # noqa: BLE001 - another error may not survive the way to the other process
        return InputError("fedlas tune", f"{job.name} must run", f"{type(error).__name__}: {error}", "Correct it.")


def _train(job: _Job, accelerator: Any) -> tuple[float | None, str]:
    """Train a trial with each seed; returns the mean objective, or None and the reason if a seed diverges."""
    values = []
    for run in job.tuning.runs(job.method, job.number, job.params):
        try:
            values.append(_value(run, job, accelerator))
        except DivergedError as error:
            return None, f"seed {run.seed}: {error}"
    return math.fsum(values) / len(values), ""


def _value(run: Run, job: _Job, accelerator: Any) -> float:
    """Train or resume a run, and return the objective of its best epoch on the validation part."""
    whole = prepare_data(run)
    splits = without_test(whole, accelerator.device)
    objective = build_objective(run, splits, rank=accelerator.process_index)
    on_main(accelerator, lambda: claim(run, fingerprints(run, whole)))
    training = training_job(run, objective, splits, accelerator)
    train_run(run, splits, replace(training, name=f"{job.name} seed {run.seed}"))
    value = job.tuning.value(predict(objective.model, training.val, device=accelerator.device))
    if not math.isfinite(value):
        fix = "Choose another --objective if that happens often."
        raise DivergedError("objective", f"{job.tuning.title} of the validation part must be a number", value, fix)
    return value


class _Sealed:
    """Replaces the test part. Every access is an error."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"tuning must not use the test part, and accessed its {name}")


def without_test(splits: Splits, device: Any) -> Splits:
    """Return splits on a device, with a sealed test part: every access to it raises an error."""
    train, val = splits.train.to(device), splits.val.to(device)
    return replace(splits, train=train, val=val, test=cast(Part, _Sealed()))
