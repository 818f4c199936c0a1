"""What ``fedlas monitor`` keeps of a stream between two calls, and the lock on its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_count, reason
from fedlas._core.extras import require
from fedlas._core.files import not_writable, read_json, write_json
from fedlas.deploy.monitor.history import FIRST_WIDTH, ROWS, History
from fedlas.deploy.monitor.watches import Batch, Watch
from fedlas.stats.gap_sums import read_numbers

OWNER = "fedlas monitor"
FORMAT = "fedlas.monitor/2"


@dataclass
class Watched:
    """What has been seen of a stream so far. The wealth of the tests is in the watches themselves.

    Attributes:
        watches: The watches, by name.
        samples: How many samples there were, with and without labels.
        labeled: How many had labels.
        looks: How often somebody has looked.
        width: Samples in a row of the histories.
        alarms: Sample after which each watch that has alarmed did so.
        histories: By the name of the watch.
    """

    watches: Mapping[str, Watch]
    samples: int = 0
    labeled: int = 0
    looks: int = 0
    width: int = FIRST_WIDTH
    alarms: dict[str, int] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)

    @classmethod
    def nothing(cls, watches: Sequence[Watch]) -> Watched:
        """Before the first sample."""
        histories = {watch.name: History.empty(len(watch.statistics)) for watch in watches}
        return cls({watch.name: watch for watch in watches}, histories=histories)

    @property
    def alarm(self) -> int | None:
        """Sample after which there was the first alarm; None if there was none."""
        return min(self.alarms.values(), default=None)

    def observe(self, batch: Batch) -> None:
        """Add some samples to every watch that can use them."""
        start = 0
        while start < len(batch):
            # Rows of the histories end at whole multiples of their width, however the stream is cut into files.
            place = self.samples // self.width
            if place == ROWS:
                self.histories = {name: history.merged() for name, history in self.histories.items()}
                self.width *= 2
                continue
            part = batch[start : start + self.width - self.samples % self.width]
            for name, watch in self.watches.items():
                made = watch.values(part)
                if made is not None:
                    found = watch.test.observe(*made)
                    if found is not None:
                        self.alarms.setdefault(name, self.samples + found + 1)
                self.histories[name] = self.histories[name].after(place, made, watch.test.evidence)
            self.samples += len(part)
            self.labeled += 0 if part.correct is None else len(part)
            start += len(part)

    def write(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the file atomically.

        Raises:
            InputError: If it cannot be written; what was there before is still there then.
        """
        content = {name: getattr(self, name) for name in ("samples", "labeled", "looks", "width", "alarms")}
        content["watches"] = {
            name: {
                "samples": watch.test.samples,
                "active": watch.test.active.tolist(),
                "history": self.histories[name].plain(),
            }
            for name, watch in self.watches.items()
        }
        write_json(path, {**identity, **content})


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Wait until no other process reads the state to write it anew, and keep others out meanwhile.

    The lock is that of the system, on a hidden file beside the state. It ends with the process, however that ends, and
    the empty file stays.

    Raises:
        InputError: If the folder cannot be written to.
    """
    filelock = require("filelock", extra="bench")
    lock = filelock.FileLock(state.parent / f".{state.name}.lock")
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter where the file system has no locks
        raise not_writable(state.parent, error if isinstance(error, OSError) else OSError(str(error))) from error
    try:
        yield
    finally:
        lock.release()


def read_state(path: Path, identity: Mapping[str, Any], watches: Sequence[Watch]) -> Watched:
    """The state in a file; the tests of ``watches`` continue from it.

    Raises:
        InputError: If it cannot be read, is about another card, another rate of false alarms or an older version of the
            tests, or holds what no stream leaves.
    """
    fix = "Name another --state, or remove it to start afresh."
    try:
        content = read_json(path)
        other = next((key for key, value in identity.items() if content[key] != value), None)
        if other is None:
            return _watched(content, watches)
    except (OSError, KeyError, TypeError, ValueError) as error:
        got = f"{path} ({reason(error)})"
        raise InputError(OWNER, "the state must be a file that it wrote", got, fix) from error
    if other == "format":
        got = f"{path} of {content[other]!r}, whose tests were others" + (
            ", with an alarm" if content.get("alarm") is not None else ""
        )
        raise InputError(OWNER, f"the state must be of this version, {FORMAT!r}", got, fix)
    got = f"{path} with {other} {content[other]!r} instead of {identity[other]!r}"
    raise InputError(OWNER, "the state must be of the same card and false-alarm rate", got, fix)


def _watched(content: Mapping[str, Any], watches: Sequence[Watch]) -> Watched:
    seen = Watched.nothing(watches)
    seen.samples, seen.looks, seen.width = (
        check_count(OWNER, name, content[name]) for name in ("samples", "looks", "width")
    )
    seen.labeled = check_count(OWNER, "labeled", content["labeled"], low=0)
    if seen.labeled > seen.samples or set(content["watches"]) != set(seen.watches):
        raise ValueError(
            f"{seen.labeled} of {seen.samples} samples with labels, watches {', '.join(content['watches'])}"
        )
    seen.alarms = {name: check_count(OWNER, "alarm", place) for name, place in dict(content["alarms"]).items()}
    if not set(seen.alarms) <= set(seen.watches) or max(seen.alarms.values(), default=0) > seen.samples:
        raise ValueError(f"alarms after {seen.alarms} of {seen.samples} samples")
    for name, watch in seen.watches.items():
        each = content["watches"][name]
        active, test = read_numbers(each, "active"), watch.test
        if active.shape != test.active.shape or not (active >= 0).all():
            raise ValueError(f"active {active.shape} of {name}")
        test.samples, test.active = check_count(OWNER, "samples", each["samples"], low=0), active
        history = seen.histories[name] = History.read(each["history"], test.least, test.most)
        # A label, or a class, that some samples lack is missing in the watch too; confidences are never.
        expected = {"calibration": seen.labeled, "accuracy": seen.labeled, "confidence": seen.samples}
        known = expected.get(name, test.samples)
        if not history.count[:, 0].sum() == test.samples == known <= seen.samples:
            raise ValueError(f"{history.count[:, 0].sum():g} and {test.samples} of {seen.samples} samples in {name}")
        if len(history.evidence) != -(-seen.samples // seen.width) or len(history.evidence) > ROWS:
            raise ValueError(f"{len(history.evidence)} rows of {seen.width} samples in {name}")
        alarmed = bool(np.any(history.evidence >= test.threshold))
        if alarmed and name not in seen.alarms:
            raise ValueError(f"no alarm in {name} in spite of its evidence")
    return seen
