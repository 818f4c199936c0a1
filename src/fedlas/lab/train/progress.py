"""Progress of a run: a bar with loss, accuracy, ECE and the time left, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fedlas._core.terminal import Bar, say


class Progress(Protocol):
    """What the training loop tells while it works."""

    def due(self) -> bool:
        """Whether a loss would be shown now. Ask before reading one, which stalls an accelerator."""

    def step(self, epoch: int, step: int, loss: float | None = None) -> None:
        """A step is done, with its ``loss`` if given."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done; ``record`` is its line of the log."""


ShowProgress = Callable[..., AbstractContextManager[Progress]]
"""``show(name, *, epochs, steps, done=0, quiet=False)`` shows a run until the context ends, as
:class:`TrainingProgress` does."""


class TrainingProgress(Bar):
    """Shows the progress of a run. A context manager.

    Args:
        name: Text in front of the bar.
        epochs: Epochs of the whole run.
        steps: Steps per epoch.
        done: Epochs done before this start.
        quiet: Show nothing, as in every process but the main one.
        console: A ``rich.console.Console``; None makes one on standard error.

    Note:
        On a terminal one line is redrawn at most ten times a second. Elsewhere (a log file, CI) a line is printed at
        most every ten seconds, and after the last epoch.
    """

    def __init__(
        self, name: str, *, epochs: int, steps: int, done: int = 0, quiet: bool = False, console: Any = None
    ) -> None:
        super().__init__(name, total=epochs * steps, done=done * steps, on=console, quiet=quiet)
        self.name, self.quiet, self.metrics = name, quiet, ""
        self.epochs, self.steps, self.done = epochs, steps, done
        self.started = self.shown = time.monotonic()

    def due(self) -> bool:
        """Whether the bar would show a loss now. Ask before reading a loss, which stalls an accelerator."""
        return self.live and time.monotonic() - self.shown > 0.1

    def step(self, epoch: int, step: int, loss: float | None = None) -> None:
        """Show that a step is done, with its ``loss`` if given."""
        if loss is not None:
            self.shown = time.monotonic()
            text = f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  {self.metrics}"
            self.update(done=(epoch - 1) * self.steps + step, text=text)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Show that an epoch is done; ``record`` is its line of the log."""
        val, number = record["val"], record["epoch"]
        self.metrics = f"val accuracy {val['accuracy']:.1%}  ECE {val['ece']:.2%}"
        text = f"epoch {number}/{self.epochs}  loss {record['train']['loss']:.3f}  {self.metrics}"
        self.update(done=number * self.steps, text=text)
        now = time.monotonic()
        if not self.live and not self.quiet and (now - self.shown > 10 or number == self.epochs):
            seconds = (now - self.started) / (number - self.done) * (self.epochs - number)
            rest = f"  {seconds:.0f} s left" if number < self.epochs else ""
            say(f"{self.name}  {text}{rest}", on=self.console)
            self.shown = now
