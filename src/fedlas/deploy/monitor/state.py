"""State of a monitored stream: tests, alarms, a history in a bounded number of rows; its file, and the lock on it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, reason
from fedlas._core.extras import require
from fedlas._core.files import check_writable, is_file, not_writable, read_json, write_json
from fedlas._core.outputs import Kind, has_format
from fedlas.deploy.monitor.period import Period
from fedlas.deploy.monitor.watches import LiveBatch, Watch
from fedlas.predictions.tables.files import Name, files_of
from fedlas.predictions.tables.formats.compression import content_digest
from fedlas.stats.gap_sums import read_array, read_counts
from fedlas.stats.rows import Floats

FORMAT = "fedlas.monitor/2"
STATE = Kind("a state of fedlas monitor", lambda path: has_format(path, FORMAT))


ROWS = 64
FIRST_WIDTH = 50
"""Most rows of a history, and samples in a row at first: when all rows are full, each two become one."""


@dataclass(frozen=True)
class History:
    """A row for each so many samples of the stream."""

    count: Floats  # samples that have each statistic (R, S)
    total: Floats  # sum of each statistic (R, S)
    evidence: Floats  # of the watch at the end of each row (R,)

    @classmethod
    def empty(cls, statistics: int) -> History:
        """Return a history of no samples."""
        return cls(np.zeros((0, statistics)), np.zeros((0, statistics)), np.zeros(0))

    def after(
        self, row: int, batch: tuple[Floats, NDArray[np.bool_]] | None, evidence: float
    ) -> History:
        """Return it with more samples in its last row or a new one; ``batch`` is values and which samples have them."""
        count, total, last = (
            np.concatenate([rows, np.zeros((row + 1 - len(rows), *rows.shape[1:]))])
            for rows in (self.count, self.total, self.evidence)
        )
        if batch is not None:
            values, has = batch
            count[-1] += has.sum(axis=0)
            total[-1] += np.where(has, values, 0.0).sum(axis=0)
        last[-1] = evidence
        return History(count, total, last)

    def merged(self) -> History:
        """Return it with each two rows as one; their number is even."""
        count, total = (
            each.reshape(-1, 2, each.shape[1]).sum(axis=1) for each in (self.count, self.total)
        )
        return History(count, total, self.evidence[1::2])

    @property
    def means(self) -> Floats:
        """Mean of each statistic over all rows ``(S,)``; NaN where there is no sample."""
        with np.errstate(invalid="ignore"):
            return self.total.sum(axis=0) / self.count.sum(axis=0)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: rows.tolist() for name, rows in vars(self).items()}

    @classmethod
    def read(cls, content: Mapping[str, Any], least: Floats, most: Floats) -> History:
        """Read what :meth:`plain` returned, of statistics in ``[least, most]``; refuse sums that no samples have."""
        count, total, evidence = (
            read_array(content, name) for name in ("count", "total", "evidence")
        )
        if (
            count.shape != (len(evidence), len(least))
            or total.shape != count.shape
            or (evidence < 0).any()
        ):
            raise ValueError(f"a history of {count.shape}, {total.shape} and {evidence.shape}")
        read_counts({"count": count.ravel().tolist()}, "count")
        slack = 1e-9 * np.maximum(count, 1)  # sums of floats are a little off
        if ((total < least * count - slack) | (total > most * count + slack)).any():
            raise ValueError("a history with sums that no samples have")
        return cls(count, total, evidence)


@dataclass
class Watched:
    """State of a stream by the name of each watch. The wealth of the tests is in the watches themselves."""

    watches: Mapping[str, Watch]
    samples: int = 0  # with and without labels
    labeled: int = 0
    looks: int = 0  # at the tests
    width: int = FIRST_WIDTH  # samples in a row of the histories
    alarms: dict[str, int] = field(default_factory=dict)  # after which sample
    # Of several labels, after which sample each was enough for the alarm of a watch by itself.
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # digests of those that were counted
    # Periods that are counted here, and perhaps not in their history yet: it is written next.
    pending: list[Period] = field(default_factory=list)

    @classmethod
    def nothing(cls, watches: Sequence[Watch]) -> Watched:
        """Return the state before the first sample."""
        histories = {watch.name: History.empty(len(watch.statistics)) for watch in watches}
        return cls({watch.name: watch for watch in watches}, histories=histories)

    @property
    def alarm(self) -> int | None:
        """Sample after which there was the first alarm; None if there was none."""
        return min(self.alarms.values(), default=None)

    def observe(self, batch: LiveBatch) -> None:
        """Add some samples to every watch that can use them."""
        start = 0
        while start < len(batch):
            # Rows of the histories end at whole multiples of their width, however the stream is cut into files.
            row = self.samples // self.width
            if row == ROWS:
                self.histories = {
                    name: history.merged() for name, history in self.histories.items()
                }
                self.width *= 2
                continue
            part = batch[start : start + self.width - self.samples % self.width]
            for name, watch in self.watches.items():
                values = watch.values(part)
                alarm = None if values is None else watch.test.observe(*values)
                if alarm is not None:
                    self.alarms.setdefault(name, self.samples + alarm + 1)
                for place, last in watch.test.alone.items() if watch.parts and values else ():
                    labels = self.labels.setdefault(name, {})
                    labels.setdefault(watch.parts[place], self.samples + last + 1)
                self.histories[name] = self.histories[name].after(row, values, watch.test.evidence)
            self.samples += len(part)
            self.labeled += part.labeled
            start += len(part)

    def count_files(self, names: Sequence[Path]) -> None:
        """Add files to those that are counted.

        Raises:
            InputError: If one was counted before, by its content.
        """
        for file in contents_of(names):
            if {file.digest, file.as_stored} & {*self.files}:
                raise InputError(
                    "a file must be new to the state, which would count its samples twice",
                    file.name,
                    "Leave it out, or start another state.",
                )
            self.files.append(file.digest)

    def write(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the file atomically: if it cannot be written, what was there before is still there."""
        content = {
            name: getattr(self, name)
            for name in ("samples", "labeled", "looks", "width", "alarms", "files")
        }
        content["watches"] = {
            name: {
                "samples": watch.test.samples,
                "active": watch.test.active.tolist(),
                "history": self.histories[name].plain(),
            }
            for name, watch in self.watches.items()
        }
        if self.labels:
            content["labels"] = self.labels
        if self.pending:
            content["pending"] = [period.plain() for period in self.pending]
        write_json(path, {**identity, **content})


