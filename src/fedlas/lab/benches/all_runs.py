"""Execute all runs of a plan after checking each of them; and ``bench`` for data and models as Python objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fedlas._core.check import InputError, check_count
from fedlas._core.files import check_path_component, require_inside, to_path
from fedlas._core.kinds import check_argument_types
from fedlas._core.progress import transient_console
from fedlas._core.ranks import new_accelerator
from fedlas._core.terminal import Console, print_lines
from fedlas.lab.benches.executors import (
    Executor,
    JointProgress,
    LocalExecutor,
    Task,
    TaskResult,
    try_run_task,
)
from fedlas.lab.recipes.objects import recipe_from_objects
from fedlas.lab.recipes.planning import Run, plan_runs
from fedlas.lab.report.read_benches import read_bench_result
from fedlas.lab.report.result import BenchResult
from fedlas.lab.results.stages import RAW, check_calibrators
from fedlas.lab.runs.begin import (
    check_same_config,
    check_same_data,
    resolve_precision,
    unresolved_settings,
    with_saved_precision,
)
from fedlas.lab.runs.bench_folder import check_bench_folder, is_run_folder, run_folders
from fedlas.lab.runs.collection import check_same_settings, read_finished_run
from fedlas.lab.runs.data import data_fingerprint, prepare_data, warn_if_validation_small
from fedlas.lab.runs.folder import RunFolder, UnreadableError
from fedlas.lab.runs.intervals import has_stale_estimates
from fedlas.lab.runs.measure import format_runs, summarize_alarms
from fedlas.lab.runs.provenance import code_changes, environment
from fedlas.lab.runs.train import build_objective
from fedlas.lab.runs.workload import choose_threads

Builder = Callable[..., nn.Module]


def fit_warning_notes(runs: Sequence[Run]) -> list[str]:
    """Return a list with one sentence that names the finished runs whose fits warned; empty without warnings."""
    names = [run.name for run in runs if RunFolder(run.folder).metrics.get("notes")]
    return (
        [f"A fit warned in {format_runs(names)}; the report lists it under the runs."]
        if names
        else []
    )


@dataclass
class BenchOutcome:
    """Names of the finished, failed, busy and pending runs of a bench, in the order of the plan.

    Attributes:
        finished: Runs that have metrics, including runs of earlier starts.
        failed: Error of each run that failed.
        busy: Runs that another process works on.
        pending: Runs that were submitted, without waiting for their results.
    """

    finished: list[str]
    failed: dict[str, str]
    busy: list[str]
    pending: list[str]

    def require_finished(self, folder: Path) -> None:
        """Raise InputError with the reason of the first failure if no run in ``folder`` finished."""
        if self.finished:
            return
        for run, error in self.failed.items():
            reason = error.splitlines()[0].removeprefix("InputError: ").rstrip(".")
            raise InputError(
                "at least one run must finish",
                f"{len(self.failed)} failed, the first {run}: {reason}",
                f"See error.txt in the run folders in {folder}.",
            )
        raise InputError(
            "at least one run must be free to start",
            f"{len(self.busy)} in {folder}, all in use by other processes",
            "Wait until they finish, or choose another --out.",
        )


def run_all(
    runs: Sequence[Run], *, executor: Executor | None = None, console: Console | None = None
) -> BenchOutcome:
    """Execute every run that is not finished; a failed run is recorded in its folder and does not stop the others.

    Args:
        runs: Planned runs.
        executor: Executes the runs; None executes them one after the other in this process.
        console: ``rich.console.Console`` for one line per run; None makes one on standard error.

    Raises:
        InputError: Before any run starts: if the folder is not a bench folder, a run folder has another configuration
            or other data, the data or model cannot be loaded, or the executor cannot start.
    """
    executor = executor or LocalExecutor(workers=1)
    device = new_accelerator().device
    is_local = isinstance(executor, LocalExecutor)
    _check_folders(
        [resolve_precision(run, device) if is_local else with_saved_precision(run) for run in runs]
    )
    todo = [run for run in runs if not _is_done(run)]
    threads = None
    new_runs = [run for run in todo if not RunFolder(run.folder).is_finished]
    # Build the first new run here: an error that all runs share shows once, before any worker starts.
    for run in new_runs[:1]:
        splits = prepare_data(run)
        warn_if_validation_small(len(splits.val))  # here too: the output of workers goes to files
        build_objective(run, splits)
        threads = choose_threads(run)
        for folder in _bench_run_folders(runs):
            # an unreadable run of the plan fails on its own turn; another one is not part of the report
            with suppress(UnreadableError):
                check_same_data(folder, data_fingerprint(run))
    if new_runs:
        print_lines(
            *_code_change_notes(_bench_run_folders(runs)),
            style="yellow",
            wrap=True,
            stderr=True,
            on=console,
        )
    results: dict[str, TaskResult] = {}

    def record_result(result: TaskResult, style: str | None = None) -> None:
        """Store the result of a run and print it as one line."""
        results[result.name] = result
        text = str(result.line)
        if result.busy is not None:
            text = f"skipped: {result.busy}"
            style = "yellow"
        elif result.error is not None:
            text = f"failed: {result.error.removeprefix('InputError: ')}"
            style = "red"
        text = f"[{len(results)}/{len(runs)}] {result.name}  {text}"
        print_lines(*text.split("\n"), style=style, stderr=True, on=console)

    for run in runs:
        if run not in todo:
            # A finished run is only read, which needs no worker.
            record_result(try_run_task(Task.from_run(run)), "dim")
    if todo:
        tasks = [replace(Task.from_run(run), threads=threads) for run in todo]
        progress = JointProgress(console, tasks)
        # Closing the generator ends the workers, also after Ctrl-C.
        with progress, closing(executor.results(tasks, progress)) as task_results:
            for result in task_results:
                progress.count_ended(result)
                record_result(result)
        succeeded = [
            run for run in todo if run.name in results and results[run.name].line is not None
        ]
        # Whichever process did the first run decided the precision of all.
        starts = [
            start
            for run in new_runs[:1]
            for start in RunFolder(run.folder).starts[-1:]
            if "precision" in start
        ]
        print_lines(
            *(f"  precision {start['precision']}" for start in starts),
            style="dim",
            stderr=True,
            on=console,
        )
        lines = [*fit_warning_notes(succeeded), *summarize_alarms(succeeded, runs[0].folder.parent)]
        print_lines(*lines, style="yellow", wrap=True, stderr=True, on=console)
    return _collect_outcome(runs, results)


def _code_change_notes(folders: Sequence[RunFolder]) -> list[str]:
    """Return a list with one sentence on the runs that were made with other code; empty if there are none."""
    now = environment()
    changed = {folder.name: changes for folder in folders if (changes := code_changes(folder, now))}
    if not changed:
        return []
    names = list(changed)
    advice = "If that matters, run all of them again with another --out."
    return [
        f"{format_runs(names)} {'was' if len(names) == 1 else 'were'} made with other code: "
        f"{changed[names[0]]}. {advice}"
    ]


def _is_done(run: Run) -> bool:
    """Return whether a run is finished and its intervals are computed, as far as possible."""
    folder = RunFolder(run.folder)
    if not folder.is_finished:
        return False
    try:
        return not has_stale_estimates(read_finished_run(folder))
    except (ValueError, InputError, OSError):  # executing the run shows its error
        return True


def _collect_outcome(runs: Sequence[Run], results: Mapping[str, TaskResult]) -> BenchOutcome:
    """Sort the names of planned runs by the result of their tasks; runs without a result are pending."""
    by_name = {run.name: results[run.name] for run in runs if run.name in results}
    return BenchOutcome(
        finished=[name for name, result in by_name.items() if result.line is not None],
        failed={name: result.error for name, result in by_name.items() if result.error is not None},
        busy=[name for name, result in by_name.items() if result.busy is not None],
        pending=[run.name for run in runs if run.name not in results],
    )


def _check_folders(runs: Sequence[Run]) -> None:
    """Raise InputError if a bench folder holds runs that a report could not compare with ``runs``."""
    for bench_folder in dict.fromkeys(run.folder.parent for run in runs):
        check_bench_folder(bench_folder)
    for run in runs:
        # A stranger's bench may hold a link in place of a run.
        require_inside(run.folder.parent, run.folder / "config.yaml")
        with suppress(UnreadableError):  # executing the run shows its error
            check_same_config(run)
    planned = {run.folder for run in runs}
    siblings = [folder for folder in _bench_run_folders(runs) if folder.path not in planned]
    others = [
        (f.name, f.config) for f in siblings if is_run_folder(f) and f.config and not f.is_derived
    ]
    configs = [*others, *((run.name, run.config()) for run in runs)]
    # Settings that the machines of a cluster decide are not known yet.
    undecided_keys = {key for run in runs for key in unresolved_settings(run)}
    known_configs = [
        (
            name,
            {
                **config,
                "train": {k: v for k, v in config["train"].items() if k not in undecided_keys},
            },
        )
        for name, config in configs
    ]
    check_same_settings(known_configs, "Use the old settings, or another --out for the new ones.")


def _bench_run_folders(runs: Sequence[Run]) -> list[RunFolder]:
    """Return all run folders in the bench folders of ``runs``, including other losses and seeds."""
    return [
        folder
        for bench in dict.fromkeys(run.folder.parent for run in runs)
        for folder in run_folders(bench)
    ]


@check_argument_types
def bench(
    train: object,
    val: object,
    test: object,
    *,
    models: Mapping[str, Builder | None],
    losses: Sequence[str] | Mapping[str, Builder | None],
    out: str | Path,
    seeds: int | Sequence[int] = 5,
    calibrators: Sequence[str] = (RAW,),
    settings: Mapping[str, Any] | None = None,
    name: str = "bench",
) -> BenchResult:
    """Train every model with every loss and seed, calibrate it, and compare the outcomes by paired tests over seeds.

    The parts are used as passed: seeds change the data order and the initial weights, equally for every loss.

    Args:
        train: ``Dataset`` of ``(input, class index)``, or a pair ``(inputs, target)`` of arrays or tensors: float32 of
            any shape, or uint8 images. Inputs may be the output of a tokenizer of transformers, whose fields the models
            take by name.
        val: As ``train``; epochs and calibrators are chosen on it.
        test: As ``train``; all reported numbers are measured on it.
        models: Functions that build a model, by name; they may take ``num_classes``. None builds the registered model
            of that name, such as ``mlp``.
        losses: Registered losses; or functions that build losses by name, None for the registered one of that name.
        out: Folder of the runs, with a folder for each model.
        seeds: Number of seeds, from 0 on, or the seeds.
        calibrators: Registered calibrators, or ``raw`` for none; each becomes a method of every loss.
        settings: Sections of a recipe, such as ``{"train": {"epochs": 20}, "optimizer": {"lr": 0.05}}``.
        name: Name of the data in tables.

    Returns:
        The result, which a notebook shows; see :class:`BenchResult`. A run that failed is named there.

    Raises:
        InputError: Before anything starts: for data, models, losses, calibrators or settings that cannot be used, or a
            folder with runs of other settings or data. Or, after the runs, if none of a model finished.

    State:
        Everything is in ``out``. The same call resumes: a run that was killed ends as an undisturbed one, bit for bit,
        and finished runs are not computed again.

    Example:
        >>> import torch, tempfile
        >>> x = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
        >>> data = (x, (x[:, 0] > 0).long())
        >>> folder = tempfile.mkdtemp()
        >>> result = bench(data, data, data, models={"linear": None}, losses=["ce"], out=folder,
        ...     seeds=1, settings={"train": {"epochs": 1, "batch_size": 30}})
        >>> result.to_frame().shape[0]
        1
    """
    check_calibrators(calibrators)
    folder = to_path(out)
    seed_list = range(check_count("seeds", seeds)) if isinstance(seeds, int) else seeds
    builders = {n: b for n, b in losses.items() if b} if isinstance(losses, Mapping) else {}
    if not models:
        raise InputError("models must name at least one model", models, "Pass e.g. {'mlp': None}.")
    runs: list[Run] = []
    folders = {}
    for model, build in models.items():
        folders[model] = folder / check_path_component(
            "the model", model, "Rename it: it names a folder."
        )
        require_inside(folder, folders[model] / "results.csv")
        recipe = recipe_from_objects(
            train, val, test, build, name=name, model_name=model, settings=settings, losses=builders
        )
        runs += plan_runs(recipe, losses=list(losses), seeds=seed_list, out=folders[model])
    outcomes = {}
    with transient_console() as console:
        for model in folders:
            planned = [run for run in runs if run.recipe.model.name == model]
            outcomes[model] = run_all(planned, console=console)
    for model, place in folders.items():
        outcomes[model].require_finished(place)
    failures = {model: outcome.failed for model, outcome in outcomes.items()}
    return read_bench_result(folders, calibrators, name=name, kind="models", failures=failures)
