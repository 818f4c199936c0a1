"""Watches of a monitored stream: statistics of live batches, each group with a sequential test against the card.

With a card of the predicted class: calibration, accuracy, confidences and classes. With a card of an event:
calibration, how often the event occurs, its probabilities, and how many samples are acted on. With a card of several
labels: calibration, prevalence and probabilities, each of every label and of their mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas._core.types import FloatArray
from fedlas.deploy.label_reference import ALL_LABELS, LABEL_MEANS, LabelReference
from fedlas.stats.drift import MeanDrift
from fedlas.stats.gap_sums import GapSums, confidence_bounds_by_cell, confidence_cells
from fedlas.stats.proportion import clopper_pearson

if TYPE_CHECKING:
    from fedlas.deploy.card import Card

Values = tuple[FloatArray, NDArray[np.bool_]]
WATCHES = {
    "top label": ("calibration", "accuracy", "confidence", "classes"),
    "event": ("calibration", "events", "probability", "actions"),
    "labels": ("calibration", "prevalence", "probability"),
}
"""Names of the watches by subject of the card; each has an equal share of the false-alarm rate."""
_TERMS = {
    "top label": ("accuracy", "confidence", "wrong"),
    "event": ("event rate", "probability", "false alarms"),
    "labels": ("prevalence", "probability", "false alarms"),
}
"""Terms by subject: mean outcome, score, and errors above a threshold."""
_NUM_POINTS = 9
"""Number of confidences at which the share of samples below is watched."""
_SATURATION_MARGIN = 2e-6
"""Least distance of these confidences from 1, where float32 rounding (6e-8) would change the shares."""
MAX_GROUPS = 32
"""Largest number of groups of classes; each takes a part of the false-alarm rate, so many classes are grouped."""


@dataclass(frozen=True)
class LiveBatch:
    """Batch of live samples in order of time: confidences and outcomes ``(n,)``, or ``(n, L)`` for several labels."""

    # Probability of the predicted class, of the event, or of each label, by subject of the card.
    confidence: FloatArray
    # Whether the prediction is correct, the event occurred, or the label is present; None without labels.
    correct: NDArray[np.bool_] | None
    predicted: NDArray[np.int64] | None
    # Mask of known labels (n, L); None if all are known.
    known: NDArray[np.bool_] | None = None

    def __getitem__(self, rows: slice) -> LiveBatch:
        parts = (self.confidence, self.correct, self.predicted, self.known)
        return LiveBatch(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def labeled(self) -> int:
        """Number of samples with at least one known label."""
        if self.correct is None or self.known is None:
            return 0 if self.correct is None else len(self)
        return int(self.known.any(axis=1).sum())

    def select_label(self, index: int) -> LiveBatch:
        """Return the batch of the label with index ``index``; unknown labels count as absent."""
        correct = None if self.correct is None else self.correct[:, index]
        return LiveBatch(self.confidence[:, index], correct, None)


@dataclass(frozen=True)
class Watch:
    """A watch: S statistics of live batches, the main one first, their values on the card, and a sequential test."""

    name: str
    statistics: tuple[str, ...]
    card: FloatArray  # means on the card (S,)
    spread: FloatArray  # standard deviations per sample on the card (S,)
    test: MeanDrift  # with intervals from the card
    missing: str  # reason if no batch can be watched, such as "no labels"
    # Function from a batch to statistics and mask (n, S), or None if the batch lacks labels or classes.
    values: Callable[[LiveBatch], Values | None]
    # Names of the labels that the parts of the test belong to; empty for one label per sample.
    parts: tuple[str, ...] = ()


def build_watches(card: Card, *, false_alarm: float) -> tuple[Watch, ...]:
    """Return the watches for live predictions of a card's model, with equal shares of the false-alarm rate."""
    # Half of each watch's share is spent on the intervals of the card, which miss a mean with that probability, and
    # half on the test of the stream.
    error_rate = false_alarm / len(WATCHES[card.subject]) / 2
    if card.subject == "labels":
        return _label_watches(card, error_rate)
    watches = [
        _calibration_watch(card, error_rate),
        _outcome_watch(card, error_rate),
        _confidence_watch(card, card.gaps, error_rate),
    ]
    if card.subject == "event":
        watches += [_action_watch(card, error_rate)] if card.thresholds else []
    elif card.class_counts is not None:
        watches.append(_class_watch(card, card.class_counts, error_rate))
    return tuple(watches)


