"""Processes of a run: their launch with torchrun, restarts after a kill, and their end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json
from fedlas._core.threads import limited_to
from fedlas.lab.bench.executors.task import (
    Result,
    Task,
    attempt,
    failed,
    finish,
    told,
)
from fedlas.lab.runs.workers import context, end_with_parent, exit_text

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


def work(task: Task) -> Result:
    """Do a task in a process of its own, on this or another machine."""
    try:
        os.chdir(task.folder)
    except OSError as error:
        reason = f"executor: every machine must see the folder of the bench; got {task.folder} ({error.strerror}). "
        return Result(task.run.name, error=reason, message=reason + "Use a file system that all share.")
    os.environ.update(task.environment)
    sys.argv = list(task.command)
    if task.processes > 1:
        return launch(task)
    with limited_to(task.threads):
        return attempt(task.run, task.label)


def launch(task: Task) -> Result:
    """Do a task with ``task.processes`` processes of ``torchrun``.

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
        note = Path(folder, "error.json")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=task.processes,
            max_restarts=0,  # restarts are made below, because only this code knows which errors are final
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
                    # The rank itself noted its error, so the error is final and another start would repeat it.
                    if note.exists():
                        return failed(task.run, **json.loads(note.read_text(encoding="utf-8")))
                    _, failure = error.get_first_failure()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    reason = f"one of its {task.processes} processes ended with {exit_text(failure.exitcode)}"
    left: Any = failure.message  # what torchrun kept of an exception, else a sentence
    text = left["extraInfo"]["py_callstack"] if isinstance(left, dict) else None
    return failed(task.run, f"{reason} each of {task.retries + 1} times", text=text)


def _rank(task: Task, note: Path) -> Result:
    """One of the processes. A final error is written to ``note``, because another process may end first."""
    end_with_parent()
    try:
        with limited_to(None if task.threads is None else max(1, task.threads // task.processes)):
            result = finish(task.run, task.label)
    except InputError as error:
        write_json(note, told(error))
        raise
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    return result
