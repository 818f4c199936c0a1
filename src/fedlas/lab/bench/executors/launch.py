"""Several processes on one run: started together, ended together, and started again if one of them was killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
import time
from functools import cache
from multiprocessing.connection import wait
from typing import Any

from fedlas.lab.bench.executors.task import Result, Task, attempt, failed

_GRACE = 20.0
"""Seconds that the others get once one of the processes has failed; it may have left them waiting for it."""


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
        import torch

        torch.set_num_threads(task.threads)
    if task.processes > 1:
        return launch(task)
    return attempt(task.run, task.label)


def launch(task: Task) -> Result:
    """Do a task with ``task.processes`` processes, as ``torchrun`` would start them.

    Returns:
        What the first process found, or the failure of whichever had one.

    State:
        The processes end with this one, however it ends.
    """
    for _ in range(task.retries + 1):
        result = _together(task)
        if isinstance(result, Result):
            return result
    return failed(
        task.run, f"one of its {task.processes} processes ended with {result} each of {task.retries + 1} times"
    )


def _together(task: Task) -> Result | str:
    """What became of the run, or how a process ended that did not tell."""
    starter = context()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [starter.Pipe(duplex=False) for _ in range(task.processes)]
    processes = [
        starter.Process(target=_rank, args=(task, rank, port, send), name=f"fedlas-rank-{rank}")
        for rank, (_, send) in enumerate(pipes)
    ]
    try:
        for process, (_, send) in zip(processes, pipes, strict=True):
            process.start()
            send.close()  # so that the pipe ends with the process
        results: dict[int, Result] = {}
        silent = ""
        waiting = {receive: rank for rank, (receive, _) in enumerate(pipes)}
        deadline = float("inf")
        while waiting and time.monotonic() < deadline:
            ready = wait(list(waiting), timeout=0.5)
            for receive, rank in [item for item in waiting.items() if item[0] in ready]:
                del waiting[receive]
                try:
                    results[rank] = receive.recv()
                except EOFError:
                    processes[rank].join()
                    silent = exit_text(processes[rank].exitcode)
                if silent or results[rank].line is None:
                    deadline = min(deadline, time.monotonic() + (0 if silent else _GRACE))
        failures = [result for result in results.values() if result.error]
        if failures or not silent:
            return failures[0] if failures else results.get(0) or next(iter(results.values()))
        return silent
    finally:
        end(processes)


def _rank(task: Task, rank: int, port: int, send: Any) -> None:
    """One of the processes."""
    end_with_parent()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(task.processes)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(task.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if task.threads is not None:
        import torch

        torch.set_num_threads(max(1, task.threads // task.processes))
    result = attempt(task.run, task.label)
    send.send(result)
    if not result.error:  # one that failed would wait for others that wait for it
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


@cache
def context() -> Any:
    """What starts processes: copies of one that has imported everything, where the system can do that.

    That one has touched no accelerator and runs no threads, so that copying it is safe.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    starter = multiprocessing.get_context("forkserver")
    starter.set_forkserver_preload(["fedlas.lab.bench.executors.local", "accelerate", "rich.progress", "filelock"])
    return starter


def end_with_parent() -> None:
    """End this process when the one that started it does, even if that was killed."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end(processes: Any) -> None:
    """End processes: asked first, killed after a few seconds."""
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
    """How a process ended, in words: ``signal 9`` or ``exit status 1``."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