def _calibration_watch(card: Card | LabelReference, error_rate: float) -> Watch:
    """Return the watch of mean outcome minus confidence, overall and per confidence cell of the card."""
    gaps = card.gaps
    lowest, highest = confidence_bounds_by_cell(gaps.edges)
    low, high = gaps.bounds(confidence_level=1 - error_rate)

    def values(batch: LiveBatch) -> Values | None:
        if batch.correct is None:
            return None
        cell = confidence_cells(gaps.edges, batch.confidence)
        has = np.ones((len(batch), len(low)), dtype=bool)
        has[:, 1:] = cell[:, None] == np.arange(len(low) - 1)
        return np.repeat((batch.correct - batch.confidence)[:, None], len(low), axis=1), has

    outcome, score, _ = _TERMS[card.subject]
    whole = f"{outcome} minus {score}"
    cells = itertools.pairwise(gaps.edges)
    names = (
        whole,
        *(f"{whole.removeprefix('event ')} at {start:.3g}-{end:.3g}" for start, end in cells),
    )
    count = np.maximum(gaps.count, 1)
    variance = (gaps.right - 2 * gaps.products + gaps.squares) / count - (
        (gaps.right - gaps.confidence) / count
    ) ** 2
    test = MeanDrift(low, high, -highest, 1 - lowest, false_alarm=error_rate)
    means = np.where(gaps.count > 0, (gaps.right - gaps.confidence) / count, 0.0)
    return Watch(
        "calibration", names, means, np.sqrt(np.maximum(variance, 0)), test, "no labels", values
    )


def _outcome_watch(card: Card | LabelReference, error_rate: float) -> Watch:
    """Return the watch of the mean outcome and of the error rates above the card's thresholds."""
    count = int(card.gaps.count[0])
    right = round(card.gaps.right[0])
    rows = [row for row in card.thresholds if row.accepted]
    cuts = np.array([row.threshold for row in rows])
    miss = error_rate / (1 + len(rows))
    shares = [right / count, *(row.wrong / row.accepted for row in rows)]
    ends = [clopper_pearson(right, count, confidence_level=1 - miss)]
    for row in rows:
        if row.risk is None:
            ends.append(clopper_pearson(row.wrong, row.accepted, confidence_level=1 - miss))
            continue
        # Only a risk above both the target risk and the risk on the test part is a change.
        shown = clopper_pearson(row.wrong, row.accepted, confidence_level=1 - miss, sides=1)[1]
        ends.append((0.0, max(row.risk, shown)))

    def values(batch: LiveBatch) -> Values | None:
        if batch.correct is None:
            return None
        has = np.ones((len(batch), 1 + len(rows)), dtype=bool)
        has[:, 1:] = batch.confidence[:, None] >= cuts * (1.0 - 1e-12)
        wrong = np.repeat(~batch.correct[:, None], len(rows), axis=1)
        return np.concatenate([batch.correct[:, None], wrong], axis=1).astype(np.float64), has

    outcome, score, mistakes = _TERMS[card.subject]
    names = (outcome, *(f"{mistakes} at {score} {row.threshold:.4g} or more" for row in rows))
    return _share_watch(
        WATCHES[card.subject][1], names, shares, ends, error_rate, "no labels", values
    )


