"""A run as a task for another process, its result, and the base class of executors."""

from __future__ import annotations

import os
import sys
import traceback
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fedlas._core.abstract import Abstract
from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.files import write_text
from fedlas._core.registry import Registry
from fedlas._core.terminal import is_main_process
from fedlas.lab.data.disk import DATA_VARIABLE
from fedlas.lab.recipes.planning import Run
from fedlas.lab.results.stages import AUTO, calibrated_metrics
from fedlas.lab.runs.begin import BusyError
from fedlas.lab.runs.collection import read_finished_run
from fedlas.lab.runs.execution import execute
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import save_missing_estimates
from fedlas.lab.train.log import ShowProgress, TrainingProgress


@dataclass(frozen=True)
class Task:
    """Run with everything that another process needs to execute it: command, folder, environment and resources.

    Attributes:
        run: The run, with absolute folder.
        command: The command of the bench, for ``environment.json``.
        folder: Working folder of the bench; other machines must see it at the same path.
        environment: Environment variables to set.
        threads: Threads to compute with; None does not set them.
        processes: Processes that share the run, one per GPU.
        retries: How often a run resumes after one of several processes was killed.
        report: Whether to compute the numbers of a report in addition to the metrics, such as intervals.
    """

    run: Run
    command: tuple[str, ...] = ()
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    processes: int = 1
    retries: int = 2
    report: bool = True

    @classmethod
    def from_run(cls, run: Run) -> Task:
        """Return the task of a run, with the command, working folder and environment of this process."""
        data = {key: os.environ[key] for key in (DATA_VARIABLE,) if key in os.environ}
        run = replace(run, folder=run.folder.absolute())
        return cls(run, tuple(sys.argv), environment=data)


@dataclass(frozen=True)
class TaskResult:
    """Outcome of a task; exactly one of ``line``, ``error`` and ``busy`` is not None.

    Attributes:
        name: Name of the run.
        line: Main metrics as text, if the run finished.
        error: Class name and message of the error that ended the run.
        busy: Why the run was left to another process.
    """

    name: str
    line: str | None = None
    error: str | None = None
    busy: str | None = None


def try_run_task(task: Task, *, show: ShowProgress = TrainingProgress) -> TaskResult:
    """Execute a task in this process; an error is recorded in the run folder and returned as a failed result."""
    try:
        return run_task(task, show=show)
    except Exception as error:  # noqa: BLE001 - a run that fails must not stop the others
        return record_failure(task.run, **failure_arguments(error))


def run_task(task: Task, *, show: ShowProgress = TrainingProgress) -> TaskResult:
    """Execute a task in this process; return a busy result if another process works on the run."""
    run = task.run
    try:
        metrics = execute(run, label=run.name, show=show)
    except BusyError as error:
        return TaskResult(run.name, busy=str(error))
    if task.report and is_main_process():
        # the report names what it cannot use in the folder
        with suppress(ValueError, InputError):
            finished = read_finished_run(RunFolder(run.folder))
            save_missing_estimates(finished)
            calibrated_metrics(finished, [AUTO])
    return TaskResult(run.name, line=_result_line(metrics))


def failure_arguments(error: Exception) -> dict[str, str]:
    """Return the keyword arguments of :func:`record_failure` that describe an error."""
    text = "".join(traceback.format_exception(error))
    return {"error": f"{type(error).__name__}: {error}", "text": text}


def record_failure(run: Run, error: str, *, text: str | None = None) -> TaskResult:
    """Write an error to the run folder and return the failed result."""
    if is_main_process():
        # if the folder cannot be written, only the result holds the error
        with suppress(InputError):
            write_text(RunFolder(run.folder).error_path, text or f"{error}\n")
    return TaskResult(run.name, error=error)


def fetch_result(
    task: Task, fetch: Callable[[], TaskResult], errors: type[Exception] = Exception
) -> TaskResult:
    """Return the result of a task from another process; an error while fetching counts as a failure of the run."""
    try:
        return fetch()
    except errors as error:
        reason = " ".join(str(error).split())[:300]
        return record_failure(task.run, f"{type(error).__name__}: {reason}", text=str(error))


def _result_line(metrics: dict[str, Any]) -> str:
    """Return accuracy, ECE and training time as one line of text."""
    test = metrics["test"]
    # Values after calibration are in the table, with the name of the calibrator.
    return f"accuracy {test['accuracy']:.1%}  ECE {test['ece']:.2%}  {metrics['seconds']:.0f} s"


class ExecutorEvents(Protocol):
    """Callbacks that an executor calls while it works."""

    def on_start(self, task: Task) -> None:
        """Record that a task was started or submitted."""

    def on_lost(self, task: Task, reason: str) -> None:
        """Record that the process of a task was killed; the task resumes in another process."""

    def on_message(self, text: str) -> None:
        """Show a message of the executor to the user."""

    def show(self, task: Task) -> ShowProgress:
        """Return the progress display of a task that runs in this process."""

    def on_idle(self) -> None:
        """Refresh displays; called several times per second while tasks run in other processes."""


@dataclass(kw_only=True)
class Executor(Abstract):
    """Base class of executors of tasks; an interrupted run resumes from its checkpoint at the next start.

    Args:
        workers: Number of runs at a time; None is as many as the resources allow.
        gpus_per_run: GPUs of a run. Below 1, several runs share one GPU; above 1, a run has one process per GPU. None
            is one GPU if there are any.
        cpus_per_run: Threads of a run; None divides the available ones.
        retries: How often a run whose process was killed resumes from its checkpoint.

    Raises:
        InputError: For numbers out of range.
    """

    workers: int | None = None
    gpus_per_run: float | None = None
    cpus_per_run: int | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_run"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.gpus_per_run is not None:
            gpus = check_number("gpus_per_run", self.gpus_per_run, low=0)
            if gpus > 1 and gpus != int(gpus):
                raise InputError(
                    "gpus_per_run above 1 must be a whole number",
                    gpus,
                    "Choose a whole number of GPUs per run.",
                )
        check_count("retries", self.retries, low=0)

    @property
    def processes(self) -> int:
        """Number of processes per run: one per GPU, at least one."""
        return max(1, int(self.gpus_per_run or 0))

    @abstractmethod
    def results(self, tasks: Sequence[Task], events: ExecutorEvents) -> Generator[TaskResult]:
        """Execute the tasks and yield each result when it is available."""

    def prepare_task(self, task: Task) -> Task:
        """Return the task with the threads, processes and retries of this executor.

        Raises:
            InputError: If this process is one of several that a launcher started.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "an executor that starts processes must itself run in one process",
                f"{os.environ['WORLD_SIZE']} processes, started by a launcher",
                "Start it without accelerate launch or torchrun, and set the GPUs of a run with --gpus-per-run.",
            )
        return replace(
            task,
            threads=self.cpus_per_run or task.threads,
            processes=self.processes,
            retries=self.retries,
        )


EXECUTORS: Registry[type[Executor]] = Registry("executor")
"""Executors by name."""
