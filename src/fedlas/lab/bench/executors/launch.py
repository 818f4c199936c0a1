"""Several processes on one run: started together, ended together, and started again if one of them was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json
from fedlas.lab.bench.executors.task import Result, Task, attempt, failed, finish, told

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


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
    """Do a task with ``task.processes`` processes of ``torchrun``.

    Returns:
        What the first process found. If a process was killed or failed, all are started again and go on from the
        checkpoint, ``task.retries`` times; an :class:`~fedlas._core.check.InputError` is final and is noted at once.

    State:
        The processes end with this one, however it ends.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # In the main thread torchrun takes signals over for good; whatever comes next must be interrupted as before.
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS} if main else {}
    with TemporaryDirectory(prefix="fedlas-") as folder:
        note = Path(folder, "error.json")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=task.processes,
            max_restarts=0,  # what a restart cannot help is known here alone
            run_id=task.run.name,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",  # the machine's name may not resolve
            start_method=context().get_start_method(),
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            for _ in range(task.retries + 1):
                try:
                    result: Result = elastic_launch(config, _rank)(task, note)[0]
                    return result
                except ChildFailedError as error:
                    if note.exists():
                        return failed(task.run, **json.loads(note.read_text(encoding="utf-8")))
                    _, failure = error.get_first_failure()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    reason = f"one of its {task.processes} processes ended with {exit_text(failure.exitcode)}"
    left: Any = failure.message  # of an exception what torchrun kept of it, else a sentence
    text = left["extraInfo"]["py_callstack"] if isinstance(left, dict) else None
    return failed(task.run, f"{reason} each of {task.retries + 1} times", text=text)


def _rank(task: Task, note: Path) -> Result:
    """One of the processes. An error that would come again is left in ``note``: another one may end with it first."""
    end_with_parent()
    if task.threads is not None:
        import torch

        torch.set_num_threads(max(1, task.threads // task.processes))
    try:
        result = finish(task.run, task.label)
    except InputError as error:
        write_json(note, told(error))
        raise
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    return result


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
