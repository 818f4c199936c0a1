"""Conversion of live predictions, from files or memory, to checked and calibrated batches for the watches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, truncated_list, warn_user
from fedlas._core.ops import Floats, row_argmax, row_max, sigmoid, softmax
from fedlas._core.types import FloatArray
from fedlas.deploy.monitor.watches import LiveBatch
from fedlas.metrics.sums import check_weights_supported
from fedlas.predictions import (
    Columns,
    MultiLabel,
    Predictions,
    TopLabel,
    open_table,
    read_predictions,
)
from fedlas.predictions.arguments import check_event
from fedlas.predictions.event import resolve_event
from fedlas.predictions.multi_label import UNKNOWN
from fedlas.predictions.tables.read import is_lm_eval_log
from fedlas.resample.clusters import require_independent

if TYPE_CHECKING:
    from fedlas.deploy.card import Card
    from fedlas.predictions.tables.table import ScoreTable

_UNSUPPORTED_COLUMNS = {
    "weights": (
        "samples must have no weights, which monitoring does not support",
        "Leave out the weights.",
    ),
    "clusters": (
        "samples must be independent, because the bound on false alarms requires independence",
        "Keep one row per cluster; leaving out only the cluster column would make the bound invalid.",
    ),
}
"""Column roles that monitoring does not support: condition and remedy."""


@dataclass(frozen=True)
class LiveScores:
    """Scores and outcomes of a block of live samples."""

    # Confidences (n,), logits (n, C), or multi-label logits (n, L).
    scores: Floats
    # Correctness of confidences (n,), labels (n,), or several labels (n, L); None without labels.
    outcome: NDArray[Any] | None
    # Names of the classes or labels; empty if unknown.
    classes: tuple[str, ...] = ()
    # Name or index of the event class, or None.
    event: str | int | None = None
    is_multi_label: bool = False


def check_not_calibrated(columns: Columns) -> None:
    """Raise InputError for scores that ``fedlas apply`` has already calibrated."""
    if names := columns.calibrated_scores:
        raise InputError(
            "live predictions must be uncalibrated, because the card's calibration is applied to them",
            f"{truncated_list(names)}, calibrated by fedlas apply",
            "Pass the columns of raw scores, or state that these are calibrated (--calibrated on the command line).",
        )


def read_batches(
    card: Card, file: Path, columns: Columns | None, *, raw: bool
) -> Iterable[LiveBatch]:
    """Return the live batches of a file: a single one if the calibration uses features."""
    of_labels = card.subject == "labels"
    if (raw and card.calibration.uses_features) or (of_labels and file.suffix == ".npz"):
        predictions = read_predictions(file, columns, labeled=False).predictions
        return [to_live_batch(card, predictions, raw=raw, source=file.name)]
    if of_labels and columns is not None and columns.target is not None:
        fix = ("Pass the columns of all labels as ", Argument("labels"), ".")
        raise InputError(
            "must be left out for a multi-label card", columns.target, fix, argument="target"
        )
    blocks = _iter_scores(file, columns, () if of_labels else None)
    return (_calibrate_batch(card, scores, raw=raw, source=file.name) for scores in blocks)


def to_live_batch(
    card: Card, predictions: Predictions | TopLabel | MultiLabel, *, raw: bool, source: str
) -> LiveBatch:
    """Return a live batch of predictions, calibrated by the card if ``raw``."""
    if raw and card.calibration.uses_features:
        if predictions.features is None:
            expected = "raw predictions must have features, which the card's calibration uses"
            fix = (
                "Save them by fedlas.predict(model, loader, features=True).save(path), or pass calibrated "
                "predictions."
            )
            raise InputError(expected, f"no features in {source}", fix)
        predictions = card.calibration.transform(predictions)
        raw = False
    return _calibrate_batch(card, _scores_from_predictions(predictions), raw=raw, source=source)


def _iter_scores(
    path: Path, columns: Columns | None, label_names: tuple[str, ...] | None
) -> Iterable[LiveScores]:
    """Return an iterable of blocks of scores and outcomes in a file."""
    if is_lm_eval_log(path, columns or Columns()):
        return [
            _scores_from_predictions(read_predictions(path, columns, labeled=False).predictions)
        ]
    table = open_table(path, columns, label_names=label_names)
    for name, why in _UNSUPPORTED_COLUMNS.items():
        if (column := getattr(table.columns, name)) is not None:
            raise InputError(why[0], f"{name} in column {column!r} of {path}", why[1])
    return _iter_table_scores(table, path)


def _iter_table_scores(table: ScoreTable, path: Path) -> Iterable[LiveScores]:
    """Yield blocks of scores and outcomes; at the end warn about rows that were left out."""
    for block in table.blocks():
        event = resolve_event(table.classes, table.columns.event)
        names = table.classes if table.label_names is None else table.label_names
        yield LiveScores(*block, names, event, table.label_names is not None)
    if table.dropped:
        warn_user(f"{table.dropped:,} rows of {path.name} lack a value and were left out.")


def _scores_from_predictions(predictions: Predictions | TopLabel | MultiLabel) -> LiveScores:
    check_weights_supported(predictions, takes_weights=False)
    require_independent(predictions, "the bound on false alarms")
    if isinstance(predictions, Predictions):
        target = predictions.target if predictions.has_target else None
        classes = predictions.classes or ()
        return LiveScores(predictions.logits, target, classes, predictions.event)
    if isinstance(predictions, MultiLabel):
        names = tuple(predictions.names or ())
        return LiveScores(predictions.logits, predictions.target, names, is_multi_label=True)
    return LiveScores(predictions.confidence, predictions.correct)


def _calibrate_batch(card: Card, live: LiveScores, *, raw: bool, source: str) -> LiveBatch:
    """Return a live batch of scores after checking that the classes match the card; calibrated if ``raw``."""
    scores, outcome = live.scores, live.outcome
    if card.subject == "labels" or live.is_multi_label:
        return _calibrate_label_batch(card, live, raw=raw, source=source)
    if scores.ndim == 1:
        if card.subject == "event":
            fix = "Pass the probability of the event, or use a card without an event."
            expected = (
                "predictions must have scores of both classes, because the card describes an event"
            )
            raise InputError(expected, f"only confidences in {source}", fix)
        if raw and card.num_classes:
            fix = "Pass the scores of all classes, or state that the confidences are calibrated."
            raise InputError(
                "raw predictions must have the scores of all classes",
                f"only confidences in {source}",
                fix,
            )
        if raw:
            # In the input precision, as for the card: steps of a calibrator coincide with bin edges.
            unknown = np.zeros(len(scores), dtype=bool)
            scores = card.calibration.transform(TopLabel(scores, unknown)).confidence
        return LiveBatch(scores.astype(np.float64), outcome, None)
    if scores.shape[1] != card.num_classes:
        fix = "Pass predictions of the model of this card."
        expected = f"predictions must have {card.num_classes} classes, like the card"
        if not card.num_classes:
            expected = "predictions must be confidences, because the card knows no classes"
        raise InputError(expected, f"{scores.shape[1]} classes in {source}", fix)
    _check_classes(card, live, source)
    logits = scores.astype(np.float64)
    probs = softmax(_calibrate(card, logits) if raw else logits)
    if card.subject == "event":
        happened = None if outcome is None else outcome == card.event_index
        return LiveBatch(probs[:, card.event_index], happened, None)
    predicted = row_argmax(probs)
    correct = None if outcome is None else predicted == outcome
    return LiveBatch(row_max(probs).clip(0.0, 1.0), correct, predicted)


def _calibrate(card: Card, logits: FloatArray) -> FloatArray:
    """Return the calibrated logits of the card."""
    import torch

    calibrated: FloatArray = card.calibration(torch.from_numpy(logits)).numpy()
    return calibrated


def _calibrate_label_batch(card: Card, live: LiveScores, *, raw: bool, source: str) -> LiveBatch:
    """Return a live batch of several labels, ordered as on the card; calibrated if ``raw``."""
    names, of_labels = live.classes, card.subject == "labels"
    # Labels without names are named 0, 1, ...
    numbers = tuple(map(str, range(card.num_classes)))
    is_alike = {*names} == {*card.classes} or (
        numbers in (names, card.classes) and len(names) == card.num_classes
    )
    if not (of_labels and live.is_multi_label and is_alike):
        of_card = (
            f"those of the card, {truncated_list(card.classes)}" if of_labels else "one per sample"
        )
        fix = "Pass predictions of the model of this card, or write a card for these labels."
        got = truncated_list(names) if live.is_multi_label else "one label per sample"
        raise InputError(f"labels must be {of_card}", f"{got} in {source}", fix)
    logits, outcome = live.scores.astype(np.float64), live.outcome
    if {*names} == {*card.classes}:
        order = [names.index(name) for name in card.classes]
        logits, outcome = logits[:, order], None if outcome is None else outcome[:, order]
    if raw:
        logits = _calibrate(card, logits)
    happened, is_told = None, None
    if outcome is not None:
        happened, is_told = outcome == 1, outcome != UNKNOWN
    return LiveBatch(sigmoid(logits), happened, None, is_told)


def _check_classes(card: Card, live: LiveScores, source: str) -> None:
    """Raise InputError if classes, their order or the event differ from the card."""
    # Classes without names are named 0, 1, ...; a single column for class 0 has the reverse order.
    numbers = tuple(map(str, range(card.num_classes)))
    names, live_names = (each or numbers for each in (card.classes, live.classes))
    if names != live_names and ((live.classes and card.classes) or set(names) == set(live_names)):
        raise InputError(
            f"classes must be {truncated_list(names)}, in the order of the card",
            f"{truncated_list(live_names)} in {source}",
            "Order the columns as on the card, or write a card for this model.",
        )
    # The card may have a name for the event of 0/1 labels.
    number = check_event(live.event, card.num_classes, live.classes or card.classes or None)
    if card.subject == "event" and number not in (None, card.event_index):
        raise InputError(
            f"must be {names[card.event_index]}, the event of the card",
            f"{live.event} in {source}",
            ("Leave ", Argument("event"), " out, or write a card for this event."),
            argument="event",
        )
