"""Tuning study: planning and checks, trials suggested and stored by optuna, and runs as in a bench."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, check_count
from fedlas._core.extras import require
from fedlas._core.files import remove, require_no_device
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive_seed
from fedlas._core.terminal import print_lines
from fedlas._core.text import pluralize
from fedlas.lab.benches.executors import Executor, JointProgress, LocalExecutor, Task
from fedlas.lab.recipes.planning import Run, plan_runs
from fedlas.lab.recipes.recipe import Recipe, read_recipe_content, recipe_from_content
from fedlas.lab.runs.begin import check_no_foreign_files, lock_folder, resolve_precision
from fedlas.lab.runs.data import data_fingerprint
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.workload import choose_threads, forecast_run
from fedlas.lab.train.checkpoint import config_differences
from fedlas.lab.train.config import (
    REFINED_NLL,
    check_selection_metric,
    refined_nll,
    selection_score,
)
from fedlas.lab.train.loop import DivergedError
from fedlas.lab.tune.space import (
    TunedMethod,
    build_methods,
    format_params,
    is_recipe_key,
    set_option,
)
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics, resolve_metrics

if TYPE_CHECKING:
    import optuna

STORAGE = "optuna.log"
"""Journal file of optuna with a study for each method; ``optuna-dashboard`` opens it."""
_TRIALS_PER_ROUND = 5
"""Trials of a method that are suggested together and may run in parallel; the first round is random."""


@dataclass(frozen=True)
class TuningStudy:
    """A planned tuning study, made by :func:`plan_tuning`.

    Attributes:
        content: Content of the recipe's file, with overrides and the folder of the data.
        recipe: The recipe.
        methods: The tuned methods.
        seeds: Seeds that every trial is run with.
        budget: Trials of each method.
        objective: Validation metric by which trials are compared, or ``refined_nll``.
        folder: Folder of the study.
    """

    content: dict[str, Any]
    recipe: Recipe
    methods: tuple[TunedMethod, ...]
    seeds: tuple[int, ...]
    budget: int
    objective: str
    folder: Path

    @property
    def title(self) -> str:
        """Name of the objective in tables."""
        return "refined NLL" if self.objective == REFINED_NLL else METRICS[self.objective].title

    @property
    def maximize(self) -> bool:
        """Whether a higher objective is better."""
        return selection_score(self.objective, 1.0) > selection_score(self.objective, 0.5)

    def value(self, run: Run) -> float:
        """Return the objective of a finished run."""
        val = RunFolder(run.folder).predictions("val")
        if self.objective == REFINED_NLL:
            return refined_nll(val)
        names = resolve_metrics([self.objective], val)
        value = compute_metrics(val, names, self.recipe.train.num_bins)[self.objective]
        return abs(value) if METRICS[self.objective].higher_is_better is None else value

    def runs(
        self, method: TunedMethod, number: int = 0, params: Mapping[str, Any] | None = None
    ) -> list[Run]:
        """Return the runs of a trial, one per seed, with the preset if ``params`` is None.

        Raises:
            InputError: If the recipe or the loss does not accept these parameters.
        """
        name = f"{method.name}-trial-{number}"
        recipe = recipe_from_content(
            self.recipe.name, add_loss_variant(self.content, method.name, name, params or {})
        )
        return plan_runs(recipe, losses=[name], seeds=self.seeds, out=self.folder / "trials")

    def config(self, method: TunedMethod) -> dict[str, Any]:
        """Return the settings of a method that must not change when a study resumes."""
        config = Run(self.recipe, method.name, self.seeds[0], self.folder).config()
        return {
            **config,
            "seed": list(self.seeds),
            "objective": self.objective,
            "space": dict(method.ranges),
        }


def add_loss_variant(
    content: Mapping[str, Any], loss: str, name: str, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a recipe with an added variant of a loss that has other parameters."""
    changed = copy.deepcopy(dict(content))
    losses = changed["losses"] = changed.get("losses") or {}
    options = losses[name] = {"loss": loss, **copy.deepcopy(losses.get(loss) or {})}
    for key, value in params.items():
        if is_recipe_key(key):
            section, _, key = key.partition(".")
            changed[section] = {**(changed.get(section) or {}), key: value}
        else:
            set_option(options, options["loss"], key, value)
    return changed


