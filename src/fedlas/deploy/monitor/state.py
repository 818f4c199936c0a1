"""State of a monitored stream: tests, alarms and history of bounded length; reading, writing and locking its file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, error_reason, warn_user
from fedlas._core.extras import require
from fedlas._core.files import check_writable, is_file, not_writable_error, read_json, write_json
from fedlas._core.outputs import FileKind, has_json_format
from fedlas.deploy.monitor.period import Period
from fedlas.predictions.tables.files import Name, find_files
from fedlas.predictions.tables.formats.compression import content_digest
from fedlas.stats.gap_sums import read_array, read_counts

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.deploy.monitor.watches import LiveBatch, Watch

FORMAT = "fedlas.monitor/2"
STATE = FileKind("a state of fedlas monitor", lambda path: has_json_format(path, FORMAT))


MAX_ROWS = 64
FIRST_WIDTH = 50
"""Largest number of rows of a history, and initial samples per row; if all rows are full, pairs are merged."""


@dataclass(frozen=True)
class WatchHistory:
    """Statistics and evidence of a watch over time, one row per fixed number of samples."""

    count: FloatArray  # samples with each statistic (R, S)
    total: FloatArray  # sum of each statistic (R, S)
    evidence: FloatArray  # of the watch at the end of each row (R,)

    @classmethod
    def empty(cls, num_statistics: int) -> WatchHistory:
        """Return an empty history of the given number of statistics."""
        return cls(np.zeros((0, num_statistics)), np.zeros((0, num_statistics)), np.zeros(0))

    def with_batch(
        self, row_index: int, batch: tuple[FloatArray, NDArray[np.bool_]] | None, evidence: float
    ) -> WatchHistory:
        """Return the history with a batch added to row ``row_index``; a batch is values ``(n, S)`` and a mask."""
        count, total, last = (
            np.concatenate([rows, np.zeros((row_index + 1 - len(rows), *rows.shape[1:]))])
            for rows in (self.count, self.total, self.evidence)
        )
        if batch is not None:
            values, has = batch
            count[-1] += has.sum(axis=0)
            total[-1] += np.where(has, values, 0.0).sum(axis=0)
        last[-1] = evidence
        return WatchHistory(count, total, last)

    def merge_row_pairs(self) -> WatchHistory:
        """Return the history with pairs of rows merged; the number of rows must be even."""
        count, total = (
            each.reshape(-1, 2, each.shape[1]).sum(axis=1) for each in (self.count, self.total)
        )
        return WatchHistory(count, total, self.evidence[1::2])

    @property
    def means(self) -> FloatArray:
        """Mean of each statistic over all rows, ``(S,)``; NaN without samples."""
        with np.errstate(invalid="ignore"):
            return self.total.sum(axis=0) / self.count.sum(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Return the history as JSON values."""
        return {name: rows.tolist() for name, rows in vars(self).items()}

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], lower: FloatArray, upper: FloatArray
    ) -> WatchHistory:
        """Return a validated history from the result of :meth:`to_dict`, with statistics in ``[least, most]``."""
        count, total, evidence = (
            read_array(content, name) for name in ("count", "total", "evidence")
        )
        if (
            count.shape != (len(evidence), len(lower))
            or total.shape != count.shape
            or (evidence < 0).any()
        ):
            raise ValueError(
                f"the history has inconsistent shapes {count.shape}, {total.shape} and {evidence.shape}"
            )
        read_counts({"count": count.ravel().tolist()}, "count")
        slack = 1e-9 * np.maximum(count, 1)  # rounding of sums
        if ((total < lower * count - slack) | (total > upper * count + slack)).any():
            raise ValueError("the sums of the history are out of range")
        return cls(count, total, evidence)