def _confidence_watch(card: Card | LabelReference, sums: GapSums, error_rate: float) -> Watch:
    """Return the watch of the confidence distribution: mean, and shares of samples below fixed confidences."""
    count = int(sums.count[0])
    # Bins by index, not by counts: the points must not depend on the counted samples.
    places = np.unique(
        np.linspace(0, len(card.bin_counts), _NUM_POINTS + 2).round().astype(int)[1:-1]
    )
    places = places[
        (places > 0)
        & (places < len(card.bin_counts))
        & (1 - card.bin_edges[places] > _SATURATION_MARGIN)
    ]
    points = card.bin_edges[places]
    below = card.bin_counts.cumsum()[places - 1]
    miss = error_rate / (1 + len(points))
    mean = float(sums.confidence[0] / count)
    ends = [
        sums.confidence_bounds(confidence_level=1 - miss),
        *(clopper_pearson(int(n), count, confidence_level=1 - miss) for n in below),
    ]

    def values(batch: LiveBatch) -> Values:
        statistics = np.concatenate(
            [batch.confidence[:, None], batch.confidence[:, None] < points], axis=1
        )
        return statistics, np.ones_like(statistics, dtype=bool)

    score = _TERMS[card.subject][1]
    names = (f"mean {score}", *(f"samples at {score} below {point:.6g}" for point in points))
    shares = [mean, *(below / count)]
    watch = _share_watch(
        WATCHES[card.subject][2], names, shares, ends, error_rate, "nothing", values
    )
    watch.spread[0] = np.sqrt(max(0.0, sums.squares[0] / count - mean**2))
    return watch


def _class_watch(card: Card, counts: FloatArray, error_rate: float) -> Watch:
    """Return the watch of the shares of predicted classes, or of groups of adjacent classes."""
    groups = np.array_split(np.arange(len(counts)), min(MAX_GROUPS, len(counts)))
    group_of = np.concatenate(
        [np.full(len(members), number) for number, members in enumerate(groups)]
    )
    samples = int(counts.sum())
    grouped = [int(counts[members].sum()) for members in groups]
    ends = [
        clopper_pearson(n, samples, confidence_level=1 - error_rate / len(groups)) for n in grouped
    ]

    def values(batch: LiveBatch) -> Values | None:
        if batch.predicted is None:
            return None
        hits = group_of[batch.predicted][:, None] == np.arange(len(groups))
        return hits.astype(np.float64), np.ones_like(hits)

    called = card.classes or tuple(map(str, range(len(counts))))
    names = tuple(
        f"predicted as class {called[g[0]]}"
        if len(g) == 1
        else f"predicted as classes {called[g[0]]} to {called[g[-1]]}"
        for g in groups
    )
    shares = [n / samples for n in grouped]
    return _share_watch("classes", names, shares, ends, error_rate, "no classes", values)


def _action_watch(card: Card, error_rate: float) -> Watch:
    """Return the watch of the shares of samples at or above the card's decision thresholds."""
    count = int(card.gaps.count[0])
    cuts = np.array([row.threshold for row in card.thresholds])
    acted = [row.accepted for row in card.thresholds]
    ends = [clopper_pearson(n, count, confidence_level=1 - error_rate / len(cuts)) for n in acted]

    def values(batch: LiveBatch) -> Values:
        above = batch.confidence[:, None] >= cuts * (1.0 - 1e-12)
        return above.astype(np.float64), np.ones_like(above)

    names = tuple(f"samples at probability {cut:.4g} or more" for cut in cuts)
    shares = [n / count for n in acted]
    return _share_watch("actions", names, shares, ends, error_rate, "nothing", values)


def _label_watches(card: Card, error_rate: float) -> tuple[Watch, ...]:
    """Return the watches of a multi-label card; each covers the mean over labels and every label."""
    # The intervals of a watch hold simultaneously: each label has an equal share of the error probability.
    miss = error_rate / (1 + card.num_classes)
    every = dict(enumerate(card.label_references))
    # For a label unknown in all test samples only the probability can be compared.
    labeled = {place: each for place, each in every.items() if each.gaps.count[0]}
    by_watch = {
        "calibration": {place: _calibration_watch(each, miss) for place, each in labeled.items()},
        "prevalence": {place: _outcome_watch(each, miss) for place, each in labeled.items()},
        "probability": {
            place: _confidence_watch(each, each.scores, miss) for place, each in every.items()
        },
    }
    return tuple(
        _join_watches(
            _label_mean_watch(name, card.label_mean_sums[name], miss),
            watches,
            card.classes,
            error_rate,
        )
        for name, watches in by_watch.items()
    )


