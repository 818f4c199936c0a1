"""A study: planned and checked before it starts, its trials suggested and stored by optuna, its runs as of a bench."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError, check_count
from fedlas._core.extras import require
from fedlas._core.files import remove
from fedlas._core.ranks import new_accelerator, on_main
from fedlas._core.streams import derive
from fedlas._core.terminal import say
from fedlas.lab.recipes.plan import Run, plan
from fedlas.lab.recipes.recipe import Recipe, load_recipe, recipe_from
from fedlas.lab.recipes.text import apply_override, read_content
from fedlas.lab.runs.build import available_cores, limited_to, threads_for
from fedlas.lab.runs.claim import check_vacant, locked
from fedlas.lab.runs.data import data_fingerprint
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.forecast import forecast
from fedlas.lab.runs.workers import Worker, end, visible_gpus
from fedlas.lab.train.checkpoint import differences
from fedlas.lab.train.config import REFINED, check_select, merit, refined_nll
from fedlas.lab.train.loop import DivergedError
from fedlas.lab.tune.space import Method, is_recipe_key, methods_of, params_text, set_option
from fedlas.metrics import METRICS, evaluate
from fedlas.predictions import Predictions

__all__ = ["STORAGE", "Tuning", "dry_run_study", "load_studies", "plan_tuning", "run_study"]

STORAGE = "optuna.log"
"""Journal file of optuna with a study for each method; ``optuna-dashboard`` opens it."""
_STARTUP = 5
"""Trials that are sampled uniformly before the sampler learns from earlier ones."""


@dataclass(frozen=True)
class Tuning:
    """A study. Made by :func:`plan_tuning`.

    Attributes:
        source: Name or path of the recipe, as the user wrote it.
        content: Content of its file, with overrides applied.
        recipe: The recipe.
        methods: The tuned methods.
        seeds: Seeds that every trial is run with.
        budget: Trials of each method.
        objective: Metric of the validation part by which trials are compared, or ``refined_nll``.
        folder: Folder of the study.
        data: Folder of the data; None searches the usual places.
    """

    source: str
    content: dict[str, Any]
    recipe: Recipe
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    budget: int
    objective: str
    folder: Path
    data: str | None = None

    @property
    def title(self) -> str:
        """The objective in tables."""
        return "refined NLL" if self.objective == REFINED else str(METRICS[self.objective].metadata["title"])

    @property
    def maximize(self) -> bool:
        """True if a higher objective is better."""
        return merit(self.objective, 1.0) > merit(self.objective, 0.5)

    def value(self, val: Predictions) -> float:
        """Return the objective of validation predictions."""
        if self.objective == REFINED:
            return refined_nll(val)
        value = evaluate(val, num_bins=self.recipe.train.num_bins)[self.objective]
        return abs(value) if METRICS[self.objective].metadata["higher_is_better"] is None else value

    def runs(self, method: Method, number: int, params: Mapping[str, Any]) -> list[Run]:
        """Return the runs of a trial, one per seed.

        Raises:
            InputError: If the recipe or the loss does not accept these parameters.
        """
        recipe = recipe_from(self.recipe.name, self.content_with({method.name: params})).with_data_root(self.data)
        folder = self.folder / "trials" / method.name / f"{number:03d}"
        return plan(recipe, losses=[method.name], seeds=self.seeds, out=folder)

    def content_with(self, params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the content of the recipe's file with other parameters of some methods, by name."""
        content = copy.deepcopy(self.content)
        for loss, values in params.items():
            for key, value in values.items():
                if is_recipe_key(key):
                    section, _, name = key.partition(".")
                    content[section] = {**(content.get(section) or {}), name: value}
                else:
                    content["losses"] = content.get("losses") or {}
                    set_option(self.recipe, content["losses"], loss, key, value)
        return content

    def config(self, method: Method) -> dict[str, Any]:
        """Return plain values in which a resumed study of a method must not differ."""
        config = Run(self.recipe, method.name, self.seeds[0], self.folder).config()
        space = {key: domain.text for key, domain in method.space.items()}
        return {**config, "seed": list(self.seeds), "objective": self.objective, "space": space}