class Content(NamedTuple):
    """What a file held: a digest that its copies share, and that of its bytes, by which older states name it."""

    name: str
    digest: str
    as_stored: str


def contents_of(names: Sequence[Name]) -> list[Content]:
    """Return what files, folders and patterns hold; what does not exist is left to who reads it."""
    result = []
    for file in files_of(names):
        if is_file(file.path):
            with file.path.open("rb") as stored:
                as_stored = hashlib.file_digest(stored, "sha256").hexdigest()[:16]
            try:
                digest = content_digest(file.path)
            except OSError:  # damaged: who reads it says so
                digest = as_stored
            result.append(Content(str(file.path), digest, as_stored))
    return result


@contextmanager
def locked_files(*paths: Path | None) -> Iterator[None]:
    """Lock files that are read and then written, against other processes; wait until they are free."""
    # The locks are those of the system, on hidden files next to them. They end with the process, however that ends,
    # and the empty files stay. Everyone locks in the same order, so that no two wait for each other.
    filelock = require("filelock", extra="tables")
    places = {Path(os.path.realpath(path.parent), path.name) for path in paths if path is not None}
    with ExitStack() as locks:
        for place in sorted(places):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(filelock.FileLock(place.parent / f".{place.name}.lock"))
                check_writable(place.parent)
            except (OSError, NotImplementedError) as error:  # the latter where there are no locks
                cause = error if isinstance(error, OSError) else OSError(str(error))
                raise not_writable(place.parent, cause) from error
        yield


def take_pending(path: Path) -> list[Period]:
    """Return the periods that a state counts and its history may lack, since the call that counted them was stopped.

    Raises:
        InputError: If the state is none.
    """
    with _of_state(path):
        return [*map(Period.read, dict(read_json(path)).get("pending", []))]