@dataclass
class StreamState:
    """State of a monitored stream: samples, alarms and histories by watch; the tests are part of the watches."""

    watches: Mapping[str, Watch]
    samples: int = 0  # with and without labels
    labeled: int = 0
    looks: int = 0  # at the tests
    width: int = FIRST_WIDTH  # samples in a row of the histories
    alarms: dict[str, int] = field(default_factory=dict)  # after which sample
    # Multi-label: sample after which each label alone caused the alarm of a watch.
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    histories: dict[str, WatchHistory] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # digests of counted files
    # Counted periods that may not be in the history file yet.
    pending: list[Period] = field(default_factory=list)

    @classmethod
    def initial(cls, watches: Sequence[Watch]) -> StreamState:
        """Return the initial state, before the first sample."""
        histories = {watch.name: WatchHistory.empty(len(watch.statistics)) for watch in watches}
        return cls({watch.name: watch for watch in watches}, histories=histories)

    @property
    def first_alarm(self) -> int | None:
        """Number of samples at the first alarm, or None without an alarm."""
        return min(self.alarms.values(), default=None)

    def observe(self, batch: LiveBatch) -> None:
        """Update every watch that applies to the batch, its history, and the alarms."""
        start = 0
        while start < len(batch):
            # History rows end at multiples of their width, however the stream is split into files.
            row = self.samples // self.width
            if row == MAX_ROWS:
                self.histories = {
                    name: history.merge_row_pairs() for name, history in self.histories.items()
                }
                self.width *= 2
                continue
            part = batch[start : start + self.width - self.samples % self.width]
            for name, watch in self.watches.items():
                values = watch.values(part)
                alarm = None if values is None else watch.test.observe(*values)
                if alarm is not None:
                    self.alarms.setdefault(name, self.samples + alarm + 1)
                for place, last in (
                    watch.test.first_alarm_by_part.items() if watch.parts and values else ()
                ):
                    labels = self.labels.setdefault(name, {})
                    labels.setdefault(watch.parts[place], self.samples + last + 1)
                self.histories[name] = self.histories[name].with_batch(
                    row, values, watch.test.evidence
                )
            self.samples += len(part)
            self.labeled += part.labeled
            start += len(part)

    def add_files(self, names: Sequence[Path]) -> None:
        """Record files as counted.

        Raises:
            InputError: If a file of the same content was counted before.
        """
        for file in file_digests(names):
            if {file.digest, file.bytes_digest} & {*self.files}:
                raise InputError(
                    "each file must be new to the state, or its samples would be counted twice",
                    file.name,
                    "Leave out the file, or use a new state file.",
                )
            self.files.append(file.digest)

    def write(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the state file atomically; on failure the old file remains."""
        content = {
            name: getattr(self, name)
            for name in ("samples", "labeled", "looks", "width", "alarms", "files")
        }
        content["watches"] = {
            name: {
                "samples": watch.test.samples,
                "active": watch.test.wealth.tolist(),
                "history": self.histories[name].to_dict(),
            }
            for name, watch in self.watches.items()
        }
        if self.labels:
            content["labels"] = self.labels
        if self.pending:
            content["pending"] = [period.to_dict() for period in self.pending]
        write_json(path, {**identity, **content})


class FileDigest(NamedTuple):
    """Name of a file, digest of its uncompressed content, and digest of its stored bytes (used by older states)."""

    name: str
    digest: str
    bytes_digest: str


def file_digests(names: Sequence[Name]) -> list[FileDigest]:
    """Return the digests of files, folders and patterns; missing files are skipped."""
    result = []
    for file in find_files(names):
        if is_file(file.path):
            with file.path.open("rb") as stored:
                as_stored = hashlib.file_digest(stored, "sha256").hexdigest()[:16]
            try:
                digest = content_digest(file.path)
            except OSError:  # damaged: the reader reports it
                digest = as_stored
            result.append(FileDigest(str(file.path), digest, as_stored))
    return result


@contextmanager
def lock_files(*paths: Path | None) -> Iterator[None]:
    """Context manager that locks files against other processes, and waits until they are free.

    Raises:
        InputError: If the folder of a file cannot be written to, or something else is in place of the lock's file.

    Warns:
        CalibrationWarning: If another process holds a lock, before it waits.
    """
    # System locks on hidden files next to the files. They end with the process; the empty lock files remain. All
    # processes lock in the same order, which prevents deadlocks.
    filelock = require("filelock", extra="tables")
    places = {Path(os.path.realpath(path.parent), path.name) for path in paths if path is not None}
    with ExitStack() as locks:
        for place in sorted(places):
            path = place.parent / f".{place.name}.lock"
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                    raise InputError(
                        f"the lock of {place.name} must be a plain file",
                        f"{path}, which is a link, a folder or a device",
                        "Move it away: fedlas makes an empty file there.",
                    )
                lock = filelock.FileLock(path)
                try:
                    lock.acquire(timeout=0)
                except filelock.Timeout:
                    warn_user(f"{place} is in use by another process; waiting until it is free.")
                    lock.acquire()
                locks.callback(lock.release)
                check_writable(place.parent)
            except (OSError, NotImplementedError) as error:  # the latter where there are no locks
                cause = error if isinstance(error, OSError) else OSError(str(error))
                raise not_writable_error(place.parent, cause, str(place.name)) from error
        yield


def read_pending_periods(path: Path) -> list[Period]:
    """Return the periods counted in a state file that an interrupted call may not have written to the history.

    Raises:
        InputError: If the file is not a valid state.
    """
    with _translate_state_errors(path):
        return [*map(Period.from_dict, dict(read_json(path)).get("pending", []))]


def clear_pending_periods(path: Path) -> None:
    """Remove the pending periods from a state file, after they were written to the history."""
    content = read_json(path)
    del content["pending"]
    write_json(path, content)


def read_state(path: Path, identity: Mapping[str, Any], watches: Sequence[Watch]) -> StreamState:
    """Return the state in a file, which must match ``identity``, and restore the tests of ``watches``."""
    with _translate_state_errors(path):
        content = read_json(path)
        other = next((key for key, value in identity.items() if content[key] != value), None)
        if other is None:
            return _restore_state(content, watches)
    if other == "format":
        got = f"{path} with format {content[other]!r}" + (
            " and an alarm" if content.get("alarm") is not None else ""
        )
        raise InputError(f"--state must be a file with format {FORMAT!r}", got, _FIX)
    got = f"{path} with {other} {content[other]!r} instead of {identity[other]!r}"
    raise InputError("--state must be a file for the same card and false-alarm rate", got, _FIX)


_FIX = "Pass another file for the state, or remove it to start again."


@contextmanager
def _translate_state_errors(path: Path) -> Iterator[None]:
    """Context manager that converts errors of reading a state file to InputError."""
    try:
        yield
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        got = f"{path} ({error_reason(error)})"
        raise InputError("--state must be a file written by fedlas monitor", got, _FIX) from error


def _restore_state(content: Mapping[str, Any], watches: Sequence[Watch]) -> StreamState:
    state = StreamState.initial(watches)
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
    # Absent in older states.
    state.files = [str(digest) for digest in content.get("files", [])]
    state.pending = [*map(Period.from_dict, content.get("pending", []))]
    if set(content["watches"]) != set(state.watches) or not set(state.alarms) <= set(state.watches):
        raise ValueError(
            f"the watches are {', '.join(content['watches'])}, with alarms of {', '.join(state.alarms)}"
        )
    by_label = [sample for labels in state.labels.values() for sample in labels.values()]
    for name, labels in state.labels.items():
        if name not in state.alarms or not {*labels} <= {*state.watches[name].parts}:
            raise ValueError(f"the alarms of {name} have unknown labels: {', '.join(labels)}")
    if max(state.labeled, *state.alarms.values(), *by_label, 0) > state.samples:
        raise ValueError(
            f"{state.labeled} labeled samples and alarms after {state.alarms}, but {state.samples} samples"
        )
    for name, watch in state.watches.items():
        each = content["watches"][name]
        test = watch.test
        active = read_array(each, "active")
        if active.shape != test.wealth.shape or not (active >= 0).all():
            raise ValueError(f"the test state of {name} is invalid: shape {active.shape}")
        test.samples = check_count("samples", each["samples"], low=0)
        test.wealth = active
        history = state.histories[name] = WatchHistory.from_dict(
            each["history"], test.least, test.most
        )
        # Labels or classes may be missing in some samples, and then in the watch; confidences never are.
        expected = dict.fromkeys(("calibration", "accuracy", "events", "prevalence"), state.labeled)
        expected |= dict.fromkeys(("confidence", "probability", "actions"), state.samples)
        counted = history.count[:, 0].sum()
        least = expected.get(name, test.samples)
        # Multi-label samples may lack some or all labels.
        fits = test.samples == counted == least or (
            watch.parts and test.samples >= max(counted, least)
        )
        if not fits or test.samples > state.samples:
            raise ValueError(
                f"{name} counts {counted:g} and {test.samples} of {state.samples} samples"
            )
        if (
            len(history.evidence) != -(-state.samples // state.width)
            or len(history.evidence) > MAX_ROWS
        ):
            raise ValueError(
                f"{name} has {len(history.evidence)} rows of {state.width} samples for {state.samples} samples"
            )
        if bool(np.any(history.evidence >= test.threshold)) and name not in state.alarms:
            raise ValueError(f"{name} has no alarm although its evidence exceeds the threshold")
    return state
