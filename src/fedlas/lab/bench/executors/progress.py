"""One view of many runs that happen elsewhere: read from their logs, so it needs nothing but their folders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from fedlas._core.terminal import Bar, say
from fedlas.lab.bench.executors.task import Result, Task
from fedlas.lab.runs.folder import RunFolder


class JointProgress:
    """Shows how far the runs of a bench are. A context manager.

    Args:
        console: ``rich.console.Console``.
        tasks: All tasks that are to be done.
        watch: Whether to look at the runs' logs; without it runs show their own progress and this only speaks.

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
        self._bar = Bar(self._counted(), total=self._total, done=self._before, on=console, quiet=not watch)
        self.console, self.live = self._bar.console, self._bar.live

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def started(self, task: Task) -> None:
        """Say which epoch a run goes on after, if it was begun before."""
        done = self._logs[task.run.name].done
        if done:
            self._print(f"{task.label}  going on after epoch {done}")

    def lost(self, task: Task, reason: str) -> None:
        """Say that a run goes on in another process."""
        self._logs[task.run.name].look()
        epoch = self._logs[task.run.name].done
        self._print(f"{task.label}  its process ended ({reason}); going on after epoch {epoch}", style="yellow")

    def said(self, text: str) -> None:
        """Pass on what an executor says."""
        self._print(text, style="dim")

    def ended(self, result: Result) -> None:
        """A run is done, one way or the other."""
        log = self._logs[result.name]
        if result.line is None:  # what is left of it will not be done
            self._total -= log.epochs - log.done
        log.epochs = log.done = log.done if result.line is None else log.epochs
        log.running, log.ended = False, True
        self._ended += 1

    def remaining(self) -> float | None:
        """Seconds that the rest will take, by the epochs done so far; None before the first."""
        done, now = self._epochs(), time.monotonic()
        if done <= self._before:
            return None
        return (now - self._began) / (done - self._before) * (self._total - done)

    def idle(self) -> None:
        """Look at the logs, at most twice a second, and show what changed."""
        now = time.monotonic()
        if not self.watch or now - self._looked < 0.5:
            return
        self._looked = now
        for log in self._logs.values():
            log.look()
        text = ", ".join(_few([log.text for log in self._logs.values() if log.running]))
        if self.live:
            self._bar.update(label=self._counted(), done=self._epochs(), text=text)
        elif text and text != self._text and now - self._shown > 10:
            self._print(f"{self._counted()}: {text}", style="dim")
            self._text, self._shown = text, now

    def _counted(self) -> str:
        return f"{self._ended} of {self._runs} runs ended"

    def _epochs(self) -> int:
        return sum(log.done for log in self._logs.values())

    def _print(self, text: str, style: str | None = None) -> None:
        say(text, style=style, on=self.console)


class _Log:
    """The log of one run, read again only when the file has changed."""

    def __init__(self, task: Task) -> None:
        self.name, self.path = task.run.name, task.run.folder
        self.epochs, self.done, self._stamp = task.run.recipe.train.epochs, 0, 0
        self.running = self.ended = False
        self.look()
        self.running = False  # what is there now is from an earlier start

    def look(self) -> None:
        """Read what is new."""
        with suppress(OSError):  # there is none yet
            folder = RunFolder(self.path)
            stamp = folder.log_path.stat().st_mtime_ns
            if stamp != self._stamp and not self.ended:
                self._stamp, self.done = stamp, len(folder.log)
                self.running = self.done > 0

    @property
    def text(self) -> str:
        """How far it is."""
        return f"{self.name} epoch {self.done}/{self.epochs}"


def _few(texts: Sequence[str], most: int = 6) -> list[str]:
    return [*texts] if len(texts) <= most else [*texts[:most], f"and {len(texts) - most} more"]
