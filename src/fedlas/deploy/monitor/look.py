"""``fedlas monitor``: reads a stream of predictions, lets the watches see it, and says what they found."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.deploy.card import Card
from fedlas.deploy.monitor import text
from fedlas.deploy.monitor.delays import CHANGES, MOVES, samples_until
from fedlas.deploy.monitor.state import FORMAT, OWNER, Watched, locked, read_state
from fedlas.deploy.monitor.watches import WATCHES, Batch, Watch, watches_of
from fedlas.predictions import Columns, Predictions, TopLabel, open_table
from fedlas.stats.intervals import check_level

ALARM = 3
"""Exit status of an alarm."""


@dataclass(frozen=True)
class Findings:
    """What a look at a stream found.

    Attributes:
        seen: All of the stream so far.
        content: Everything as plain values for JSON, but the history.
    """

    seen: Watched
    content: dict[str, Any]

    @property
    def status(self) -> int:
        """Exit status: 0, or :data:`ALARM`."""
        return 0 if self.seen.alarm is None else ALARM


def monitor(
    card_file: Path,
    files: Sequence[Path],
    *,
    false_alarm: float = 0.01,
    columns: Columns | None = None,
    raw: bool = False,
    state: Path | None = None,
) -> Findings:
    """Compare live predictions with a calibration card and say whether something has changed.

    Four watches look at each batch: calibration and accuracy (with the risk at the card's thresholds) where it has
    labels, the distribution of confidences and the shares of the predicted classes always. Each is a sequential test,
    see :class:`~fedlas.stats.drift.MeanDrift`, and none can silence another.

    Args:
        card_file: The card's JSON, or the run folder that holds ``card.json``.
        files: Predictions in the order of time, some with labels and some without.
        false_alarm: Largest probability of an alarm while nothing changes: of all watches together over the whole
            stream, and with ``state`` over all calls together.
        columns: Which columns hold what; None for ``.npz`` with ``logits`` (and ``target``).
        raw: The predictions have not been through the card's calibration, which is applied first.
        state: File to resume from and to write; None starts afresh and leaves nothing. Calls that share it wait for one
            another, each from before it reads the state until it has written it.

    Returns:
        What was found. With ``state`` an alarm stays until that file is removed.

    Raises:
        InputError: If the card, a file or the state cannot be used. The state is unchanged then.
    """
    check_level(OWNER, false_alarm, name="false_alarm")
    path = card_file / "card.json" if card_file.is_dir() else card_file
    card = Card.read(path)
    watches = watches_of(card, false_alarm=false_alarm)
    stream = _stream(files, columns, card, raw=raw)
    if state is None:
        seen = Watched.nothing(watches)
        _take(seen, stream)
    else:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        identity = {"format": FORMAT, "card": digest, "false_alarm": false_alarm}
        with locked(state):
            seen = read_state(state, identity, watches) if state.exists() else Watched.nothing(watches)
            _take(seen, stream)
            seen.write(state, identity)
    return Findings(seen, _content(card, seen, false_alarm))


def _take(seen: Watched, stream: Iterator[Batch]) -> None:
    before = seen.samples
    for batch in stream:
        seen.observe(batch)
    if seen.samples == before:
        raise InputError(OWNER, "there must be at least one sample", "none", "Check the files.")
    seen.looks += 1


def _stream(files: Sequence[Path], columns: Columns | None, card: Card, *, raw: bool) -> Iterator[Batch]:
    """The files, block by block."""
    for file in files:
        for scores, outcome in open_table(file, columns).blocks():
            yield _batch(card, scores, outcome, raw=raw, source=file.name)


def _batch(card: Card, scores: Tensor, outcome: Tensor | None, *, raw: bool, source: str) -> Batch:
    """Confidences and whether they came true, of confidences ``(n,)`` or logits ``(n, C)``."""
    if scores.ndim == 1:
        if raw and card.num_classes:
            fix = "Pass calibrated confidences and leave --raw out, or the scores of all classes."
            raise InputError(OWNER, "--raw needs the scores of all classes", f"confidences in {source}", fix)
        if raw:
            # In their own precision, as on the card: steps of a calibrator coincide with ends of its bins.
            unknown = torch.zeros(len(scores), dtype=torch.bool)
            scores = card.calibration.transform(TopLabel(scores, unknown)).confidence
        return Batch(scores.double().numpy(), None if outcome is None else outcome.numpy(), None)
    if scores.shape[1] != card.num_classes:
        fix = "Pass predictions of the model that the card is about."
        expected = f"predictions must have the card's {card.num_classes} classes"
        if not card.num_classes:
            expected = "predictions must be confidences, as the card's"
        raise InputError(OWNER, expected, f"{scores.shape[1]} in {source}", fix)
    logits = card.calibration(scores.double()) if raw else scores.double()
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    correct = None if outcome is None else torch.eq(predicted, outcome).numpy()
    return Batch(confidence.clamp(0.0, 1.0).numpy(), correct, predicted.numpy())


class Monitor:
    """Watches predictions of a service for a change of calibration, accuracy, confidences or classes since its card.

    The tests hold however often one looks, see :class:`~fedlas.stats.drift.MeanDrift`.

    Args:
        card: A calibration card, or its JSON file.
        false_alarm: Largest probability of an alarm while nothing changes, over the whole stream and all watches.

    Raises:
        InputError: If the card cannot be used, or ``false_alarm`` is not in (0, 1).

    State:
        Every :meth:`update` adds to the tests.
    """

    def __init__(self, card: Card | str | Path, *, false_alarm: float = 0.01) -> None:
        self.card = card if isinstance(card, Card) else Card.read(card)
        self.false_alarm = check_level(OWNER, false_alarm, name="false_alarm")
        self._seen = Watched.nothing(watches_of(self.card, false_alarm=false_alarm))

    def update(self, predictions: Predictions | TopLabel, *, raw: bool = False) -> bool:
        """Add predictions and return whether there has been an alarm.

        Args:
            predictions: In the order of time, with labels or without.
            raw: Whether they have not been through the card's calibration, which is then applied first.

        Raises:
            InputError: For another number of classes than the card's, or ``raw`` confidences.
        """
        if isinstance(predictions, TopLabel):
            scores, outcome = predictions.confidence, predictions.correct
        else:
            scores, outcome = predictions.logits, predictions.target
        self._seen.observe(_batch(self.card, scores.cpu(), outcome, raw=raw, source="update"))
        self._seen.looks += 1
        return self._seen.alarm is not None

    @property
    def content(self) -> dict[str, Any]:
        """Samples, alarms and what each watch shows, as plain values for JSON."""
        return _content(self.card, self._seen, self.false_alarm)

    def __repr__(self) -> str:
        if not self._seen.samples:
            return f"Monitor of {self.card.name}, no samples yet"
        return f"{text.summary(self.content)}\n{text.verdict(self.content)}"


def _content(card: Card, seen: Watched, false_alarm: float) -> dict[str, Any]:
    """Everything as plain values."""
    delays = samples_until(card, seen.watches)
    return {
        "card": card.name,
        "card_samples": int(card.gaps.count[0]),
        "samples": seen.samples,
        "labeled": seen.labeled,
        "looks": seen.looks,
        "false_alarm": false_alarm,
        "alarm": seen.alarm is not None,
        "alarm_after": seen.alarm,
        "alarms": sorted(seen.alarms, key=lambda name: seen.alarms[name]),
        "watches": {
            name: _watch(seen.watches[name], seen, delays[name])
            if name in seen.watches
            else {"watched": False, "why": "not on card", "alarm": False}
            for name in WATCHES
        },
    }


def _watch(watch: Watch, seen: Watched, delays: Sequence[float]) -> dict[str, Any]:
    test, history = watch.test, seen.histories[watch.name]
    counts = history.count.sum(axis=0)
    rows = zip(
        watch.statistics,
        history.means,
        watch.card,
        test.low,
        test.high,
        counts,
        test.evidence_by_statistic,
        strict=True,
    )
    why = {} if test.samples else {"why": watch.missing}
    return {
        "watched": test.samples > 0,
        **why,
        "alarm": watch.name in seen.alarms,
        "alarm_after": seen.alarms.get(watch.name),
        "samples": test.samples,
        "evidence": test.evidence,
        "threshold": test.threshold,
        "change": CHANGES[watch.name],
        # Once it has alarmed, nothing is left to be seen.
        "seen_in": {
            f"{100 * move:g}": None if math.isinf(delay) or watch.name in seen.alarms else max(1, math.ceil(delay))
            for move, delay in zip(MOVES, delays, strict=True)
        },
        "statistics": [
            {
                "name": name,
                "live": None if math.isnan(live) else float(live),
                "card": float(then),
                "low": float(low),
                "high": float(high),
                "samples": int(count),
                "evidence": float(evidence),
            }
            for name, live, then, low, high, count, evidence in rows
        ],
    }
