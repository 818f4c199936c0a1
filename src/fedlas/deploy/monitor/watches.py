"""The four watches of a stream, each with a test of its own.

With a card of the predicted class: calibration, accuracy, confidences and classes. With a card of an event:
calibration, how often the event occurs, its probabilities, and how many samples are acted on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedlas.deploy.card import Card
from fedlas.stats.drift import MeanDrift
from fedlas.stats.gap_sums import cells_of, ends_of
from fedlas.stats.proportion import clopper_pearson
from fedlas.stats.rows import Floats

Values = tuple[Floats, NDArray[np.bool_]]
WATCHES = {
    "top label": ("calibration", "accuracy", "confidence", "classes"),
    "event": ("calibration", "events", "probability", "actions"),
}
"""By the subject of the card. Each may spend an equal share of the false alarms, with something to watch or without."""
_WORDS = {
    "top label": ("accuracy", "confidence", "wrong"),
    "event": ("event rate", "probability", "false alarms"),
}
"""How sentences name the mean outcome, the score, and the mistakes above a threshold."""
_POINTS = 9
"""Confidences at which the share of samples below is watched."""
_SATURATED = 2e-6
"""No confidence this near 1 is such a point: steps of float32 are 6e-8 there, and other rounding moves shares."""
GROUPS = 32
"""Most groups of classes. Each takes its part of the false alarms, so a thousand classes are not watched singly."""


@dataclass(frozen=True)
class LiveBatch:
    """Some live samples ``(n,)``, in the order of time."""

    # Probability of the predicted class; with a card of an event that of the event.
    confidence: Floats
    # Whether that is the label, or the event occurred; None without labels.
    correct: NDArray[np.bool_] | None
    predicted: NDArray[np.int64] | None

    def __getitem__(self, rows: slice) -> LiveBatch:
        correct = None if self.correct is None else self.correct[rows]
        predicted = None if self.predicted is None else self.predicted[rows]
        return LiveBatch(self.confidence[rows], correct, predicted)

    def __len__(self) -> int:
        return len(self.confidence)


@dataclass(frozen=True)
class Watch:
    """One of :data:`WATCHES`: averaged statistics ``(S,)``, the watch's own first, then finer ones."""

    name: str
    statistics: tuple[str, ...]
    card: Floats  # their means there
    spread: Floats  # standard deviations of one sample there
    test: MeanDrift  # its intervals come from the card
    missing: str  # why a batch cannot be watched, such as "no labels"
    # Statistics of a batch and whether each sample has them; None if it lacks what they need.
    values: Callable[[LiveBatch], Values | None]


def watches_of(card: Card, *, false_alarm: float) -> tuple[Watch, ...]:
    """Return the watches over predictions of the card's model, which share the false alarms equally."""
    # One half of each watch's share is for the card: its intervals miss a mean with that probability. The other half is
    # for the stream.
    half = false_alarm / len(WATCHES[card.subject]) / 2
    watches = [_calibration(card, half), _accuracy(card, half), _confidence(card, half)]
    if card.subject == "event":
        watches += [_actions(card, half)] if card.thresholds else []
    elif card.class_counts is not None:
        watches.append(_classes(card, card.class_counts, half))
    return tuple(watches)


def _calibration(card: Card, half: float) -> Watch:
    """Return the watch of correctness minus confidence, over all samples and in the card's cells."""
    gaps = card.gaps
    lowest, highest = ends_of(gaps.edges)
    low, high = gaps.bounds(confidence_level=1 - half)

    def values(batch: LiveBatch) -> Values | None:
        if batch.correct is None:
            return None
        cell = cells_of(gaps.edges, batch.confidence)
        has = np.ones((len(batch), len(low)), dtype=bool)
        has[:, 1:] = cell[:, None] == np.arange(len(low) - 1)
        return np.repeat((batch.correct - batch.confidence)[:, None], len(low), axis=1), has

    outcome, score, _ = _WORDS[card.subject]
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
    test = MeanDrift(low, high, -highest, 1 - lowest, false_alarm=half)
    means = np.where(gaps.count > 0, (gaps.right - gaps.confidence) / count, 0.0)
    return Watch(
        "calibration", names, means, np.sqrt(np.maximum(variance, 0)), test, "no labels", values
    )


