"""Local executor: one run after the other, several in worker processes, or one run in several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import torch

from fedlas._core.check import InputError
from fedlas._core.files import require_no_device, require_no_links, write_json
from fedlas._core.text import pluralize
from fedlas.lab.benches.executors.base import (
    EXECUTORS,
    Executor,
    ExecutorEvents,
    Task,
    TaskResult,
    failure_arguments,
    record_failure,
    run_task,
    try_run_task,
)  # fmt: skip
from fedlas.lab.runs.train import count_available_cores, limit_threads

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]


def run_in_worker(task: Task) -> TaskResult:
    """Execute a task in a worker process, on this or another machine, in the folder and environment of the task."""
    try:
        os.chdir(task.folder)
    except OSError as error:
        expected = "every machine must see the folder of the bench"
        got = f"{task.folder} ({error.strerror})"
        return TaskResult(
            task.run.name,
            error=f"executor: {expected}; got {got}. Use a file system that all share.",
        )
    os.environ.update(task.environment)
    sys.argv = list(task.command)
    if task.processes > 1:
        return run_with_torchrun(task)
    with limit_threads(task.threads):
        return try_run_task(task)


def run_with_torchrun(task: Task) -> TaskResult:
    """Execute a task with ``torchrun`` in ``task.processes`` processes.

    Returns:
        The first process's result. If a process was killed or failed, all are restarted and resume from the checkpoint,
        at most ``task.retries`` times. An :class:`~fedlas._core.check.InputError` is final and is noted at once.

    State:
        The processes end with this one, however it ends.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # In the main thread torchrun replaces signal handlers for good; they are restored below.
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS} if main else {}
    with TemporaryDirectory(prefix="fedlas-") as folder:
        error_path = Path(folder, "error.json")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=task.processes,
            # restarts are made below, because only this code knows which errors are final
            max_restarts=0,
            run_id=task.run.name,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",  # the machine's name may not resolve
            start_method=multiprocessing_context().get_start_method(),
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            for _ in range(task.retries + 1):
                try:
                    return elastic_launch(config, _run_rank)(task, error_path)[0]
                except ChildFailedError as error:
                    # The rank itself noted its error, so the error is final and another start would repeat it.
                    if error_path.exists():
                        return record_failure(
                            task.run, **json.loads(error_path.read_text(encoding="utf-8"))
                        )
                    _, failure = error.get_first_failure()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    reason = f"one of its {task.processes} processes ended with {describe_exit(failure.exitcode)}"
    message: Any = failure.message  # what torchrun kept of an exception, else a sentence
    text = message["extraInfo"]["py_callstack"] if isinstance(message, dict) else None
    return record_failure(task.run, f"{reason} each of {task.retries + 1} times", text=text)