def plan_tuning(
    source: str,
    overrides: Sequence[str] = (),
    *,
    losses: Sequence[str] = (),
    trials: int = 20,
    objective: str = REFINED_NLL,
    seeds: Sequence[int] = (0,),
    space: Sequence[str] = (),
    out: Path | None = None,
    data: str | None = None,
) -> TuningStudy:
    """Plan a tuning study, with all checks that are possible before training.

    Args:
        source: Recipe of the package, or path of a ``.yaml`` file.
        overrides: ``key=value``, as ``--set`` takes them.
        losses: Losses of the recipe; empty means the recipe's methods.
        trials: Budget of each method, including the preset's trial.
        objective: Metric of the validation part, or ``refined_nll``.
        seeds: Seeds of every trial, at least one.
        space: Ranges, as :func:`fedlas.lab.tune.space.build_methods` takes them.
        out: Folder; None is ``runs/tune/RECIPE``.
        data: Folder of the data; None searches the usual places.

    Raises:
        InputError: For an argument that cannot be used, including a range with values that its loss does not accept.
    """
    check_count("trials", trials)
    objective = check_selection_metric(objective, "--objective")
    name, content = read_recipe_content(source, overrides)
    recipe = recipe_from_content(name, content).with_data_root(data)
    if data is not None:
        content["data"]["root"] = data  # trials and best.yaml are made of the content
    folder = out or Path("runs") / "tune" / name
    runs = plan_runs(recipe, losses=losses, seeds=seeds, out=folder)
    methods = tuple(build_methods(recipe, list(dict.fromkeys(run.loss for run in runs)), space))
    tuning = TuningStudy(content, recipe, methods, tuple(seeds), trials, objective, folder)
    # A value that the recipe or the loss does not accept would end the study hours later.
    for method in methods:
        for params in method.boundary_settings():
            try:
                tuning.runs(method, params=params)
            except InputError as error:
                raise InputError(
                    f"the recipe must accept every value in the ranges of {method.name}",
                    f"{format_params(params)}: {str(error).rstrip('.')}",
                    "Narrow the range with --space; whole numbers are low:high:int.",
                ) from error
    return tuning


def print_study_plan(tuning: TuningStudy) -> None:
    """Print the search space, trials, runs and steps of every method, without running anything."""
    seeds = len(tuning.seeds)
    epochs = tuning.recipe.train.epochs
    counts = f"{tuning.budget} trials x {pluralize(seeds, 'seed')} x {epochs} epochs"
    print_lines(f"{tuning.recipe.name}: {counts} for each method, {tuning.title}")
    for method in tuning.methods:
        runs = method.trials(tuning.budget) * seeds
        steps = forecast_run(tuning.runs(method)[0]).steps
        ahead = "" if steps is None else f", about {runs * steps:,} steps"
        print_lines(f"  {method.name}: {pluralize(runs, 'run')}{ahead}")
        print_lines(
            *(
                f"    {key}: {text}, preset {method.preset[key]}"
                for key, text in method.ranges.items()
            )
        )
    print_lines(f"results in {tuning.folder}")


def run_study(tuning: TuningStudy, executor: Executor | None = None) -> None:
    """Run the unfinished trials of a study, in rounds of equally many trials per method.

    Args:
        tuning: From :func:`plan_tuning`.
        executor: Executor of the runs; None runs them one after the other in this process.

    Raises:
        InputError: If the folder holds another study or other files, or is in use; or if a run fails. A diverged run
            ends only its trial.

    State:
        ``tuning.folder`` gets optuna's journal and the folders of all runs. After a stop, the same call resumes the
        study, and each run that was stopped from its checkpoint.
    """
    executor = executor or LocalExecutor(workers=1)
    example = tuning.runs(tuning.methods[0])[0]
    executor.prepare_task(Task.from_run(example))  # refuses to be one of several processes
    data = data_fingerprint(example)
    accelerator = new_accelerator()
    is_local = isinstance(executor, LocalExecutor)
    resolved_run = resolve_precision(example, accelerator.device) if is_local else example
    threads = choose_threads(example)  # an error in the data shows here
    if not (tuning.folder / STORAGE).exists():
        check_no_foreign_files(tuning.folder, [RunFolder.lock_path.name])
    # optuna locks its journal by a link; no other process holds it, since this one has the lock of the folder.
    with lock_folder(tuning.folder, accelerator, stale_link=f"{STORAGE}.lock"):
        studies = load_studies(tuning)
        for method in tuning.methods:
            _prepare_study(
                studies[method.name],
                tuning,
                method,
                {**tuning.config(method), "train": resolved_run.config()["train"], "images": data},
            )
        while trials := _next_round(tuning, studies):
            _run_round(tuning, trials, executor, threads)