def _accuracy(card: Card, half: float) -> Watch:
    """Return the watch of the mean outcome, and of mistakes among the samples above the card's thresholds."""
    count = int(card.gaps.count[0])
    right = round(card.gaps.right[0])
    rows = [row for row in card.thresholds if row.accepted]
    cuts = np.array([row.threshold for row in rows])
    miss = half / (1 + len(rows))
    shares = [right / count, *(row.wrong / row.accepted for row in rows)]
    ends = [clopper_pearson(right, count, confidence_level=1 - miss)]
    for row in rows:
        if row.risk is None:
            ends.append(clopper_pearson(row.wrong, row.accepted, confidence_level=1 - miss))
            continue
        # The card allows its target risk: only a risk above both that and the risk on the test part is a change.
        shown = clopper_pearson(row.wrong, row.accepted, confidence_level=1 - miss, sides=1)[1]
        ends.append((0.0, max(row.risk, shown)))

    def values(batch: LiveBatch) -> Values | None:
        if batch.correct is None:
            return None
        has = np.ones((len(batch), 1 + len(rows)), dtype=bool)
        has[:, 1:] = batch.confidence[:, None] >= cuts * (1.0 - 1e-12)
        wrong = np.repeat(~batch.correct[:, None], len(rows), axis=1)
        return np.concatenate([batch.correct[:, None], wrong], axis=1).astype(np.float64), has

    outcome, score, mistakes = _WORDS[card.subject]
    names = (outcome, *(f"{mistakes} at {score} {row.threshold:.4g} or more" for row in rows))
    return _of_shares(WATCHES[card.subject][1], names, shares, ends, half, "no labels", values)


def _confidence(card: Card, half: float) -> Watch:
    """Return the watch of the mean confidence, and of the shares of samples below some confidences."""
    count = int(card.gaps.count[0])
    sums = card.gaps
    # By number and not by what lies below: the points must not depend on the samples that are counted.
    places = np.unique(np.linspace(0, len(card.bin_counts), _POINTS + 2).round().astype(int)[1:-1])
    places = places[
        (places > 0) & (places < len(card.bin_counts)) & (1 - card.bin_edges[places] > _SATURATED)
    ]
    points = card.bin_edges[places]
    below = card.bin_counts.cumsum()[places - 1]
    miss = half / (1 + len(points))
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

    score = _WORDS[card.subject][1]
    names = (f"mean {score}", *(f"samples at {score} below {point:.6g}" for point in points))
    shares = [mean, *(below / count)]
    watch = _of_shares(WATCHES[card.subject][2], names, shares, ends, half, "nothing", values)
    watch.spread[0] = np.sqrt(max(0.0, sums.squares[0] / count - mean**2))
    return watch


def _classes(card: Card, counts: Floats, half: float) -> Watch:
    """Return the watch of the shares of the predicted classes, or of groups of classes that follow each other."""
    groups = np.array_split(np.arange(len(counts)), min(GROUPS, len(counts)))
    group_of = np.concatenate(
        [np.full(len(members), number) for number, members in enumerate(groups)]
    )
    samples = int(counts.sum())
    grouped = [int(counts[members].sum()) for members in groups]
    ends = [clopper_pearson(n, samples, confidence_level=1 - half / len(groups)) for n in grouped]

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
    return _of_shares("classes", names, shares, ends, half, "no classes", values)


def _actions(card: Card, half: float) -> Watch:
    """Return the watch of the shares of samples on which one acts, at the card's thresholds."""
    count = int(card.gaps.count[0])
    cuts = np.array([row.threshold for row in card.thresholds])
    acted = [row.accepted for row in card.thresholds]
    ends = [clopper_pearson(n, count, confidence_level=1 - half / len(cuts)) for n in acted]

    def values(batch: LiveBatch) -> Values:
        above = batch.confidence[:, None] >= cuts * (1.0 - 1e-12)
        return above.astype(np.float64), np.ones_like(above)

    names = tuple(f"samples at probability {cut:.4g} or more" for cut in cuts)
    shares = [n / count for n in acted]
    return _of_shares("actions", names, shares, ends, half, "nothing", values)


def _of_shares(
    name: str,
    statistics: tuple[str, ...],
    shares: list[float],
    ends: Sequence[tuple[float, float]],
    half: float,
    missing: str,
    values: Callable[[LiveBatch], Values | None],
) -> Watch:
    """Return a watch over means of values from 0 to 1, each in the interval with these ends."""
    low, high = (np.array(each) for each in zip(*ends, strict=True))
    # The largest spread of a share in its interval: a card without a mistake does not make every mistake remarkable.
    widest = np.clip(0.5, low, high)
    spread = np.sqrt(widest * (1 - widest))
    test = MeanDrift(low, high, np.zeros_like(low), np.ones_like(low), false_alarm=half)
    return Watch(name, statistics, np.array(shares), spread, test, missing, values)
