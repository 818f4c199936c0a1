"""Log of a run, one JSON line per epoch with its alarms, and the display of its progress."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from fedlas._core.check import InputError
from fedlas._core.files import not_writable_error, parse_json, remove, write_text
from fedlas._core.progress import ProgressBar
from fedlas._core.terminal import Console, print_lines
from fedlas._core.text import printable

LOG = "log.jsonl"
"""File name of the log in a run folder."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log up to the first incomplete line, or an empty list if the file is missing."""
    return parse_log(path.read_text(errors="replace") if path.is_file() else "")


def parse_log(text: str) -> list[dict[str, Any]]:
    """Return the records in the text of a log, up to the first incomplete line."""
    records: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            record = parse_json(line, finite=False)
        except ValueError:
            break
        if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
            break
        records.append(record)
    return records


def truncate_log(path: Path, last_epoch: int) -> list[dict[str, Any]]:
    """Remove the records after ``last_epoch`` from a log, and return the others."""
    records = [record for record in read_log(path) if record["epoch"] <= last_epoch]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    return records


def append_log(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a log, and flush it to disk.

    Raises:
        InputError: If the file is not writable, or the disk is full. The file is unchanged then.
    """
    before = path.stat().st_size if path.is_file() else None
    try:
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError, InputError):
            if before is not None:
                os.truncate(path, before)
            else:
                remove(path, inside=path.parent)
        raise not_writable_error(path, error) from error


WARM_UP_SHARE = 0.1
"""Share of the epochs in which running statistics are not reliable yet, so that alarms are ignored."""


def alarm_epochs(
    history: Sequence[Mapping[str, Any]], *, epochs: int, warmup_epochs: int = 0
) -> dict[str, list[int]]:
    """Return the epochs with an alarm after the warm-up, by kind of alarm.

    Args:
        history: Records of the log.
        epochs: Epochs of the whole run.
        warmup_epochs: Epochs in which the learning rate rises; the warm-up is not shorter.

    Example:
        >>> log = [{"epoch": epoch, "alarms": ["gate stuck on +1 for 3 epochs"]} for epoch in (1, 5, 6)]
        >>> alarm_epochs(log, epochs=20)
        {'gate stuck on +1': [5, 6]}
    """
    from fedlas.diagnose.monitor import alarm_kind

    settled = max(warmup_epochs, math.ceil(WARM_UP_SHARE * epochs))
    epochs_by_kind: dict[str, list[int]] = {}
    for record in history:
        for alarm in record.get("alarms", ()) if record["epoch"] > settled else ():
            epochs_by_kind.setdefault(alarm_kind(alarm), []).append(record["epoch"])
    return epochs_by_kind


@lru_cache(maxsize=64)
def warn_once(text: str) -> None:
    """Log a warning once per process."""
    logging.getLogger("fedlas").warning("%s", printable(text))


def iter_leaves(
    values: Mapping[str, Any], separator: str = ".", prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings, each with its keys joined by ``separator``.

    Example:
        >>> dict(iter_leaves({"epoch": 2, "val": {"ece": 0.1}}))
        {'epoch': 2, 'val.ece': 0.1}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from iter_leaves(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


class Progress(Protocol):
    """Protocol of a progress display of a training."""

    def due(self) -> bool:
        """Return whether a loss would be displayed now; ask before reading a loss, which stalls an accelerator."""

    def step(self, epoch: int, step: int, loss: float | None = None) -> None:
        """Display that a step is done, with its ``loss`` if given."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Display that an epoch is done, with its log record."""


ShowProgress = Callable[..., AbstractContextManager[Progress]]
"""``show(name, *, epochs, steps, done=0, quiet=False)`` shows a run until the context ends, as
:class:`TrainingProgress` does."""


class TrainingProgress(ProgressBar):
    """Progress bar of a training, or progress lines in a log file. A context manager.

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
        self,
        name: str,
        *,
        epochs: int,
        steps: int,
        done: int = 0,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        super().__init__(name, total=epochs * steps, done=done * steps, on=console, quiet=quiet)
        self.name = name
        self.quiet = quiet
        self.metrics = ""
        self.epochs = epochs
        self.steps = steps
        self.done = done
        self.started = self.shown = time.monotonic()

    def due(self) -> bool:
        """Return whether a loss would be displayed now; ask before reading a loss, which stalls an accelerator."""
        return self.live and time.monotonic() - self.shown > 0.1

    def step(self, epoch: int, step: int, loss: float | None = None) -> None:
        """Display that a step is done, with its ``loss`` if given."""
        if loss is not None:
            self.shown = time.monotonic()
            text = f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  {self.metrics}"
            self.update(done=(epoch - 1) * self.steps + step, text=text)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Display that an epoch is done, with its log record."""
        val = record["val"]
        number = record["epoch"]
        self.metrics = f"val accuracy {val['accuracy']:.1%}  ECE {val['ece']:.2%}"
        text = f"epoch {number}/{self.epochs}  loss {record['train']['loss']:.3f}  {self.metrics}"
        self.update(done=number * self.steps, text=text)
        now = time.monotonic()
        if not self.live and not self.quiet and (now - self.shown > 10 or number == self.epochs):
            seconds = (now - self.started) / (number - self.done) * (self.epochs - number)
            rest = f"  {seconds:.0f} s left" if number < self.epochs else ""
            print_lines(f"{self.name}  {text}{rest}", on=self.console)
            self.shown = now
