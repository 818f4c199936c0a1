"""What an executor is: something that does the runs of a bench, somewhere, and tells what became of each."""

from __future__ import annotations

import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.files import write_text
from fedlas._core.ranks import is_main_process
from fedlas._core.registry import Registry
from fedlas.lab.data.readers.roots import ENVIRONMENT
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.folder import BusyError


@dataclass(frozen=True)
class Task:
    """A run to be done, and what a process elsewhere must know to do it as if it were done here.

    Attributes:
        run: The run, with absolute folder.
        label: What is shown in front of its messages.
        command: The command of the bench, for ``environment.json``.
        folder: Working folder of the bench; other machines must see it under the same name.
        environment: Variables to set.
        threads: Threads of PyTorch; None leaves them.
        processes: Processes that share the run, one a GPU.
        retries: How often a run goes on after one of several processes was killed.
    """

    run: Run
    label: str
    command: tuple[str, ...] = ()
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    processes: int = 1
    retries: int = 2

    @classmethod
    def of(cls, run: Run, label: str) -> Task:
        """A task as things are here and now."""
        known = {key: os.environ[key] for key in (ENVIRONMENT,) if key in os.environ}
        return cls(replace(run, folder=run.folder.absolute()), label, tuple(sys.argv), environment=known)


@dataclass(frozen=True)
class Result:
    """What became of a run; one of ``line``, ``error`` and ``busy`` is not None.

    Attributes:
        name: Name of the run.
        line: Its main numbers, if it is finished.
        error: What it died of, with the name of the error.
        message: The same without.
        busy: Why it was left to another process.
    """

    name: str
    line: str | None = None
    error: str | None = None
    message: str = ""
    busy: str | None = None


class Events(Protocol):
    """What an executor tells while it works."""

    def started(self, task: Task) -> None:
        """A task begins, or was handed over to whoever begins it."""

    def lost(self, task: Task, reason: str) -> None:
        """The process of a task ended before the task did; it goes on in another one."""

    def said(self, text: str) -> None:
        """Something that a user should know."""

    def idle(self) -> None:
        """Nothing has happened for a moment; called several times a second while runs are elsewhere."""


class Executor(ABC):
    """Does runs. Stopping it stops them: each goes on from its checkpoint when the bench is started again.

    Args:
        workers: Runs at a time; None is as many as there is room for.
        gpus_per_run: GPUs of a run; below 1, several runs share one; above, one process a GPU does the run. None is one
            if there is any.
        cpus_per_run: Threads of a run; None divides those there are.
        retries: How often a run whose process was killed goes on from its checkpoint.

    Raises:
        InputError: For numbers that are none of these.
    """

    in_process: ClassVar[bool] = False
    """Whether runs happen in this process, and show their own progress."""

    def __init__(
        self,
        *,
        workers: int | None = None,
        gpus_per_run: float | None = None,
        cpus_per_run: int | None = None,
        retries: int = 2,
    ) -> None:
        for name, value in (("workers", workers), ("cpus_per_run", cpus_per_run)):
            if value is not None:
                check_count("executor", name, value)
        if gpus_per_run is not None:
            gpus = check_number("executor", "gpus_per_run", gpus_per_run, low=0)
            if gpus > 1 and gpus != int(gpus):
                raise InputError("executor", "gpus_per_run above 1 must be whole", gpus, "A run gets whole GPUs then.")
        self.workers, self.gpus_per_run, self.cpus_per_run = workers, gpus_per_run, cpus_per_run
        self.retries = check_count("executor", "retries", retries, low=0)

    @property
    def processes(self) -> int:
        """Processes of a run."""
        return max(1, int(self.gpus_per_run or 0))

    @abstractmethod
    def results(self, tasks: Sequence[Task], events: Events) -> Generator[Result]:
        """Do the tasks; yields what became of each, in the order in which they end."""

    def describe(self, tasks: Sequence[Task]) -> list[str]:
        """What :meth:`results` would do, for a dry run; may write files that say more."""
        at_a_time = "as many at a time as there is room for" if self.workers is None else f"{self.workers} at a time"
        return [f"{len(tasks)} to do, {at_a_time}"]

    def ready(self, task: Task) -> Task:
        """The task as a process of this executor takes it.

        Raises:
            InputError: In a process that is itself one of several on a run.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "executor",
                "one that starts processes must run in one",
                f"{os.environ['WORLD_SIZE']} processes of a launcher",
                "Start it without accelerate launch or torchrun, and say how many GPUs a run gets with --gpus-per-run.",
            )
        return replace(task, threads=self.cpus_per_run, processes=self.processes, retries=self.retries)


EXECUTORS: Registry[type[Executor]] = Registry("executor")
"""Executors by name."""


def attempt(run: Run, label: str) -> Result:
    """Do a run in this process; whatever it dies of is noted in its folder and returned."""
    try:
        return Result(run.name, line=_line(execute(run, label=label)))
    except BusyError as error:
        return Result(run.name, busy=str(error))
    except Exception as error:  # noqa: BLE001 - whatever one run dies of, the others must go on
        text = "".join(traceback.format_exception(error))
        return failed(run, f"{type(error).__name__}: {error}", message=str(error), text=text)


def failed(run: Run, error: str, *, message: str | None = None, text: str | None = None) -> Result:
    """A failure, noted in the run's folder."""
    if is_main_process():
        with suppress(InputError):  # the folder itself is what failed: there is nowhere to note it but the outcome
            write_text(run.folder / "error.txt", text or f"{error}\n")
    return Result(run.name, error=error, message=error if message is None else message)


def work(task: Task) -> Result:
    """Do a task in a process that was made for it, on this or another machine."""
    try:
        os.chdir(task.folder)
    except OSError as error:
        reason = f"executor: every machine must see the folder of the bench; got {task.folder} ({error.strerror}). "
        return Result(task.run.name, error=reason, message=reason + "Use a file system that all share.")
    os.environ.update(task.environment)
    sys.argv = list(task.command)
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    if task.processes > 1:
        from fedlas.lab.bench.executors.launch import launch

        return launch(task)
    return attempt(task.run, task.label)


def _line(metrics: dict[str, Any]) -> str:
    test = metrics["test"]
    scaled = metrics["test_scaled"]["ece"]
    return (
        f"test accuracy {test['accuracy']:.2%}  ECE {test['ece']:.2%} "
        f"(after temperature {metrics['temperature']:.2f}: {scaled:.2%})  {metrics['seconds']:.0f} s"
    )
