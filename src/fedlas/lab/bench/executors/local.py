"""Runs on this machine: one after the other in this process, or several at a time in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas.lab.bench.executors.base import EXECUTORS, Events, Executor
from fedlas.lab.bench.executors.launch import context, end, end_with_parent, exit_text, work
from fedlas.lab.bench.executors.task import Result, Task, attempt, failed


@EXECUTORS.register("local")
class LocalExecutor(Executor):
    """On this machine; with ``workers`` above 1 so many at a time, each in a process of its own.

    Args:
        workers: Runs at a time.
        gpus_per_run: As :class:`Executor`; each worker sees its own GPUs only, and takes turns on them if there are
            more workers than GPUs and nothing was said.
        cpus_per_run: As :class:`Executor`.
        retries: As :class:`Executor`.

    Raises:
        InputError: For numbers out of range, or, once it starts, more GPUs than there are.

    Note:
        What workers print lands in ``.workers/`` beside the run folders.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        gpus_per_run: float | None = None,
        cpus_per_run: int | None = None,
        retries: int = 2,
    ) -> None:
        super().__init__(workers=workers, gpus_per_run=gpus_per_run, cpus_per_run=cpus_per_run, retries=retries)

    @property
    def in_process(self) -> bool:  # type: ignore[override]  # here it depends
        """Whether runs happen in this process."""
        return self.workers == 1 and self.processes == 1 and self.gpus_per_run is None and self.cpus_per_run is None

    def results(self, tasks: Sequence[Task], events: Events) -> Generator[Result]:
        """Do the tasks in their order."""
        if self.in_process:
            for task in tasks:
                events.started(task)
                yield attempt(task.run, task.label)
            return
        count = min(self.workers or 1, len(tasks))
        devices = [_devices(number, count, self.gpus_per_run, visible_gpus()) for number in range(count)]
        threads = self.cpus_per_run or max(1, torch.get_num_threads() // max(count, 1))
        waiting = deque(replace(self.ready(task), threads=threads) for task in tasks)
        starts: dict[str, int] = {}
        workers = [_Worker(tasks[0].run.folder.parent, number, visible) for number, visible in enumerate(devices)]
        try:
            while True:
                for worker in workers:
                    if worker.task is None and waiting:
                        task = waiting.popleft()
                        if task.run.name not in starts:
                            events.started(task)
                        starts[task.run.name] = starts.get(task.run.name, 0) + 1
                        worker.give(task)
                busy = [worker for worker in workers if worker.task is not None]
                if not busy:
                    return
                ready = wait([worker.connection for worker in busy], timeout=0.1)
                events.idle()
                for worker in busy:
                    if worker.connection not in ready or worker.task is None:
                        continue
                    task, result = worker.task, worker.take()
                    if isinstance(result, Result):
                        yield result
                    elif starts[task.run.name] <= self.retries:
                        events.lost(task, result)
                        waiting.appendleft(task)
                    else:
                        yield failed(task.run, f"its process ended with {result}, {starts[task.run.name]} times")
        finally:
            end([worker.process for worker in workers])


@dataclass
class _Worker:
    """A process that does one task after the other, and is replaced if it ends before its task does."""

    folder: Path
    number: int
    devices: str | None
    task: Task | None = None

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        starter = context()
        self.connection, theirs = starter.Pipe()
        log = self.folder / ".workers" / f"{self.number}.log"
        self.process: Any = starter.Process(
            target=_serve, args=(theirs, log, self.devices), name=f"fedlas-worker-{self.number}"
        )
        self.process.start()
        theirs.close()  # so that the pipe ends with the process

    def give(self, task: Task) -> None:
        self.task = task
        if not self.process.is_alive():
            self.connection.close()
            self.start()
        with suppress(OSError):  # it has just ended; `take` will find out
            self.connection.send(task)

    def take(self) -> Result | str:
        """What became of the task, or how the process ended; another one is started for the next task."""
        self.task = None
        try:
            result: Result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return exit_text(self.process.exitcode)
        return result


def _serve(connection: Connection, log: Path, devices: str | None) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the bench ends its workers
    end_with_parent()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(work(task))


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return said.split(",")[:count] if said else [str(number) for number in range(count)]


def _devices(worker: int, workers: int, wanted: float | None, gpus: Sequence[str]) -> str | None:
    """What a worker sees of the GPUs; None leaves it as it is."""
    if wanted is None:
        return gpus[worker % len(gpus)] if gpus else None
    if wanted == 0:
        return ""
    share = max(1, int(1 / wanted + 1e-9))  # runs on one GPU: of 0.7 each it is one, or two would take 1.4
    needed = workers * int(wanted) if wanted >= 1 else -(-workers // share)
    if needed > len(gpus):
        raise InputError(
            "executor local",
            f"{workers} workers with {wanted:g} GPUs each need {needed}",
            f"{len(gpus)} here",
            "Lower --workers or --gpus-per-run.",
        )
    first = worker // share if wanted < 1 else worker * int(wanted)
    return ",".join(gpus[first : first + max(1, int(wanted))])