def plan_tuning(
    source: str,
    overrides: Sequence[str] = (),
    *,
    losses: Sequence[str] = (),
    trials: int = 20,
    objective: str = REFINED,
    seeds: Sequence[int] = (0,),
    space: Sequence[str] = (),
    out: Path | None = None,
    data: str | None = None,
) -> Tuning:
    """Plan a study, and check everything that can be checked before training.

    Args:
        source: Recipe of the package, or path of a ``.yaml`` file.
        overrides: ``key=value``, as ``--set`` takes them.
        losses: Losses of the recipe; empty means the recipe's methods.
        trials: Budget of each method, including the preset's trial.
        objective: Metric of the validation part, or ``refined_nll``.
        seeds: Seeds of every trial, at least one.
        space: Ranges, as :func:`fedlas.lab.tune.space.methods_of` takes them.
        out: Folder; None is ``runs/tune/RECIPE``.
        data: Folder of the data; None searches the usual places.

    Raises:
        InputError: For an argument that cannot be used, including a range with values that its loss does not accept.
    """
    check_count("fedlas tune", "trials", trials)
    try:
        objective = check_select(objective)
    except InputError as error:
        raise InputError("--objective", *error.parts[1:]) from None
    recipe = load_recipe(source, overrides).with_data_root(data)
    # The best settings are later written into the recipe's text, with the overrides.
    _, content = read_content(source)
    for override in overrides:
        apply_override(content, override)
    folder = out or Path("runs") / "tune" / recipe.name
    runs = plan(recipe, losses=losses, seeds=seeds, out=folder)
    methods = tuple(methods_of(recipe, list(dict.fromkeys(run.loss for run in runs)), space))
    tuning = Tuning(source, content, recipe, methods, tuple(seeds), trials, objective, folder, data)
    for method in methods:
        _check_space(tuning, method)
    return tuning


def _check_space(tuning: Tuning, method: Method) -> None:
    """Refuse a space with values that the recipe or the loss does not accept: it would end a trial hours later."""
    # The recipe's other losses are checked already: a trial builds every loss that its recipe names.
    losses = tuning.content.get("losses") or {}
    tuning = replace(tuning, content={**tuning.content, "losses": {k: losses[k] for k in losses if k == method.name}})
    # The ends of each range alone, and the corners that all ends make together.
    settings: list[dict[str, Any]] = [{key: v} for key, domain in method.space.items() for v in domain.probes]
    settings += [{key: domain.probes[end] for key, domain in method.space.items()} for end in (0, -1)]
    for params in settings:
        try:
            tuning.runs(method, 0, params)
        except InputError as error:
            shown = ", ".join(f"{key} {value!r}" for key, value in params.items())
            raise InputError(
                "--space",
                f"every value of {method.name}'s ranges must be accepted",
                f"at {shown}: {str(error).rstrip('.')}",
                f"Narrow it: --space {method.name}.{next(iter(params))}=LOW:HIGH, with :int for whole numbers.",
            ) from error


def dry_run_study(tuning: Tuning) -> None:
    """Print what a study would do: the space, trials, runs and steps of every method."""
    seeds, epochs = len(tuning.seeds), tuning.recipe.train.epochs
    counts = f"{tuning.budget} trials x {seeds} seed{'s' * (seeds != 1)} x {epochs} epochs"
    say(f"{tuning.recipe.name}: {counts} for each method, {tuning.title}")
    for method in tuning.methods:
        runs = method.trials(tuning.budget) * seeds
        steps = forecast(tuning.runs(method, 0, {})[0]).steps
        ahead = "" if steps is None else f", about {runs * steps:,} steps"
        say(f"  {method.name}: {runs} run{'s' * (runs != 1)}{ahead}")
        say(*(f"    {key}: {domain.text}, preset {method.preset[key]}" for key, domain in method.space.items()))
    say(f"results in {tuning.folder}")


@dataclass(frozen=True)
class _Job:
    """A trial, with everything that a worker process needs to run it."""

    tuning: Tuning
    method: Method
    number: int
    params: dict[str, Any]
    threads: int | None
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def name(self) -> str:
        return f"{self.method.name} trial {self.number}"


