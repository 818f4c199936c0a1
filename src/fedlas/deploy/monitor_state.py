"""What ``fedlas monitor`` keeps of a stream between two calls, and the lock on its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_count, reason
from fedlas._core.extras import require
from fedlas._core.files import not_writable, read_json, write_json
from fedlas.deploy.card import Card
from fedlas.stats.drift import GapDrift
from fedlas.stats.gap_sums import GapSums, read_counts, read_numbers
from fedlas.stats.rows import Floats

OWNER = "fedlas monitor"
FORMAT = "fedlas.monitor/1"


@dataclass
class Watched:
    """What has been seen of a stream so far.

    Attributes:
        labeled: Whether it has labels; None before its first sample.
        samples: How many.
        looks: How often somebody has looked.
        counts: Samples in each bin of the card.
        gaps: Sums of confidences and right predictions; of labeled streams.
        log_wealth: Of the sequential test.
        alarm: Sample after which there was an alarm; None if there was none.
    """

    labeled: bool | None
    samples: int
    looks: int
    counts: Floats
    gaps: GapSums
    log_wealth: Floats
    alarm: int | None = None

    @classmethod
    def nothing(cls, card: Card, test: GapDrift) -> Watched:
        """Before the first sample."""
        none = GapSums.of(card.gaps.edges, np.zeros(0), np.zeros(0, dtype=bool))
        return cls(None, 0, 0, np.zeros_like(card.bin_counts), none, test.log_wealth)

    def write(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the file atomically.

        Raises:
            InputError: If it cannot be written; what was there before is still there then.
        """
        content = {
            "labeled": self.labeled,
            "samples": self.samples,
            "looks": self.looks,
            "counts": self.counts.tolist(),
            "gaps": self.gaps.plain(),
            "log_wealth": self.log_wealth.tolist(),
            "alarm": self.alarm,
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


def read_state(path: Path, identity: Mapping[str, Any], card: Card, test: GapDrift) -> Watched:
    """The state in a file.

    Raises:
        InputError: If it cannot be read, is about another card or another rate of false alarms, or holds what no stream
            leaves.
    """
    fix = "Name another --state, or remove it to start afresh."
    try:
        content = read_json(path)
        other = next((key for key, value in identity.items() if content[key] != value), None)
        if other is None:
            return _watched(content, card, test)
    except (OSError, KeyError, TypeError, ValueError) as error:
        got = f"{path} ({reason(error)})"
        raise InputError(OWNER, "the state must be a file that it wrote", got, fix) from error
    got = f"{path} with {other} {content[other]!r} instead of {identity[other]!r}"
    raise InputError(OWNER, "the state must be of the same card and false-alarm rate", got, fix)


def _watched(content: Mapping[str, Any], card: Card, test: GapDrift) -> Watched:
    labeled, alarm = content["labeled"], content["alarm"]
    samples, looks = (check_count(OWNER, name, content[name]) for name in ("samples", "looks"))
    counts, wealth = read_counts(content, "counts"), read_numbers(content, "log_wealth")
    gaps = GapSums.read(content["gaps"])
    if not isinstance(labeled, bool):
        raise ValueError(f"labeled is {labeled!r}")
    if counts.shape != card.bin_counts.shape or counts.sum() != samples:
        raise ValueError(f"{counts.sum():g} in {len(counts)} bins of {samples} samples")
    if not np.array_equal(gaps.edges, card.gaps.edges) or gaps.count[0] != (samples if labeled else 0):
        raise ValueError(f"sums of {gaps.count[0]:g} of {samples} samples, or in other cells than the card's")
    if wealth.shape != test.log_wealth.shape:
        raise ValueError(f"log_wealth {wealth.shape}")
    if alarm is not None and check_count(OWNER, "alarm", alarm) > samples:
        raise ValueError(f"an alarm after sample {alarm} of {samples}")
    return Watched(labeled, samples, looks, counts, gaps, wealth, alarm)
