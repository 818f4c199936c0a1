"""``fedlas monitor``: reads a stream of predictions, passes it to the watches and reports their state."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import Argument, InputError, few, warn_user
from fedlas._core.kinds import check_kinds
from fedlas._core.text import listed
from fedlas.deploy.card import Card, CardSource
from fedlas.deploy.monitor.period import Period
from fedlas.deploy.monitor.state import FORMAT, Watched, locked_files, read_state
from fedlas.deploy.monitor.watches import WATCHES, LiveBatch, Watch, watches_of
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import Columns, Predictions, TopLabel, open_table, read_predictions
from fedlas.predictions.arguments import checked_event
from fedlas.predictions.event import event_among
from fedlas.predictions.tables.read import is_log
from fedlas.predictions.tables.table import ScoreTable
from fedlas.resample.clusters import check_independent
from fedlas.stats.intervals import check_level

ALARM = 3
"""Exit status of an alarm."""
_NOT_WATCHED = {
    "weights": (
        "samples must have no weights, which the tests of a stream do not use",
        "Leave the weights out.",
    ),
    "clusters": (
        "samples must be independent for the bound on false alarms to hold",
        "Keep one row of each cluster: without the clusters the bound would be stated, and not hold.",
    ),
    "labels": (
        "samples must have one label each, as a card has",
        "Watch the probability of one label: name its column by probs, and its labels by target.",
    ),
}
"""Roles of a column that are refused: the condition and the remedy."""


@dataclass(frozen=True)
class LiveScores:
    """Scores and outcomes of some rows."""

    # Confidences (n,), or logits (n, C).
    scores: Tensor
    # Whether confidences came true (n,), or labels; None without labels.
    outcome: Tensor | None
    # Names of the classes; empty if they have none.
    classes: tuple[str, ...] = ()
    # The class that was said to be the event, its name or number; None if none was.
    event: str | int | None = None


class Monitor:
    """Watches predictions of a service for a change since its card.

    Four watches look at each batch. With a card of the predicted class: calibration and accuracy (with the risk at the
    card's thresholds) where it has labels, the distribution of confidences and the shares of the predicted classes
    always. With a card of the event of two classes: calibration and how often the event occurs (with the false alarms
    at the card's thresholds) where it has labels, the distribution of its probabilities and the shares of samples to
    act on always. Each is a sequential test, see :class:`~fedlas.stats.drift.MeanDrift`, which holds however often one
    looks; none can silence another.

    Args:
        card: A calibration card, what :func:`fedlas.card` returned, or its JSON file or content.
        false_alarm: Largest probability of an alarm while nothing changes, over the whole stream and all watches.

    Raises:
        InputError: If the card cannot be used, or ``false_alarm`` is not in (0, 1).

    State:
        Every :meth:`update` adds to the tests.
    """

    def __init__(self, card: CardSource, *, false_alarm: float = 0.01) -> None:
        self.card = Card.of(card)
        self.false_alarm = check_level(false_alarm, name="false_alarm")
        self._watches = watches_of(self.card, false_alarm=false_alarm)
        self._stream = Watched.nothing(self._watches)
        self._raw = self.card.raw
        self._before = self._totals()
        # What a state must agree with.
        self._identity: dict[str, Any] = {}

    @check_kinds
    def update(self, predictions: Predictions | TopLabel, *, raw: bool | None = None) -> bool:
        """Add predictions and return whether there has been an alarm.

        Args:
            predictions: In the order of time, with labels or without.
            raw: Whether they have not been through the card's calibration, which is then applied first; None: as the
                card says.

        Raises:
            InputError: For another number of classes than the card's, or ``raw`` confidences.
        """
        self._raw = self.card.raw if raw is None else raw
        self._look([_of_predictions(self.card, predictions, raw=self._raw, source="update")])
        return self._stream.alarm is not None

    def _look(self, batches: Iterable[LiveBatch]) -> None:
        before = self._stream.samples
        self._before = self._totals()
        for batch in batches:
            self._stream.observe(batch)
        if self._stream.samples == before:
            raise InputError("there must be at least one sample", "none", "Check the files.")
        self._stream.looks += 1

    def _totals(self) -> dict[str, tuple[float, float]]:
        """Return samples, and those with labels, and count and sum of the leading mean of each watch."""
        stream = self._stream
        totals = {
            name: (float(each.count[:, 0].sum()), float(each.total[:, 0].sum()))
            for name, each in stream.histories.items()
        }
        return {"": (float(stream.samples), float(stream.labeled)), **totals}

    def write_state(self, path: Path, pending: Sequence[Period] = ()) -> None:
        """Write the state, with the periods that it counts and whose history is written next."""
        self._stream.pending += pending
        self._stream.write(path, self._identity)

    @property
    def last_look(self) -> dict[str, Any]:
        """Samples of the last look alone, and the leading mean of each watch with its 95 % interval, for JSON."""
        now = self._totals()
        samples, labeled = (int(a - b) for a, b in zip(now[""], self._before[""], strict=True))
        means = {}
        for watch in self._watches:
            count, total = (
                a - b for a, b in zip(now[watch.name], self._before[watch.name], strict=True)
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
        """Exit status: 0, or :data:`ALARM`."""
        return 0 if self._stream.alarm is None else ALARM

    @property
    def content(self) -> dict[str, Any]:
        """Samples, alarms and what each watch shows, as plain values for JSON."""
        stream = self._stream
        watches = {watch.name: watch for watch in self._watches}
        return {
            "card": self.card.name,
            "card_samples": int(self.card.gaps.count[0]),
            "subject": self.card.subject,
            "live": "raw" if self._raw else "calibrated",
            **{name: getattr(stream, name) for name in ("samples", "labeled", "looks")},
            "false_alarm": self.false_alarm,
            "alarm": stream.alarm is not None,
            "alarm_after": stream.alarm,
            "alarms": sorted(stream.alarms, key=lambda name: stream.alarms[name]),
            "watches": {
                name: _watch(watches[name], stream)
                if name in watches
                else {"watched": False, "why": "not on card", "alarm": False}
                for name in WATCHES[self.card.subject]
            },
        }

    @property
    def summary(self) -> str:
        """Number of samples and what they are compared with, as a sentence."""
        samples = self._stream.samples
        labeled = self._stream.labeled
        with_labels = {0: "without labels", samples: "with labels"}.get(
            labeled, f"{labeled:,} of them with labels"
        )
        form = "raw, so the card's calibration is applied" if self._raw else "calibrated"
        test = f"{int(self.card.gaps.count[0]):,} test samples"
        return f"{samples:,} live samples, {with_labels}, taken as {form}; card of {self.card.name}, {test}."

    @property
    def verdict(self) -> str:
        """Alarm or none, and by which watch, as a sentence."""
        alarms = self._stream.alarms
        if alarms:
            names = sorted(alarms, key=lambda name: alarms[name])
            return f"ALARM after sample {min(alarms.values()):,}: {listed(names)} changed since the card."
        watched = [watch.name for watch in self._watches if watch.test.samples]
        return f"No alarm: no change shows in {listed(watched)}."

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
    """Return a monitor that has read files of live predictions in the order of time; an error leaves the state."""
    # Calls that share a state wait for one another, each from before it reads the state until it has written it. An
    # alarm stays until the file is removed.
    with locked_files(state):
        watcher = watch_files(
            card_file, files, false_alarm=false_alarm, columns=columns, raw=raw, state=state
        )
        if state is not None:
            watcher.write_state(state)
    return watcher


def watch_files(
    card_file: Path,
    files: Sequence[Path],
    *,
    false_alarm: float = 0.01,
    columns: Columns | None = None,
    raw: bool | None = None,
    state: Path | None = None,
) -> Monitor:
    """Return a monitor as :func:`monitor` does; only reads, and the caller has locked the state."""
    path = card_file / "card.json" if card_file.is_dir() else card_file
    watcher = Monitor(path, false_alarm=false_alarm)
    watcher._raw = watcher.card.raw if raw is None else raw
    if raw is None and watcher._raw and columns is not None:
        _check_raw(columns)
    if state is not None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        watcher._identity = {"format": FORMAT, "card": digest, "false_alarm": false_alarm}
        if state.exists():
            watcher._stream = read_state(state, watcher._identity, watcher._watches)
        watcher._stream.count_files(files)
    watcher._look(
        batch for file in files for batch in _batches(watcher.card, file, columns, raw=watcher._raw)
    )
    return watcher


def _check_raw(columns: Columns) -> None:
    """Refuse scores of ``fedlas apply``, to which the card's calibration would be applied again."""
    if names := columns.calibrated_scores:
        raise InputError(
            "live predictions must be raw, as the card says, since its calibration is applied to them",
            f"{few(names)}, which fedlas apply has calibrated",
            "Name the columns of the raw scores, or say that these are calibrated (--calibrated on the command line).",
        )


def _batches(card: Card, file: Path, columns: Columns | None, *, raw: bool) -> Iterable[LiveBatch]:
    """Return the batches of a file; features come with all of its rows."""
    if raw and card.calibration.uses_features:
        predictions = read_predictions(file, columns, labeled=False).predictions
        return [_of_predictions(card, predictions, raw=True, source=file.name)]
    return (_batch(card, scores, raw=raw, source=file.name) for scores in _blocks(file, columns))


def _of_predictions(
    card: Card, predictions: Predictions | TopLabel, *, raw: bool, source: str
) -> LiveBatch:
    """Return confidences and outcomes of predictions, whose features go into a calibration that uses them."""
    if raw and card.calibration.uses_features:
        if predictions.features is None:
            expected = "raw predictions must hold the features that the card's calibration uses"
            fix = "Save them, fedlas.predict(model, loader, features=True).save(path), or pass calibrated predictions."
            raise InputError(expected, f"{source} without", fix)
        predictions = card.calibration.transform(predictions)
        raw = False
    return _batch(card, _scores(predictions), raw=raw, source=source)


def _blocks(file: Path, columns: Columns | None) -> Iterable[LiveScores]:
    """Return scores and outcomes of some rows at a time."""
    if is_log(file, columns or Columns()):
        return [_scores(read_predictions(file, columns, labeled=False).predictions)]
    table = open_table(file, columns)
    for name, why in _NOT_WATCHED.items():
        if (column := getattr(table.columns, name)) is not None:
            raise InputError(why[0], f"{name} in column {column!r} of {file}", why[1])
    return _of_table(table, file)


def _of_table(table: ScoreTable, file: Path) -> Iterable[LiveScores]:
    """Yield scores and outcomes; say in the end how many rows were left out."""
    for block in table.blocks():
        event = event_among(table.classes, table.columns.event)
        yield LiveScores(*block, table.classes, event)
    if table.dropped:
        warn_user(f"{table.dropped:,} rows of {file.name} lack a value and were left out.")


def _scores(predictions: Predictions | TopLabel) -> LiveScores:
    check_takes_weights(predictions, takes_weights=False)
    check_independent(predictions, "the bound on false alarms")
    if isinstance(predictions, Predictions):
        target = predictions.target.cpu() if predictions.has_target else None
        classes = predictions.classes or ()
        return LiveScores(predictions.logits.cpu(), target, classes, predictions.event)
    return LiveScores(predictions.confidence.cpu(), predictions.correct)


def _batch(card: Card, live: LiveScores, *, raw: bool, source: str) -> LiveBatch:
    """Return confidences and outcomes of scores, whose classes must be those of the card, in its order."""
    scores, outcome = live.scores, live.outcome
    if scores.ndim == 1:
        if card.subject == "event":
            fix = "Pass the probability of the event, or a card of the predicted class."
            expected = "predictions must have both classes, since the card is about the event"
            raise InputError(expected, f"confidences in {source}", fix)
        if raw and card.num_classes:
            fix = "Pass the scores of all classes, or say that the confidences are calibrated."
            raise InputError(
                "raw predictions need the scores of all classes", f"confidences in {source}", fix
            )
        if raw:
            # In their own precision, as on the card: steps of a calibrator coincide with ends of its bins.
            unknown = torch.zeros(len(scores), dtype=torch.bool)
            scores = card.calibration.transform(TopLabel(scores, unknown)).confidence
        return LiveBatch(
            scores.double().numpy(), None if outcome is None else outcome.numpy(), None
        )
    if scores.shape[1] != card.num_classes:
        fix = "Pass predictions of the model that the card is about."
        expected = f"predictions must have the card's {card.num_classes} classes"
        if not card.num_classes:
            expected = "predictions must be confidences, as the card's"
        raise InputError(expected, f"{scores.shape[1]} in {source}", fix)
    _check_classes(card, live, source)
    logits = card.calibration(scores.double()) if raw else scores.double()
    if card.subject == "event":
        happened = None if outcome is None else torch.eq(outcome, card.event_index).numpy()
        return LiveBatch(logits.softmax(dim=1)[:, card.event_index].numpy(), happened, None)
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    correct = None if outcome is None else torch.eq(predicted, outcome).numpy()
    return LiveBatch(confidence.clamp(0.0, 1.0).numpy(), correct, predicted.numpy())


def _check_classes(card: Card, live: LiveScores, source: str) -> None:
    """Refuse classes, or an event, other than those of the card."""
    # Classes without names are their numbers: those of a column about class 0 come in the other order.
    numbers = tuple(map(str, range(card.num_classes)))
    names, live_names = (each or numbers for each in (card.classes, live.classes))
    if names != live_names and ((live.classes and card.classes) or set(names) == set(live_names)):
        raise InputError(
            f"classes must be those of the card, {few(names)}, in its order",
            f"{few(live_names)} in {source}",
            "Order the columns as for the card, or write a card of this model.",
        )
    # The event of 0 and 1 may have been named for the card.
    number = checked_event(live.event, card.num_classes, live.classes or card.classes or None)
    if card.subject == "event" and number not in (None, card.event_index):
        raise InputError(
            f"must be the card's, {names[card.event_index]}",
            f"{live.event} in {source}",
            ("Leave ", Argument("event"), " out, or write a card of this event."),
            argument="event",
        )


def _watch(watch: Watch, stream: Watched) -> dict[str, Any]:
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
    rows = zip(*columns.values(), strict=True)
    return {
        "watched": test.samples > 0,
        **({} if test.samples else {"why": watch.missing}),
        "alarm": watch.name in stream.alarms,
        "alarm_after": stream.alarms.get(watch.name),
        "samples": test.samples,
        "evidence": test.evidence,
        "threshold": test.threshold,
        "statistics": [dict(zip(columns, row, strict=True)) for row in rows],
    }