def forget_pending(path: Path) -> None:
    """Remove those periods from a state, now that its history has them."""
    content = read_json(path)
    del content["pending"]
    write_json(path, content)


def read_state(path: Path, identity: Mapping[str, Any], watches: Sequence[Watch]) -> Watched:
    """Return the state in a file, of this card, false-alarm rate and version; the tests of ``watches`` continue."""
    with _of_state(path):
        content = read_json(path)
        other = next((key for key, value in identity.items() if content[key] != value), None)
        if other is None:
            return _watched(content, watches)
    if other == "format":
        got = f"{path} of {content[other]!r}, whose tests were others" + (
            ", with an alarm" if content.get("alarm") is not None else ""
        )
        raise InputError(f"the state must be of this version, {FORMAT!r}", got, _FIX)
    got = f"{path} with {other} {content[other]!r} instead of {identity[other]!r}"
    raise InputError("the state must be of the same card and false-alarm rate", got, _FIX)


_FIX = "Name another file for the state, or remove it to start from nothing."


@contextmanager
def _of_state(path: Path) -> Iterator[None]:
    """Turn what reading a state raises into an InputError."""
    try:
        yield
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        got = f"{path} ({reason(error)})"
        raise InputError("the state must be a file that it wrote", got, _FIX) from error


def _watched(content: Mapping[str, Any], watches: Sequence[Watch]) -> Watched:
    state = Watched.nothing(watches)
    state.samples, state.looks, state.width = (
        check_count(name, content[name]) for name in ("samples", "looks", "width")
    )
    state.labeled = check_count("labeled", content["labeled"], low=0)
    state.alarms = {
        name: check_count("alarm", sample) for name, sample in dict(content["alarms"]).items()
    }
    state.labels = {
        name: {label: check_count("alarm", sample) for label, sample in labels.items()}
        for name, labels in dict(content.get("labels", {})).items()
    }
    # A state of before has none.
    state.files = [str(digest) for digest in content.get("files", [])]
    state.pending = [*map(Period.read, content.get("pending", []))]
    if set(content["watches"]) != set(state.watches) or not set(state.alarms) <= set(state.watches):
        raise ValueError(
            f"watches {', '.join(content['watches'])} with alarms of {', '.join(state.alarms)}"
        )
    by_label = [sample for labels in state.labels.values() for sample in labels.values()]
    for name, labels in state.labels.items():
        if name not in state.alarms or not {*labels} <= {*state.watches[name].parts}:
            raise ValueError(f"alarms of {', '.join(labels)} in {name}")
    if max(state.labeled, *state.alarms.values(), *by_label, 0) > state.samples:
        raise ValueError(
            f"{state.labeled} labels and alarms after {state.alarms} of {state.samples} samples"
        )
    for name, watch in state.watches.items():
        each = content["watches"][name]
        test = watch.test
        active = read_array(each, "active")
        if active.shape != test.active.shape or not (active >= 0).all():
            raise ValueError(f"active {active.shape} of {name}")
        test.samples = check_count("samples", each["samples"], low=0)
        test.active = active
        history = state.histories[name] = History.read(each["history"], test.least, test.most)
        # A label, or a class, that some samples lack is missing in the watch too; confidences are never.
        expected = dict.fromkeys(("calibration", "accuracy", "events", "prevalence"), state.labeled)
        expected |= dict.fromkeys(("confidence", "probability", "actions"), state.samples)
        counted = history.count[:, 0].sum()
        least = expected.get(name, test.samples)
        # Of several labels a sample may lack some, or all.
        fits = test.samples == counted == least or (
            watch.parts and test.samples >= max(counted, least)
        )
        if not fits or test.samples > state.samples:
            raise ValueError(f"{counted:g} and {test.samples} of {state.samples} samples in {name}")
        if (
            len(history.evidence) != -(-state.samples // state.width)
            or len(history.evidence) > ROWS
        ):
            raise ValueError(f"{len(history.evidence)} rows of {state.width} samples in {name}")
        if bool(np.any(history.evidence >= test.threshold)) and name not in state.alarms:
            raise ValueError(f"no alarm in {name} in spite of its evidence")
    return state