def run_study(tuning: Tuning, *, workers: int | None = 1) -> None:
    """Run the trials that have not ended. In each round every method has one, so that all have the same budget.

    Args:
        tuning: From :func:`plan_tuning`.
        workers: Trials at a time, in processes; None is one a core where the model is small and there is no GPU.

    Raises:
        InputError: If the folder holds another study or other files, or is in use; or for an error of a run. A loss
            that is no longer finite ends only its trial.

    State:
        ``tuning.folder`` gets optuna's journal and the folders of all runs. After a stop, the same call resumes the
        study; a trial that was stopped is run again.
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
        studies: dict[str, Any] = {}  # of the main process, which alone suggests and stores
        on_main(accelerator, lambda: studies.update(_open(tuning, data)))
        if workers > 1:
            _run_in_workers(tuning, studies, workers)
            return
        while (job := on_main(accelerator, partial(_next, tuning, studies, threads))) is not None:
            value, reason = _run(job)
            on_main(accelerator, partial(_tell, studies, job, value, reason))


def load_studies(tuning: Tuning) -> dict[str, Any]:
    """Return the ``optuna.Study`` of each method, by name; new ones where there are none."""
    optuna = require("optuna", extra="tune")
    direction = "maximize" if tuning.maximize else "minimize"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it prints a line for each study
    try:
        backend = optuna.storages.journal.JournalFileBackend(str(tuning.folder / STORAGE))
        create = partial(optuna.create_study, storage=optuna.storages.JournalStorage(backend), load_if_exists=True)
        return {m.name: create(study_name=m.name, direction=direction) for m in tuning.methods}
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{tuning.folder / STORAGE} ({error})"
        fix = "Choose another --out."
        raise InputError("fedlas tune", f"{STORAGE} must be a journal of optuna", got, fix) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open(tuning: Tuning, data: dict[str, Any]) -> dict[str, Any]:
    """Load the studies of a locked folder; refuse other settings, and give up trials that were stopped."""
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
            study.tell(trial.number, state=states.FAIL)
    return studies


def _next(tuning: Tuning, studies: Mapping[str, Any], threads: int | None) -> _Job | None:
    """Return the next trial of the method that has had the fewest; None if all have had their budget."""
    optuna = require("optuna", extra="tune")
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.RUNNING)
    settings = {
        name: [trial.user_attrs.get("params") for trial in study.get_trials(deepcopy=False, states=states)]
        for name, study in studies.items()
    }
    unfinished = [method for method in tuning.methods if len(settings[method.name]) < method.trials(tuning.budget)]
    if not unfinished:
        return None
    method = min(unfinished, key=lambda method: len(settings[method.name]))
    study, tried = studies[method.name], settings[method.name]
    # The preset first; then each setting of a space that the budget covers; else the sampler suggests.
    fixed = next((s for s in method.grid(tuning.budget) or [dict(method.preset)] if s not in tried), None)
    # A seed for each trial, so that a resumed study does not repeat the trials of its first start.
    seed = derive(0, f"tune/{method.name}/{len(study.get_trials(deepcopy=False))}")
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, constant_liar=True)
    space = method.space
    if fixed is not None:
        # A preset may lie outside its range, where optuna cannot learn from it.
        space = {key: domain for key, domain in space.items() if domain.contains(fixed[key])}
        study.enqueue_trial({key: fixed[key] for key in space})
    trial = study.ask()
    params = {**(fixed or {}), **{key: domain.suggest(trial, key) for key, domain in space.items()}}
    trial.set_user_attr("params", params)
    return _Job(tuning, method, trial.number, params, threads)


def _tell(studies: Mapping[str, Any], job: _Job, value: float | None, reason: str) -> None:
    """Give the value of a trial to optuna, print it, and remove its checkpoints."""
    study, states = studies[job.method.name], require("optuna.trial", extra="tune").TrialState
    study.tell(job.number, value, state=states.PRUNED if value is None else states.COMPLETE)
    for run in job.tuning.runs(job.method, job.number, job.params):
        remove(run.folder / RunFolder.checkpoint_path, inside=job.tuning.folder)
    outcome = f"{job.tuning.title} {value:.4f}" if value is not None else f"diverged: {reason}"
    say(f"{job.name}  {outcome}  {params_text(job.params)}".rstrip(), stderr=True)


def _run_in_workers(tuning: Tuning, studies: Mapping[str, Any], count: int) -> None:
    """Run ``count`` trials at a time, each in a process."""
    gpus, threads = visible_gpus(), max(1, torch.get_num_threads() // count)
    workers = [Worker(tuning.folder, n, gpus[n % len(gpus)] if gpus else None, _work) for n in range(count)]
    try:
        while True:
            for worker in workers:
                if worker.job is None and (job := _next(tuning, studies, threads)) is not None:
                    worker.give(job)
            if not (busy := [worker for worker in workers if worker.job is not None]):
                return
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    job, result = worker.job, worker.take()
                    if isinstance(result, str):  # how the process ended
                        fix = "It may have run out of memory: use fewer --workers. The same command resumes."
                        result = InputError("fedlas tune", f"{job.name} must not be killed", result, fix)
                    if isinstance(result, InputError):
                        raise result
                    _tell(studies, job, *result)
    finally:
        end([worker.process for worker in workers])


def _work(job: _Job) -> tuple[float | None, str] | InputError:
    """Run a trial in a worker process."""
    os.chdir(job.cwd)
    try:
        return _run(job)
    except InputError as error:
        return error
    except Exception as error:  # noqa: BLE001 - another error may not survive the way to the other process
        return InputError("fedlas tune", f"{job.name} must run", f"{type(error).__name__}: {error}", "Correct it.")


def _run(job: _Job) -> tuple[float | None, str]:
    """Run a trial with each seed; return the mean objective, or None and the reason if a seed diverges."""
    values = []
    for run in job.tuning.runs(job.method, job.number, job.params):
        try:
            with limited_to(job.threads):
                execute(run, label=f"{job.name} seed {run.seed}")
            values.append(job.tuning.value(RunFolder(run.folder).predictions("val")))
        except DivergedError as error:
            return None, f"seed {run.seed}: {error}"
        if not math.isfinite(values[-1]):
            return None, f"seed {run.seed}: {job.tuning.title} of the validation part is {values[-1]}"
    return math.fsum(values) / len(values), ""
