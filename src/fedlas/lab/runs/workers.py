"""Worker processes on this machine: each does one job after the other, and is replaced if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import torch

from fedlas._core.files import path_inside


class Worker:
    """A process that does one job after the other. It is replaced if it ends before its job does.

    Args:
        folder: Its output goes to ``.workers/NUMBER.log`` below.
        number: Number of the worker.
        devices: ``CUDA_VISIBLE_DEVICES`` of the process; None does not set it.
        work: Called with each job in the process; it raises nothing, and its result can be pickled.

    Attributes:
        job: Current job; None while it waits.
        connection: Ready for reading when the job has ended, or the process has.
    """

    def __init__(self, folder: Path, number: int, devices: str | None, work: Callable[[Any], Any]) -> None:
        self.number = number
        self.job: Any = None
        self._log = path_inside(folder, folder / ".workers" / f"{number}.log")
        self._devices, self._work = devices, work
        self.connection: Connection
        self.process: Any
        self._start()

    def give(self, job: Any) -> None:
        """Begin a job; the worker must be free."""
        self.job = job
        if not self.process.is_alive():
            self.connection.close()
            self._start()
        with suppress(OSError):  # the process has just ended; `take` notices it
            self.connection.send(job)

    def take(self) -> Any:
        """Return the result of the job, or how the process ended, as text. The next job then starts another process."""
        self.job = None
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return exit_text(self.process.exitcode)

    def _start(self) -> None:
        starter = context()
        for attempt in range(2):
            self.connection, theirs = starter.Pipe()
            self.process = starter.Process(
                target=_serve, args=(theirs, self._log, self._devices, self._work), name=f"fedlas-worker-{self.number}"
            )
            try:
                self.process.start()
                return
            except (EOFError, ConnectionError):  # the server of forks was killed; the next start begins another
                self.connection.close()
                if attempt:
                    raise
            finally:
                theirs.close()  # so that the pipe closes when the process ends


def _serve(connection: Connection, log: Path, devices: str | None, work: Callable[[Any], Any]) -> None:
    """Do the jobs of a connection until it closes. Output goes to ``log``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent ends its workers
    end_with_parent()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    with open_log(log) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(work(job))


def open_log(path: Path) -> IO[str]:
    """Open the file for a worker's output; a full or read-only disk, which each job names, gets none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError:
        return Path(os.devnull).open("a")


@cache
def context() -> Any:
    """Return the multiprocessing context: forks of a server that has imported everything, where the system has that.

    The server has used no accelerator and runs no threads, so that forking it is safe.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    starter = multiprocessing.get_context("forkserver")
    # The first keeps the server from outliving this process while it imports the others.
    modules = "fedlas.lab.runs.orphan fedlas.lab.bench.executors.local accelerate rich.progress filelock torch._dynamo"
    starter.set_forkserver_preload(modules.split())
    return starter


def end_with_parent() -> None:
    """End this process when its parent ends, even if the parent was killed."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end(processes: Any) -> None:
    """Terminate processes, and kill those that still run after a few seconds."""
    for process in processes:
        if process.pid is not None and process.is_alive():
            process.terminate()
    for process in processes:
        if process.pid is not None:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def exit_text(code: int | None) -> str:
    """Return how a process ended, as text: ``signal 9`` or ``exit status 1``."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, for ``CUDA_VISIBLE_DEVICES``."""
    names, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return names.split(",")[:count] if names else [str(number) for number in range(count)]
