"""Progress of many runs in other processes, read from the logs in their folders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fedlas._core.terminal import Bar, say
from fedlas.lab.bench.executors.task import Result, Task
from fedlas.lab.runs.folder import RunFolder


class JointProgress(Bar):
    """Shows the progress of the runs of a bench. A context manager.

    Args:
        console: ``rich.console.Console``.
        tasks: All tasks of the bench.
        watch: Whether to read the runs' logs. If not, runs show their own progress, and this only prints messages.

    Note:
        On a terminal one line is redrawn twice a second; elsewhere a line is printed at most every ten seconds.
    """

    def __init__(self, console: Any, tasks: Sequence[Task], *, watch: bool) -> None:
        self.watch = watch
        self._logs = {task.run.name: _Log(task) for task in tasks}
        self._runs, self._ended = len(tasks), 0
        self._began = self._shown = self._looked = time.monotonic()
        self._text = ""
        self._total, self._before = sum(log.epochs for log in self._logs.values()), self._epochs()
        super().__init__(self._counted(), total=self._total, done=self._before, on=console, quiet=not watch)

    def started(self, task: Task) -> None:
        """Print the epoch after which a run resumes, if it began before."""
        if done := self._logs[task.run.name].done:
            say(f"{task.label}  resumes after epoch {done}", on=self.console)

    def lost(self, task: Task, reason: str) -> None:
        """Print that a run resumes in another process."""
        log = self._logs[task.run.name]
        log.look()
        text = f"{task.label}  its process ended ({reason}); it resumes after epoch {log.done}"
        say(text, style="yellow", on=self.console)

    def said(self, text: str) -> None:
        """Print a message of an executor."""
        say(text, style="dim", on=self.console)

    def ended(self, result: Result) -> None:
        """Count a run that finished, failed, or was left to another process."""
        log = self._logs[result.name]
        if result.line is None:  # its other epochs will not be done
            self._total -= log.epochs - log.done
        log.epochs = log.done = log.done if result.line is None else log.epochs
        log.running, log.ended = False, True
        self._ended += 1

    def remaining(self) -> float | None:
        """Estimated seconds for the other epochs, from those done so far; None before the first."""
        done, now = self._epochs(), time.monotonic()
        if done <= self._before:
            return None
        return (now - self._began) / (done - self._before) * (self._total - done)

    def idle(self) -> None:
        """Read the logs, at most twice a second, and show what changed."""
        now = time.monotonic()
        if not self.watch or now - self._looked < 0.5:
            return
        self._looked = now
        for log in self._logs.values():
            log.look()
        text = ", ".join(_few([log.text for log in self._logs.values() if log.running]))
        if self.live:
            self.update(label=self._counted(), done=self._epochs(), text=text)
        elif text and text != self._text and now - self._shown > 10:
            self.said(f"{self._counted()}: {text}")
            self._text, self._shown = text, now

    def _counted(self) -> str:
        return f"{self._ended} of {self._runs} runs ended"

    def _epochs(self) -> int:
        return sum(log.done for log in self._logs.values())


class _Log:
    """The log of one run, read again only if the file has changed."""

    def __init__(self, task: Task) -> None:
        self.name, self.path = task.run.name, task.run.folder
        self.epochs, self.done, self._stamp = task.run.recipe.train.epochs, 0, 0
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
        """The run and its last epoch."""
        return f"{self.name} epoch {self.done}/{self.epochs}"


def _few(texts: Sequence[str], most: int = 6) -> list[str]:
    return [*texts] if len(texts) <= most else [*texts[:most], f"and {len(texts) - most} more"]
