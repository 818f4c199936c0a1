"""A run as a task for another process, and its result."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_text
from fedlas._core.terminal import is_main_process
from fedlas.lab.data.readers.places import ENVIRONMENT
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.claim import BusyError
from fedlas.lab.runs.collect import read_run
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import keep_estimates
from fedlas.lab.train.progress import ShowProgress, TrainingProgress


@dataclass(frozen=True)
class Task:
    """A run, with all that a process on another machine needs to do it in the same way.

    Attributes:
        run: The run, with absolute folder.
        label: Text in front of its messages.
        command: The command of the bench, for ``environment.json``.
        folder: Working folder of the bench; other machines must see it at the same path.
        environment: Environment variables to set.
        threads: Threads to compute with; None does not set them.
        processes: Processes that share the run, one per GPU.
        retries: How often a run resumes after one of several processes was killed.
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
        """A task with the command, folder and environment of this process."""
        known = {key: os.environ[key] for key in (ENVIRONMENT,) if key in os.environ}
        return cls(replace(run, folder=run.folder.absolute()), label, tuple(sys.argv), environment=known)


@dataclass(frozen=True)
class Result:
    """Result of a run; one of ``line``, ``error`` and ``busy`` is not None.

    Attributes:
        name: Name of the run.
        line: Its main numbers, if it is finished.
        error: The error that ended it, with the error's name.
        message: The error without its name.
        busy: Why the run was left to another process.
    """

    name: str
    line: str | None = None
    error: str | None = None
    message: str = ""
    busy: str | None = None


def attempt(run: Run, label: str, *, show: ShowProgress = TrainingProgress) -> Result:
    """Do a run in this process. An error is noted in its folder and returned."""
    try:
        return finish(run, label, show=show)
    except Exception as error:  # noqa: BLE001 - a run that fails must not stop the others
        return failed(run, **told(error))


def finish(run: Run, label: str, *, show: ShowProgress = TrainingProgress) -> Result:
    """Do a run and its intervals in this process, or leave it to another process that works on it."""
    try:
        metrics = execute(run, label=label, show=show)
    except BusyError as error:
        return Result(run.name, busy=str(error))
    if is_main_process():
        with suppress(ValueError):  # what of the folder cannot be used is for the report to say
            keep_estimates(read_run(RunFolder(run.folder)))
    return Result(run.name, line=_line(metrics))


def told(error: Exception) -> dict[str, str]:
    """Arguments of :func:`failed` for an error."""
    text = "".join(traceback.format_exception(error))
    return {"error": f"{type(error).__name__}: {error}", "message": str(error), "text": text}


def failed(run: Run, error: str, *, message: str | None = None, text: str | None = None) -> Result:
    """The result of a run that failed. The error is noted in the run's folder."""
    if is_main_process():
        with suppress(InputError):  # if the folder cannot be written, only the result holds the error
            write_text(RunFolder(run.folder).error_path, text or f"{error}\n")
    return Result(run.name, error=error, message=error if message is None else message)


def result_of(task: Task, get: Callable[[], Result], errors: type[Exception] = Exception) -> Result:
    """What a task that was done elsewhere came to; an error of getting it is a failure of the run."""
    try:
        return get()
    except errors as error:
        reason = " ".join(str(error).split())[:300]
        return failed(task.run, f"{type(error).__name__}: {reason}", text=str(error))


def _line(metrics: dict[str, Any]) -> str:
    test = metrics["test"]
    scaled = metrics["test_calibrated"]["ece"]
    return (
        f"accuracy {test['accuracy']:.1%}  ECE {test['ece']:.2%} ({scaled:.2%} after temperature)  "
        f"{metrics['seconds']:.0f} s"
    )
