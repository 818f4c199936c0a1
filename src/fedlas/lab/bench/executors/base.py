"""The contract of executors, which do the runs of a bench and yield the result of each."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.registry import Registry
from fedlas.lab.bench.executors.task import Result, Task
from fedlas.lab.train.progress import ShowProgress


class Events(Protocol):
    """Calls that an executor makes while it works."""

    def started(self, task: Task) -> None:
        """A task begins, or was submitted."""

    def lost(self, task: Task, reason: str) -> None:
        """The process of a task ended before the task did; the task resumes in another process."""

    def said(self, text: str) -> None:
        """The executor has a message for the user."""

    def show(self, task: Task) -> ShowProgress:
        """What shows the progress of a task that is done in this process."""

    def idle(self) -> None:
        """Nothing has happened for a moment; called several times a second while runs are in other processes."""


class Executor(ABC):
    """Does runs. Stopping it stops them; when the bench is started again, each resumes from its checkpoint.

    Args:
        workers: Runs at a time; None is as many as there is room for.
        gpus_per_run: GPUs of a run. Below 1, several runs share one GPU; above 1, a run has one process per GPU. None
            is one GPU if there are any.
        cpus_per_run: Threads of a run; None divides the available ones.
        retries: How often a run whose process was killed resumes from its checkpoint.

    Raises:
        InputError: For numbers out of range.
    """

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

    room: ClassVar[str] = "as many at a time as there is room for"
    """How many runs there are at a time unless ``workers`` says it, as text."""

    @property
    def processes(self) -> int:
        """Number of processes of a run."""
        return max(1, int(self.gpus_per_run or 0))

    @abstractmethod
    def results(self, tasks: Sequence[Task], events: Events) -> Generator[Result]:
        """Do the tasks; yields the result of each, in the order in which they end."""

    def describe(self, tasks: Sequence[Task]) -> list[str]:
        """What :meth:`results` would do, for a dry run. It may write files with more detail."""
        at_a_time = self.room if self.workers is None else f"{self.workers} at a time"
        return [f"{len(tasks)} to do, {at_a_time}"]

    def ready(self, task: Task) -> Task:
        """The task with the threads, processes and retries of this executor.

        Raises:
            InputError: In a process that is one of several of a launcher.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "executor",
                "an executor that starts processes must itself run in one process",
                f"{os.environ['WORLD_SIZE']} processes of a launcher",
                "Start it without accelerate launch or torchrun, and say how many GPUs a run gets with --gpus-per-run.",
            )
        return replace(task, threads=self.cpus_per_run or task.threads, processes=self.processes, retries=self.retries)


EXECUTORS: Registry[type[Executor]] = Registry("executor")
"""Executors by name."""