def load_studies(tuning: TuningStudy) -> dict[str, Any]:
    """Return the optuna study of each method, by name, creating missing ones."""
    optuna = require("optuna", extra="tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it prints a line for each study
    direction = "maximize" if tuning.maximize else "minimize"
    try:
        backend = optuna.storages.journal.JournalFileBackend(
            str(require_no_device(tuning.folder / STORAGE))
        )
        storage = optuna.storages.JournalStorage(backend)
        return {
            m.name: optuna.create_study(
                storage=storage, study_name=m.name, direction=direction, load_if_exists=True
            )
            for m in tuning.methods
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{STORAGE} must be a readable optuna journal",
            f"{tuning.folder / STORAGE} ({error})",
            "Choose another --out.",
        ) from error


def _prepare_study(
    study: optuna.Study, tuning: TuningStudy, method: TunedMethod, config: Mapping[str, Any]
) -> None:
    """Check the settings of a study, and queue the preset and, if the budget covers them, all settings."""
    if changes := config_differences(study.user_attrs.get("config", config), config):
        raise InputError(
            "the folder must hold a study with the same settings",
            f"{tuning.folder}, which differs for {method.name} in {'; '.join(changes)}",
            "Use the old settings to resume (--trials and --losses may grow), or another --out.",
        )
    study.set_user_attr("config", config)
    for setting in [method.preset_in_range, *(method.grid(tuning.budget) or [])]:
        study.enqueue_trial(setting, skip_if_exists=True)


def _next_round(
    tuning: TuningStudy, studies: Mapping[str, Any]
) -> list[tuple[TunedMethod, Any, Any]]:
    """Return the methods, studies and trials to run next: interrupted trials, else new ones; empty when done."""
    optuna = require("optuna", extra="tune")
    states = optuna.trial.TrialState
    trials = []
    for method in tuning.methods:
        study = studies[method.name]
        trials += [
            (method, study, t) for t in study.get_trials(deepcopy=False, states=(states.RUNNING,))
        ]
    if trials:
        return trials
    for method in tuning.methods:
        study = studies[method.name]
        space = method.space
        count = len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))
        # A seed for each round, so that a resumed study does not repeat the settings of its first start.
        seed = derive_seed(0, f"tune/{method.name}/{count}")
        study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_TRIALS_PER_ROUND, constant_liar=True
        )
        for number in range(count, min(count + _TRIALS_PER_ROUND, method.trials(tuning.budget))):
            # The preset comes first; a value outside its range is nothing that optuna could suggest.
            domains = space if number else {key: space[key] for key in method.preset_in_range}
            trials.append((method, study, study.ask(domains)))
    # By number, so that a study that stops early has been fair.
    return sorted(trials, key=lambda each: each[2].number)


def _run_round(
    tuning: TuningStudy, trials: Sequence[Any], executor: Executor, threads: int | None
) -> None:
    """Run some trials, and report the value of each to optuna when its runs have ended."""
    tasks: list[Task] = []
    owners: dict[str, Any] = {}
    errors: dict[str, str | None] = {}
    for method, study, trial in trials:
        runs = tuning.runs(method, trial.number, trial.params if trial.number else None)
        tasks += [replace(Task.from_run(run), threads=threads, report=False) for run in runs]
        owners |= dict.fromkeys([run.name for run in runs], (method, study, trial, runs))
    progress = JointProgress(None, tasks)
    with progress, closing(executor.results(tasks, progress)) as results:
        for result in results:
            progress.count_ended(result)
            reason = result.error or result.busy
            if reason is not None and not reason.startswith(DivergedError.__name__):
                raise InputError(
                    "every run must finish",
                    f"{result.name}: {reason}",
                    "See its error.txt; the same command resumes, with fewer --workers if memory was short.",
                )
            errors[result.name] = reason
            method, study, trial, runs = owners[result.name]
            if all(run.name in errors for run in runs):
                error = next(filter(None, (errors[run.name] for run in runs)), None)
                _report_trial(tuning, method, study, trial, runs, error)
    if len(errors) < len(tasks):
        raise InputError(
            "the executor must wait for its runs",
            f"{len(errors)} results of {len(tasks)} runs",
            "Leave out wait=false.",
        )


def _report_trial(
    tuning: TuningStudy,
    method: TunedMethod,
    study: optuna.Study,
    trial: optuna.Trial,
    runs: Sequence[Run],
    error: str | None,
) -> None:
    """Report the value of a trial to optuna, print it, and remove the checkpoints of its runs."""
    states = require("optuna.trial", extra="tune").TrialState
    value = math.nan if error else fmean(tuning.value(run) for run in runs)
    finite = math.isfinite(value)
    study.tell(
        trial.number, value if finite else None, state=states.COMPLETE if finite else states.PRUNED
    )
    for run in runs:
        remove(run.folder / RunFolder.checkpoint_path, inside=tuning.folder)
    outcome = error or f"{tuning.title} {value:.4f}"
    print_lines(
        f"{method.name} trial {trial.number}  {outcome}  {format_params(method.params(trial))}".rstrip(),
        stderr=True,
    )
