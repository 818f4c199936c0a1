"""Joint progress bar over the runs of a bench; without a terminal, one line every ten minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fedlas._core.progress import ProgressBar
from fedlas._core.terminal import Console, print_lines
from fedlas.lab.benches.executors.base import Task, TaskResult
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.log import Progress, ShowProgress

_SECONDS_BETWEEN_LINES = 600.0
"""Seconds between two lines if there is no terminal and no run ends."""


class JointProgress(ProgressBar):
    """Context manager that shows the progress of all runs of a bench.

    Args:
        console: ``rich.console.Console``.
        tasks: All tasks of the bench.

    Note:
        Runs in this process report their steps; runs in other processes are followed through their logs.
    """

    def __init__(self, console: Console | None, tasks: Sequence[Task]) -> None:
        self._epochs = {task.run.name: task.run.recipe.train.epochs for task in tasks}
        self._folders = {task.run.name: RunFolder(task.run.folder) for task in tasks}
        self._done: dict[str, float] = {
            name: len(folder.log) for name, folder in self._folders.items()
        }
        # Epochs of an earlier start are not counted: they would make the estimate of the time left too short.
        self._before = sum(self._done.values())
        self._ended = 0
        self._text = ""
        self._looked = time.monotonic()
        self._shown = time.monotonic()
        super().__init__(
            self._runs_label(), total=int(sum(self._epochs.values()) - self._before), on=console
        )

    def on_start(self, task: Task) -> None:
        """Print the epoch after which a run resumes, if it was trained before."""
        if done := self._done[task.run.name]:
            print_lines(f"{task.run.name}  resumes after epoch {done:.0f}", on=self.console)

    def on_lost(self, task: Task, reason: str) -> None:
        """Print that the process of a run ended and that the run resumes in another process."""
        done = len(RunFolder(task.run.folder).log)
        text = f"{task.run.name}  its process ended ({reason}); it resumes after epoch {done}"
        print_lines(text, style="yellow", on=self.console)

    def on_message(self, text: str) -> None:
        """Print a message of an executor."""
        print_lines(text, style="dim", on=self.console)

    def show(self, task: Task) -> ShowProgress:
        """Return the progress display of a run in this process, as part of this bar."""
        return partial(_run_progress, self, task.run.name)

    def count_ended(self, result: TaskResult) -> None:
        """Count a run as ended: finished, failed, or left to another process."""
        self._done[result.name], self._ended = self._epochs[result.name], self._ended + 1
        self._shown = time.monotonic()
        self.redraw()

    def due(self) -> bool:
        """Return whether half a second has passed since the last update."""
        return time.monotonic() - self._looked >= 0.5

    def on_idle(self) -> None:
        """Update the bar from the logs of runs in other processes, at most twice per second."""
        if self.due():
            for name, folder in self._folders.items():
                if self._done[name] < self._epochs[name]:
                    self.set_epochs_done(name, len(RunFolder(folder.path).log))
            self.redraw()

    def set_epochs_done(self, name: str, epochs: float) -> None:
        """Set the number of finished epochs of a run."""
        if epochs > self._done[name]:
            self._done[name], self._text = epochs, f"{name} {epochs:.0f}/{self._epochs[name]}"

    def redraw(self) -> None:
        """Redraw the bar; without a terminal, print a line if the last one is ten minutes old."""
        self._looked = time.monotonic()
        self.update(
            label=self._runs_label(), done=sum(self._done.values()) - self._before, text=self._text
        )
        if not self.live and self._looked - self._shown > _SECONDS_BETWEEN_LINES:
            self.on_message(f"{self._runs_label()}: {self._text}")
            self._shown = self._looked

    def _runs_label(self) -> str:
        """Return how many runs have ended, such as ``2 of 6 runs``."""
        return f"{self._ended} of {len(self._epochs)} runs"


class _RunProgress(Progress):
    """Progress of one run in this process, shown as part of the joint bar."""

    def __init__(self, joint: JointProgress, name: str, steps: int) -> None:
        self._joint = joint
        self._name = name
        self._steps = steps

    def due(self) -> bool:
        return self._joint.live and self._joint.due()

    def step(self, epoch: int, step: int, loss: float | None = None) -> None:
        self._joint.set_epochs_done(self._name, epoch - 1 + step / self._steps)
        if loss is not None:
            self._joint.redraw()

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._joint.set_epochs_done(self._name, record["epoch"])
        if self._joint.due():
            self._joint.redraw()


@contextmanager
def _run_progress(
    joint: JointProgress, name: str, _label: str, *, steps: int, **_more: Any
) -> Iterator[Progress]:
    """Yield the progress of one run; the arguments are those of every ``ShowProgress``."""
    yield _RunProgress(joint, name, steps)