def _run_rank(task: Task, error_path: Path) -> TaskResult:
    """Execute the task as one rank; write a final error to ``error_path``, because another rank may end first."""
    exit_with_parent()
    try:
        with limit_threads(
            None if task.threads is None else max(1, task.threads // task.processes)
        ):
            result = run_task(task)
    except InputError as error:
        write_json(error_path, failure_arguments(error))
        raise
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    return result


@EXECUTORS.register("local")
class LocalExecutor(Executor):
    """Executor on this machine: ``workers`` runs at a time, each in its own process if there is more than one.

    Args:
        workers: Runs at a time; None is one a core where they have one thread each (small models without a GPU, see
            :func:`~fedlas.lab.runs.workload.choose_threads`) or ``cpus_per_run``, else one.
        gpus_per_run: As :class:`Executor`; each worker sees only its own GPUs. By default, workers share GPUs if there
            are more workers than GPUs.
        cpus_per_run: As :class:`Executor`; None is one for small models, else an equal share.
        retries: As :class:`Executor`.

    Raises:
        InputError: For numbers out of range, or, once it starts, more GPUs than there are.

    Note:
        The output of workers goes to ``.workers/`` next to the run folders.
    """

    def results(self, tasks: Sequence[Task], events: ExecutorEvents) -> Generator[TaskResult]:
        """Execute the tasks in order and yield each result when it is available."""
        tasks = [replace(task, threads=self.cpus_per_run or task.threads) for task in tasks]
        num_workers = min(self.workers or self._default_workers(tasks[0]), len(tasks))
        if (
            num_workers == 1
            and self.processes == 1
            and self.gpus_per_run is None
            and self.cpus_per_run is None
        ):
            for task in tasks:
                events.on_start(task)
                with limit_threads(task.threads):
                    task_result = try_run_task(task, show=events.show(task))
                yield task_result
            return

        # Divide GPUs and threads, and start the workers.
        devices = [
            _visible_devices(number, num_workers, self.gpus_per_run, visible_gpus())
            for number in range(num_workers)
        ]
        threads_per_worker = max(1, torch.get_num_threads() // num_workers)
        waiting = deque(
            replace(self.prepare_task(task), threads=task.threads or threads_per_worker)
            for task in tasks
        )
        start_counts: dict[str, int] = {}
        workers = [
            Worker(tasks[0].run.folder.parent, number, visible)
            for number, visible in enumerate(devices)
        ]
        try:
            while True:
                # Give each free worker the next task.
                for worker in workers:
                    if worker.task is None and waiting:
                        task = waiting.popleft()
                        if task.run.name not in start_counts:
                            events.on_start(task)
                        start_counts[task.run.name] = start_counts.get(task.run.name, 0) + 1
                        worker.assign_task(task)
                busy = [worker for worker in workers if worker.task is not None]
                if not busy:
                    return

                # Collect what has ended; a task whose process was lost is done first.
                ready = wait([worker.connection for worker in busy], timeout=0.1)
                events.on_idle()
                for worker in busy:
                    if worker.connection not in ready or worker.task is None:
                        continue
                    task = worker.task
                    result = worker.collect_result()
                    if isinstance(result, TaskResult):
                        yield result
                    elif start_counts[task.run.name] <= self.retries:
                        events.on_lost(task, result)
                        waiting.appendleft(task)
                    else:
                        times = pluralize(start_counts[task.run.name], "time")
                        yield record_failure(task.run, f"its process ended with {result}, {times}")
        finally:
            terminate_processes([worker.process for worker in workers])

    def _default_workers(self, task: Task) -> int:
        """Return the default number of workers: one per core for small models without a GPU, else one."""
        if (
            task.threads is None
            or self.gpus_per_run
            or visible_gpus()
            or int(os.environ.get("WORLD_SIZE", "1")) > 1
        ):
            return 1
        return max(1, count_available_cores() // task.threads)


def _visible_devices(
    worker_index: int, num_workers: int, gpus_per_run: float | None, gpus: Sequence[str]
) -> str | None:
    """Return ``CUDA_VISIBLE_DEVICES`` for a worker, or None to leave it unset."""
    if gpus_per_run is None:
        return gpus[worker_index % len(gpus)] if gpus else None
    if gpus_per_run == 0:
        return ""
    # runs per GPU: one run of 0.7, because two would need 1.4
    runs_per_gpu = max(1, int(1 / gpus_per_run + 1e-9))
    needed = (
        num_workers * int(gpus_per_run) if gpus_per_run >= 1 else -(-num_workers // runs_per_gpu)
    )
    if needed > len(gpus):
        raise InputError(
            f"{num_workers} workers with {gpus_per_run:g} GPUs each require {needed} GPUs",
            f"{len(gpus)} on this machine",
            "Lower --workers or --gpus-per-run.",
        )
    first = worker_index // runs_per_gpu if gpus_per_run < 1 else worker_index * int(gpus_per_run)
    return ",".join(gpus[first : first + max(1, int(gpus_per_run))])


class Worker:
    """Worker process that executes one task after the other; restarted if it ends before its task does.

    Args:
        folder: Its output goes to ``.workers/NUMBER.log`` below.
        number: Number of the worker.
        devices: ``CUDA_VISIBLE_DEVICES`` of the process; None does not set it.

    Attributes:
        task: Current task; None while it waits.
        connection: Ready for reading when the task has ended, or the process has.
    """

    def __init__(self, folder: Path, number: int, devices: str | None) -> None:
        self.number = number
        self.task: Task | None = None
        self._log = require_no_links(folder, folder / ".workers") / f"{number}.log"
        self._devices = devices
        self.connection: Connection
        self.process: Any
        self._start()

    def assign_task(self, task: Task) -> None:
        """Start a task; the worker must be free."""
        self.task = task
        if not self.process.is_alive():
            self.connection.close()
            self._start()
        with suppress(OSError):  # the process has just ended; `collect_result` notices it
            self.connection.send(task)

    def collect_result(self) -> TaskResult | str:
        """Return the result of the task, or how the process ended; the next task then starts a new process."""
        self.task = None
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return describe_exit(self.process.exitcode)

    def _start(self) -> None:
        """Start the process and connect to it; try twice, since the fork server may have been killed."""
        starter = multiprocessing_context()
        for is_last_attempt in (False, True):
            self.connection, child_end = starter.Pipe()
            self.process = starter.Process(
                target=_serve_tasks,
                args=(child_end, self._log, self._devices),
                name=f"fedlas-worker-{self.number}",
            )
            try:
                self.process.start()
                return
            except (
                EOFError,
                ConnectionError,
            ):  # the server of forks was killed; the next start begins another
                self.connection.close()
                if is_last_attempt:
                    raise
            finally:
                child_end.close()  # so that the pipe closes when the process ends


def _serve_tasks(connection: Connection, log: Path, devices: str | None) -> None:
    """Execute the tasks received on a connection until it closes; write output to ``log``."""
    # Ctrl-C reaches all processes, and the parent ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    with open_worker_log(log) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(run_in_worker(task))


def open_worker_log(path: Path) -> IO[str]:
    """Open the file for a worker's output, or the null device if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return require_no_device(path).open("a")
    except OSError:
        return Path(os.devnull).open("a")


@cache
def multiprocessing_context() -> Any:
    """Return the multiprocessing context: a fork server with preloaded modules where available, else ``spawn``.

    The server has used no accelerator and runs no threads, so that forking it is safe.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    starter = multiprocessing.get_context("forkserver")
    # The first keeps the server from outliving this process while it imports the others.
    modules = f"fedlas.lab.runs.orphan {__name__} accelerate rich.progress filelock torch._dynamo"
    starter.set_forkserver_preload(modules.split())
    return starter


def exit_with_parent() -> None:
    """Exit this process when its parent ends, even if the parent was killed."""

    def watch() -> None:
        """Wait for the parent process to end, then exit."""
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def terminate_processes(processes: Any) -> None:
    """Terminate processes, and kill those still alive after five seconds."""
    for process in processes:
        if process.pid is not None and process.is_alive():
            process.terminate()
    for process in processes:
        if process.pid is not None:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def describe_exit(code: int | None) -> str:
    """Return how a process ended as text, such as ``signal 9`` or ``exit status 1``."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that this process may use, as in ``CUDA_VISIBLE_DEVICES``."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return names.split(",")[:count] if names else [str(number) for number in range(count)]
