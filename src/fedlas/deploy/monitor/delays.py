"""How soon a watch would see a change that begins now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fedlas.deploy.card import Card
from fedlas.deploy.monitor.watches import Batch, Watch
from fedlas.stats.gap_sums import cells_of
from fedlas.stats.rows import Floats

MOVES = (0.05, 0.2)
"""By how much the mean that a change is about moves: little, and much."""
CHANGES = {
    "calibration": "accuracy falls and confidence stays",
    "accuracy": "accuracy falls",
    "confidence": "mean confidence falls, as some confidences halve",
    "classes": "predictions go to another class",
}


def samples_until(card: Card, watches: Mapping[str, Watch]) -> dict[str, list[float]]:
    """About how many samples each watch takes to see its change in :data:`CHANGES`, for each of :data:`MOVES`.

    The change begins now. The numbers are computed from the distribution on the card and the bets as they stand.
    Infinity where the card has too few samples to say that it would be a change.
    """
    made: Mapping[str, Callable[[Card, Watch, float], float]] = {
        "calibration": _less_right,
        "accuracy": _less_right,
        "confidence": _less_sure,
        "classes": _other_class,
    }
    return {name: [made[name](card, watch, move) for move in MOVES] for name, watch in watches.items()}


def _confidences(card: Card) -> tuple[Floats, Floats, Floats]:
    """Middles of the card's bins, the shares of samples there, and the accuracy there."""
    middles = (card.bin_edges[:-1] + card.bin_edges[1:]) / 2
    gaps = np.nan_to_num(card.gaps.gap[1:])[cells_of(card.gaps.edges, middles)]
    return middles, card.bin_counts / card.bin_counts.sum(), np.clip(middles + gaps, 0, 1)


def _until(watch: Watch, batch: Batch, weights: Floats) -> float:
    made = watch.values(batch)
    return np.inf if made is None else watch.test.samples_until(*made, weights)


def _less_right(card: Card, watch: Watch, move: float) -> float:
    middles, shares, right = _confidences(card)
    right = right * max(0.0, 1 - move / float(shares @ right))
    batch = Batch(np.tile(middles, 2), np.repeat([True, False], len(middles)), None)
    return _until(watch, batch, np.concatenate([shares * right, shares * (1 - right)]))


def _less_sure(card: Card, watch: Watch, move: float) -> float:
    middles, shares, _ = _confidences(card)
    # One in so many has half its confidence, so that the mean falls by the points.
    moved = min(1.0, 2 * move / float(shares @ middles))
    batch = Batch(np.concatenate([middles, middles / 2]), None, None)
    return _until(watch, batch, np.concatenate([(1 - moved) * shares, moved * shares]))


def _other_class(card: Card, watch: Watch, move: float) -> float:
    if card.class_counts is None:
        return np.inf
    classes = np.arange(len(card.class_counts))
    shares = card.class_counts / card.class_counts.sum()
    batch = Batch(np.ones(len(classes)), None, classes)
    # The class is the one with the most: its share varies most, so its change is seen last.
    return _until(watch, batch, (1 - move) * shares + move * (classes == shares.argmax()))
