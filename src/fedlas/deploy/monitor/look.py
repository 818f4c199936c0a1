"""``Monitor``, which runs the watches of a card on a stream of predictions and reports alarms."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError, truncated_list
from fedlas._core.kinds import check_argument_types
from fedlas._core.text import join_words
from fedlas.deploy.card import Card, CardSource
from fedlas.deploy.label_reference import ALL_LABELS
from fedlas.deploy.monitor.live import check_not_calibrated, read_batches, to_live_batch
from fedlas.deploy.monitor.state import FORMAT, StreamState, lock_files, read_state
from fedlas.deploy.monitor.watches import WATCHES, LiveBatch, Watch, build_watches
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas.deploy.monitor.period import Period
    from fedlas.predictions import (
        Columns,
        MultiLabel,
        Predictions,
        TopLabel,
    )

ALARM_EXIT_STATUS = 3
"""Exit status of ``fedlas monitor`` after an alarm."""


class Monitor:
    """Drift monitor: sequential tests for a change of live predictions since a calibration card was written.

    Watches look at each batch. With a card of the predicted class: calibration and accuracy (with the risk at the
    card's thresholds) where it has labels, the distribution of confidences and the shares of the predicted classes
    always. With a card of the event of two classes: calibration and how often the event occurs (with the false alarms
    at the card's thresholds) where it has labels, the distribution of its probabilities and the shares of samples to
    act on always. With a card of several labels: calibration and prevalence of each label, where it is known, and the
    distribution of its probability always; the labels share the bets of a watch, which names those whose bets alone are
    enough for the alarm. Each is a sequential test, see :class:`~fedlas.stats.drift.MeanDrift`, which holds however
    often one looks; none can silence another.

    Args:
        card: A calibration card, the result of :func:`fedlas.card`, a JSON file, or JSON values.
        false_alarm: Largest probability of an alarm while nothing changes, over the whole stream and all watches.

    Raises:
        InputError: If the card cannot be used, or ``false_alarm`` is not in (0, 1).

    State:
        Every :meth:`update` continues the tests.
    """

    def __init__(self, card: CardSource, *, false_alarm: float = 0.01) -> None:
        self.card = Card.of(card)
        self.false_alarm = check_confidence_level(false_alarm, name="false_alarm")
        self._watches = build_watches(self.card, false_alarm=false_alarm)
        self._stream = StreamState.initial(self._watches)
        self._raw = self.card.expects_raw
        self._previous_totals = self._watch_totals()
        # Values that a state file must match.
        self._identity: dict[str, Any] = {}

    @check_argument_types
    def update(
        self, predictions: Predictions | TopLabel | MultiLabel, *, raw: bool | None = None
    ) -> bool:
        """Update the tests with live predictions, and return whether there has been an alarm.

        Args:
            predictions: In order of time, with or without labels; for a multi-label card a
                :class:`~fedlas.MultiLabel`, with any labels unknown.
            raw: Whether the predictions are uncalibrated, so that the card's calibration is applied; None uses the
                setting of the card.

        Raises:
            InputError: For another number of classes, or other labels, than the card's, or ``raw`` confidences.
        """
        self._raw = self.card.expects_raw if raw is None else raw
        self._observe_batches(
            [to_live_batch(self.card, predictions, raw=self._raw, source="update")]
        )
        return self._stream.first_alarm is not None

    def _observe_batches(self, batches: Iterable[LiveBatch]) -> None:
        before = self._stream.samples
        self._previous_totals = self._watch_totals()
        for batch in batches:
            self._stream.observe(batch)
        if self._stream.samples == before:
            raise InputError(
                "live predictions must have at least one sample",
                "none",
                "Pass files or predictions with samples.",
            )
        self._stream.looks += 1

    def _watch_totals(self) -> dict[str, tuple[float, float]]:
        """Return pairs by watch name: count and sum of its first statistic; ``""`` has samples and labeled samples."""
        stream = self._stream
        totals = {
            name: (float(each.count[:, 0].sum()), float(each.total[:, 0].sum()))
            for name, each in stream.histories.items()
        }
        return {"": (float(stream.samples), float(stream.labeled)), **totals}

    def write_state(self, path: Path, pending: Sequence[Period] = ()) -> None:
        """Write the state file, including periods whose history is not written yet."""
        self._stream.pending += pending
        self._stream.write(path, self._identity)

    @property
    def last_update(self) -> dict[str, Any]:
        """Results of the last update alone, as JSON values: samples, and mean with 95 % interval of each watch."""
        now = self._watch_totals()
        samples, labeled = (
            int(a - b) for a, b in zip(now[""], self._previous_totals[""], strict=True)
        )
        means = {}
        for watch in self._watches:
            count, total = (
                a - b
                for a, b in zip(now[watch.name], self._previous_totals[watch.name], strict=True)
            )
            if count > 0:
                reach = 1.96 * float(watch.spread[0]) / math.sqrt(count)
                means[watch.name] = {
                    "name": watch.statistics[0],
                    "samples": int(count),
                    "mean": total / count,
                    "low": total / count - reach,
                    "high": total / count + reach,
                    "card": float(watch.card[0]),
                }
        return {"samples": samples, "labeled": labeled, "means": means}

    @property
    def status(self) -> int:
        """Exit status: 0 without an alarm, else :data:`ALARM_EXIT_STATUS`."""
        return 0 if self._stream.first_alarm is None else ALARM_EXIT_STATUS

    @property
    def content(self) -> dict[str, Any]:
        """State of the monitor as JSON values: samples, alarms and statistics of each watch."""
        stream = self._stream
        watches = {watch.name: watch for watch in self._watches}
        return {
            "card": self.card.name,
            "card_samples": self.card.num_samples,
            "subject": self.card.subject,
            "live": "raw" if self._raw else "calibrated",
            **{name: getattr(stream, name) for name in ("samples", "labeled", "looks")},
            "false_alarm": self.false_alarm,
            "alarm": stream.first_alarm is not None,
            "alarm_after": stream.first_alarm,
            "alarms": sorted(stream.alarms, key=lambda name: stream.alarms[name]),
            "watches": {
                name: _watch_to_dict(watches[name], stream)
                if name in watches
                else {"watched": False, "why": "not on card", "alarm": False}
                for name in WATCHES[self.card.subject]
            },
        }

    @property
    def summary(self) -> str:
        """Sentence with the number of live samples and the card that they are compared with."""
        samples = self._stream.samples
        labeled = self._stream.labeled
        with_labels = {0: "without labels", samples: "with labels"}.get(
            labeled, f"{labeled:,} of them with labels"
        )
        form = "raw, so the card's calibration is applied" if self._raw else "calibrated"
        test = f"{self.card.num_samples:,} test samples"
        return f"{samples:,} live samples, {with_labels}, taken as {form}; card of {self.card.name}, {test}."

    @property
    def verdict(self) -> str:
        """Sentence that states whether there is an alarm, and from which watches."""
        alarms = self._stream.alarms
        if alarms:
            first = min(alarms.values())
            return f"ALARM after sample {first:,}: {join_words(self.alarm_names)} changed since the card."
        watched = [watch.name for watch in self._watches if watch.test.samples]
        return f"No alarm: no change detected in {join_words(watched)}."

    @property
    def alarm_names(self) -> list[str]:
        """Names of the watches with an alarm, earliest first, with the labels, such as "calibration of edema"."""
        stream = self._stream
        names = sorted(stream.alarms, key=lambda name: stream.alarms[name])
        labels = {name: [*stream.labels.get(name, ())] for name in names}
        for each in labels.values():
            if each[1:] and ALL_LABELS in each:
                each.remove(ALL_LABELS)
        return [
            f"{name} of {truncated_list(labels[name], 4)}" if labels[name] else name
            for name in names
        ]

    def __repr__(self) -> str:
        if not self._stream.samples:
            return f"Monitor of {self.card.name}, no samples yet"
        return f"{self.verdict}\n{self.summary}"


def monitor(
    card_file: Path,
    files: Sequence[Path],
    *,
    false_alarm: float = 0.01,
    columns: Columns | None = None,
    raw: bool | None = None,
    state: Path | None = None,
) -> Monitor:
    """Run a monitor on files of live predictions, in order of time, and update the state file if there is no error."""
    # The lock is held from before the state is read until it is written. An alarm persists until the file is removed.
    with lock_files(state):
        watcher = monitor_files(
            card_file, files, false_alarm=false_alarm, columns=columns, raw=raw, state=state
        )
        if state is not None:
            watcher.write_state(state)
    return watcher


def monitor_files(
    card_file: Path,
    files: Sequence[Path],
    *,
    false_alarm: float = 0.01,
    columns: Columns | None = None,
    raw: bool | None = None,
    state: Path | None = None,
) -> Monitor:
    """Run a monitor as :func:`monitor` does, without writing the state; the caller must hold the lock."""
    path = card_file / "card.json" if card_file.is_dir() else card_file
    watcher = Monitor(path, false_alarm=false_alarm)
    watcher._raw = watcher.card.expects_raw if raw is None else raw
    if raw is None and watcher._raw and columns is not None:
        check_not_calibrated(columns)
    if state is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        watcher._identity = {"format": FORMAT, "card": digest, "false_alarm": false_alarm}
        if state.exists():
            watcher._stream = read_state(state, watcher._identity, watcher._watches)
        watcher._stream.add_files(files)
    watcher._observe_batches(
        batch
        for file in files
        for batch in read_batches(watcher.card, file, columns, raw=watcher._raw)
    )
    return watcher


def _watch_to_dict(watch: Watch, stream: StreamState) -> dict[str, Any]:
    test = watch.test
    history = stream.histories[watch.name]
    columns: dict[str, Sequence[Any]] = {
        "name": watch.statistics,
        "live": [None if math.isnan(mean) else mean for mean in history.means.tolist()],
        "card": watch.card.tolist(),
        "low": test.low.tolist(),
        "high": test.high.tolist(),
        "samples": history.count.sum(axis=0).astype(int).tolist(),
        "evidence": test.evidence_by_statistic.tolist(),
    }
    by_label = {}
    if watch.parts:
        columns["label"] = [watch.parts[part] for part in test.parts]
        evidence = dict(zip(watch.parts, test.evidence_by_part.tolist(), strict=True))
        alarms = stream.labels.get(watch.name, {})
        by_label = {
            name: {"evidence": each, "alarm_after": alarms.get(name)}
            for name, each in evidence.items()
        }
    rows = zip(*columns.values(), strict=True)
    return {
        "watched": test.samples > 0,
        **({} if test.samples else {"why": watch.missing}),
        "alarm": watch.name in stream.alarms,
        "alarm_after": stream.alarms.get(watch.name),
        "samples": test.samples,
        "evidence": test.evidence,
        "threshold": test.threshold,
        **({"labels": by_label} if by_label else {}),
        "statistics": [dict(zip(columns, row, strict=True)) for row in rows],
    }
