"""Progress of all runs of a bench: one bar with the time left, or a line a finished run without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from fedlas._core.terminal import Bar, say
from fedlas.lab.bench.executors.task import Result, Task
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.progress import Progress, ShowProgress

_QUIET = 600.0
"""Seconds between two lines without a terminal while no run ends."""


class JointProgress(Bar):
    """Shows the progress of the runs of a bench. A context manager.

    Args:
        console: ``rich.console.Console``.
        tasks: All tasks of the bench.

    Note:
        On a terminal one line is redrawn twice a second. Elsewhere a line is printed when no run has ended for ten
        minutes. Runs in this process tell their steps; of others the logs are read.
    """

    def __init__(self, console: Any, tasks: Sequence[Task]) -> None:
        self._logs = {task.run.name: _Log(task) for task in tasks}
        self._runs, self._ended = len(tasks), 0
        self._began = self._shown = self._looked = time.monotonic()
        self._total, self._before = sum(log.work for log in self._logs.values()), self._epochs()
        super().__init__(self._counted(), total=self._total, on=console)
        self._refresh()

    def started(self, task: Task) -> None:
        """Print the epoch after which a run resumes, if it began before."""
        if done := self._logs[task.run.name].done:
            say(f"{task.label}  resumes after epoch {done:.0f}", on=self.console)

    def lost(self, task: Task, reason: str) -> None:
        """Print that a run resumes in another process."""
        log = self._logs[task.run.name]
        log.look()
        text = f"{task.label}  its process ended ({reason}); it resumes after epoch {log.done:.0f}"
        say(text, style="yellow", on=self.console)

    def said(self, text: str) -> None:
        """Print a message of an executor."""
        say(text, style="dim", on=self.console)

    def show(self, task: Task) -> ShowProgress:
        """What shows the progress of a run in this process: as a part of this bar."""
        return partial(_part, self, self._logs[task.run.name])

    def ended(self, result: Result) -> None:
        """Count a run that finished, failed, or was left to another process."""
        log = self._logs[result.name]
        if result.line is None:  # its other epochs will not be done
            self._total -= log.work - int(log.done)
        log.work = log.done = int(log.done) if result.line is None else log.work
        log.running, log.ended = False, True
        self._ended, self._shown = self._ended + 1, time.monotonic()
        self._refresh()

    def remaining(self) -> float | None:
        """Estimated seconds for the other epochs, from those done so far; None before the first."""
        done, now = self._epochs(), time.monotonic()
        if done <= self._before:
            return None
        return (now - self._began) / (done - self._before) * (self._total - done)

    def due(self) -> bool:
        """Whether it is time to show something: at most twice a second."""
        return time.monotonic() - self._looked >= 0.5

    def idle(self) -> None:
        """Read the logs, at most twice a second, and show what changed."""
        if self.due():
            for log in self._logs.values():
                log.look()
            self.tell()

    def tell(self) -> None:
        """Show how far the runs are."""
        now = self._looked = time.monotonic()
        self._refresh()
        if not self.live and now - self._shown > _QUIET:
            self.said(f"{self._counted()}: {', '.join(_few(self._running(), most=6))}")
            self._shown = now

    def _refresh(self) -> None:
        done = self._epochs()
        # Epochs of an earlier start took no time of this one, so that they would make the time left too short.
        texts = _few(self._running(), most=1)
        self.update(
            label=self._counted(),
            done=done - self._before,
            total=self._total - self._before,
            text=", ".join(texts),
        )

    def _running(self) -> list[str]:
        return [log.text for log in self._logs.values() if log.running]

    def _counted(self) -> str:
        return f"{self._ended} of {self._runs} runs"

    def _epochs(self) -> float:
        return sum(log.done for log in self._logs.values())


class _Log:
    """The log of one run, read again only if the file has changed."""

    def __init__(self, task: Task) -> None:
        self.name, self.path = task.run.name, task.run.folder
        self.epochs: int = task.run.recipe.train.epochs
        self.work = self.epochs + 1  # metrics and intervals count as one more
        self.done: float = 0
        self._stamp = 0
        self.running = self.ended = False
        self.look()
        self.running = False  # these epochs are of an earlier start

    def look(self) -> None:
        """Read the log if it has changed."""
        with suppress(OSError):  # there is no log yet
            folder = RunFolder(self.path)
            stamp = folder.log_path.stat().st_mtime_ns
            if stamp != self._stamp and not self.ended:
                self._stamp, self.done = stamp, len(folder.log)
                self.running = self.done > 0

    @property
    def text(self) -> str:
        """The run and its epoch."""
        return f"{self.name} {f'{self.done:.0f}/{self.epochs}' if self.done < self.epochs else 'is measured'}"


class _Part(Progress):
    """Progress of one run of this process, shown in the bar of all."""

    def __init__(self, joint: JointProgress, log: _Log, steps: int, done: int) -> None:
        self._joint, self._log, self._steps = joint, log, steps
        log.done, log.running = done, True

    def due(self) -> bool:
        return self._joint.live and self._joint.due()

    def step(self, epoch: int, step: int, loss: float | None = None) -> None:
        self._log.done = epoch - 1 + step / self._steps
        if loss is not None:
            self._joint.tell()

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._log.done = record["epoch"]
        if self._joint.due():
            self._joint.tell()


@contextmanager
def _part(joint: JointProgress, log: _Log, _: str, *, steps: int, done: int = 0, **_more: Any) -> Iterator[Progress]:
    yield _Part(joint, log, steps, done)


def _few(texts: Sequence[str], most: int) -> list[str]:
    return [*texts] if len(texts) <= most else [*texts[:most], f"{len(texts) - most} more"]