def _label_mean_watch(name: str, sums: GapSums, error_rate: float) -> Watch:
    """Return the watch of the mean over all labels; outcomes are used only if all labels of a sample are known."""
    lowest = -1.0 if name == "calibration" else 0.0
    of_outcomes = name != "probability"

    def rescale(value: float) -> float:
        return lowest + (1.0 - lowest) * value

    def values(batch: LiveBatch) -> Values | None:
        if of_outcomes and batch.correct is None:
            return None
        every = np.ones(batch.confidence.shape, dtype=bool)
        is_there = batch.known if of_outcomes and batch.known is not None else every
        mean = LABEL_MEANS[name](
            batch.confidence, ~every if batch.correct is None else batch.correct
        )
        return lowest + (1.0 - lowest) * mean[:, None], np.asarray(is_there.all(axis=1))[:, None]

    count = max(1.0, float(sums.count[0]))
    mean = float(sums.confidence[0]) / count
    spread = (1.0 - lowest) * np.sqrt(max(0.0, float(sums.squares[0]) / count - mean**2))
    low, high = (rescale(end) for end in sums.confidence_bounds(confidence_level=1 - error_rate))
    outcome, score, _ = _TERMS["labels"]
    shown = {"calibration": f"{outcome} minus {score}", "prevalence": outcome}
    statistic = shown.get(name, f"mean {score}")
    ends = (np.array([each]) for each in (low, high, lowest, 1.0))
    test = MeanDrift(*ends, false_alarm=error_rate)
    missing = "no labels" if of_outcomes else "nothing"
    return Watch(
        name, (statistic,), np.array([rescale(mean)]), np.array([spread]), test, missing, values
    )


def _join_watches(
    whole: Watch, labels: Mapping[int, Watch], names: Sequence[str], error_rate: float
) -> Watch:
    """Return one watch that combines the mean over labels with the watches of single labels, by label index."""
    watches = [whole, *labels.values()]
    titles = (ALL_LABELS, *(names[place] for place in labels))
    tests = [each.test for each in watches]
    sizes = [len(test.low) for test in tests]
    low, high, least, most = (
        np.concatenate([getattr(test, end) for test in tests])
        for end in ("low", "high", "least", "most")
    )
    parts = np.repeat(np.arange(len(tests)), sizes)
    of_outcomes = whole.missing == "no labels"

    def values(batch: LiveBatch) -> Values | None:
        first = whole.values(batch)
        if first is None:
            return None
        parts = [first]
        for place, each in labels.items():
            value, has = each.values(batch.select_label(place)) or first
            if of_outcomes and batch.known is not None:
                has = has & batch.known[:, [place]]
            parts.append((value, has))
        statistics, has = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        return statistics, has

    return Watch(
        whole.name,
        tuple(
            f"{statistic} of {title}"
            for title, each in zip(titles, watches, strict=True)
            for statistic in each.statistics
        ),
        np.concatenate([each.card for each in watches]),
        np.concatenate([each.spread for each in watches]),
        MeanDrift(low, high, least, most, false_alarm=error_rate, parts=parts),
        whole.missing,
        values,
        titles,
    )


def _share_watch(
    name: str,
    statistics: tuple[str, ...],
    shares: list[float],
    ends: Sequence[tuple[float, float]],
    error_rate: float,
    missing: str,
    values: Callable[[LiveBatch], Values | None],
) -> Watch:
    """Return a watch of means of values in [0, 1], with the given shares on the card and interval ends."""
    low, high = (np.array(each) for each in zip(*ends, strict=True))
    # Largest standard deviation in the interval, so that a card without errors does not make every error significant.
    widest = np.clip(0.5, low, high)
    spread = np.sqrt(widest * (1 - widest))
    test = MeanDrift(low, high, np.zeros_like(low), np.ones_like(low), false_alarm=error_rate)
    return Watch(name, statistics, np.array(shares), spread, test, missing, values)
