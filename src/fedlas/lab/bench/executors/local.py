"""The local executor: runs one after the other in this process, or several at a time in worker processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from typing import ClassVar

import torch

from fedlas._core.check import InputError
from fedlas._core.threads import available_cores, limited_to
from fedlas.lab.bench.executors.base import EXECUTORS, Events, Executor
from fedlas.lab.bench.executors.launch import work
from fedlas.lab.bench.executors.task import Result, Task, attempt, failed
from fedlas.lab.runs.workers import Worker, end, visible_gpus


@EXECUTORS.register("local")
class LocalExecutor(Executor):
    """On this machine, ``workers`` runs at a time; more than one are in processes of their own.

    Args:
        workers: Runs at a time; None is one a core where they have one thread each (small models without a GPU, see
            :func:`~fedlas.lab.runs.build.threads_for`) or ``cpus_per_run``, else one.
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
        workers = [Worker(tasks[0].run.folder.parent, number, visible, work) for number, visible in enumerate(devices)]
        try:
            while True:
                # Give each free worker the next task.
                for worker in workers:
                    if worker.job is None and waiting:
                        task = waiting.popleft()
                        if task.run.name not in starts:
                            events.started(task)
                        starts[task.run.name] = starts.get(task.run.name, 0) + 1
                        worker.give(task)
                busy = [worker for worker in workers if worker.job is not None]
                if not busy:
                    return

                # Collect what has ended; a task whose process was lost is done first.
                ready = wait([worker.connection for worker in busy], timeout=0.1)
                events.idle()
                for worker in busy:
                    if worker.connection not in ready or worker.job is None:
                        continue
                    task, result = worker.job, worker.take()
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
