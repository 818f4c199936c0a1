"""The local executor: runs one after the other in this process, or several at a time in worker processes."""

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
from typing import Any, ClassVar

import torch

from fedlas._core.check import InputError
from fedlas._core.threads import available_cores, limited_to
from fedlas.lab.bench.executors.base import EXECUTORS, Events, Executor
from fedlas.lab.bench.executors.launch import context, end, end_with_parent, exit_text, work
from fedlas.lab.bench.executors.task import Result, Task, attempt, failed


@EXECUTORS.register("local")
class LocalExecutor(Executor):
    """On this machine, ``workers`` runs at a time; more than one are in processes of their own.

    Args:
        workers: Runs at a time; None is one a core where they have one thread each (small models without a GPU, see
            :func:`~fedlas.lab.runs.threads.threads_for`) or ``cpus_per_run``, else one.
        gpus_per_run: As :class:`Executor`; each worker sees only its own GPUs. By default, workers share GPUs if there
            are more workers than GPUs.
        cpus_per_run: As :class:`Executor`; None is one for small models, else an equal share.
        retries: As :class:`Executor`.

    Raises:
        InputError: For numbers out of range, or, once it starts, more GPUs than there are.

    Note:
        The output of workers goes to ``.workers/`` next to the run folders.
    """

    room: ClassVar[str] = "one a core where the model is small and there is no GPU, else one at a time"

    def results(self, tasks: Sequence[Task], events: Events) -> Generator[Result]:
        """Do the tasks in their order."""
        tasks = [replace(task, threads=self.cpus_per_run or task.threads) for task in tasks]
        count = min(self.workers or self._room(tasks[0]), len(tasks))
        if count == 1 and self.processes == 1 and self.gpus_per_run is None and self.cpus_per_run is None:
            for task in tasks:
                events.started(task)
                with limited_to(task.threads):
                    ended = attempt(task.run, task.label, show=events.show(task))
                yield ended
            return

        # Divide GPUs and threads, and start the workers.
        devices = [_devices(number, count, self.gpus_per_run, visible_gpus()) for number in range(count)]
        share = max(1, torch.get_num_threads() // count)
        waiting = deque(replace(self.ready(task), threads=task.threads or share) for task in tasks)
        starts: dict[str, int] = {}
        workers = [_Worker(tasks[0].run.folder.parent, number, visible) for number, visible in enumerate(devices)]
        try:
            while True:
                # Give each free worker the next task.
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

                # Collect what has ended; a task whose process was lost is done first.
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

    def _room(self, task: Task) -> int:
        """Runs at a time if nothing says how many."""
        if task.threads is None or self.gpus_per_run or visible_gpus() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            return 1
        return max(1, available_cores() // task.threads)


@dataclass
class _Worker:
    """A process that does one task after the other. It is replaced if it ends before its task does."""

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
        theirs.close()  # so that the pipe closes when the process ends

    def give(self, task: Task) -> None:
        self.task = task
        if not self.process.is_alive():
            self.connection.close()
            self.start()
        with suppress(OSError):  # the process has just ended; `take` notices it
            self.connection.send(task)

    def take(self) -> Result | str:
        """The result of the task, or how the process ended. The next task then starts another process."""
        self.task = None
        try:
            result: Result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return exit_text(self.process.exitcode)
        return result


def _serve(connection: Connection, log: Path, devices: str | None) -> None:
    """Do the tasks of a connection until it closes. Output goes to ``log``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the bench ends its workers
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
    """Names of the GPUs that this process may use, for ``CUDA_VISIBLE_DEVICES``."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return said.split(",")[:count] if said else [str(number) for number in range(count)]


def _devices(worker: int, workers: int, wanted: float | None, gpus: Sequence[str]) -> str | None:
    """``CUDA_VISIBLE_DEVICES`` of a worker; None does not set it."""
    if wanted is None:
        return gpus[worker % len(gpus)] if gpus else None
    if wanted == 0:
        return ""
    share = max(1, int(1 / wanted + 1e-9))  # runs per GPU: one run of 0.7, because two would need 1.4
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
