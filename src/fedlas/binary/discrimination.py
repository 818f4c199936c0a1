"""Discrimination of an event: AUROC with DeLong's interval, average precision with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import Argument, InputError, Text, check_count
from fedlas.binary.cells import make_outcome_cells
from fedlas.binary.event_records import register_class_measure
from fedlas.binary.positive import Positive, positive_class
from fedlas.metrics.metric import METRICS
from fedlas.metrics.ranking_scores import auroc_and_influence, compute_average_precision
from fedlas.predictions.event import event_index, quoted_class, quoted_event
from fedlas.stats.cell_sums import CellResampler
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate
from fedlas.stats.intervals import (
    auroc_interval,
    check_confidence_level,
    interval_from_replicates,
    min_replicates,
)

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.predictions import Predictions

_MAX_EVENTS = 1024
"""Distinct scores of events that replicates tell apart."""


@register_class_measure(
    METRICS["auroc"],
    "AUROC",
    180,
    "Probability that an event ranks above a non-event (C statistic).",
    percent=False,
    places=3,
)
def auroc(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """Return AUROC of one class against the rest, with DeLong's interval on the log-odds scale.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The class that is the event, its name or number; None: the event of two.
        confidence_level: Level of the interval, in ``(0, 1)``.

    Returns:
        In ``[0, 1]``; 0.5 is chance. With weights or clusters the variance is that of weighted sums over clusters.

    Raises:
        InputError: If only one outcome occurs, or as all functions here, for predictions of other than two classes
            without ``event``.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]], [1, 1, 0, 0])
        >>> auroc(p).value
        0.875

    Source:
        DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); Obuchowski, "Nonparametric analysis of clustered ROC
        curve data", Biometrics 53 (1997), for clusters.
    """
    data = positive_class(predictions, event, both_outcomes=True)
    return auroc_estimate(data, check_confidence_level(confidence_level))


def auroc_estimate(data: Positive, confidence_level: float) -> Estimate:
    """Return AUROC with its interval."""
    return auroc_with_influence(data, confidence_level, data.order)[0]


def auroc_with_influence(
    data: Positive, confidence_level: float, order: IntArray | None = None
) -> tuple[Estimate, FloatArray]:
    """Return AUROC with its interval, and each sample's influence ``(N,)``; ``order`` sorts by score if given."""
    area, influence = auroc_and_influence(data.ranked, data.outcome > 0, data.counts, order=order)
    if data.clusters is None:
        error = math.sqrt(float(influence @ influence))
    else:
        error = data.error_of_mean(influence * data.num_samples / data.counts)
    ends = auroc_interval(
        area,
        error,
        influence,
        data.outcome.astype(np.int64),
        clusters=data.clusters,
        confidence_level=confidence_level,
    )
    return Estimate(area, *ends, confidence_level=confidence_level), influence


@register_class_measure(
    METRICS["average_precision"],
    "average precision",
    190,
    "Area under the precision-recall curve; the prevalence for random scores.",
    percent=False,
    places=3,
)
def average_precision(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Return the average precision of one class against the rest, with a bootstrap interval.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The class that is the event, its name or number; None: the event of two.
        confidence_level: Level of the interval, in ``(0, 1)``.
        replicates: Replicates of the bootstrap, at least 39 for level 0.95; 0 computes no interval.
        seed: The same seed draws the same samples.

    Returns:
        In ``[0, 1]``; by chance the share of events.

    Raises:
        InputError: As :func:`auroc`, or for too few replicates.

    Note:
        Replicates tell at most 1,024 scores of events apart; their values are moved by what that changes.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]], [1, 0, 1])
        >>> round(average_precision(p, replicates=0).value, 4)
        0.8333
    """
    check_confidence_level(confidence_level)
    check_count("replicates", replicates, low=0)
    check_count("seed", seed, low=0)
    data = positive_class(predictions, event, both_outcomes=True)
    return average_precision_estimate(data, confidence_level, replicates, seed)


def average_precision_estimate(
    data: Positive, confidence_level: float, replicates: int, seed: int
) -> Estimate:
    """Return the average precision with its interval."""
    value = compute_average_precision(data.ranked, data.outcome > 0, data.counts, order=data.order)
    if replicates < min_replicates(confidence_level):
        return Estimate(value, math.nan, math.nan, confidence_level=confidence_level)
    cells = make_outcome_cells(data, _cells_between_events(data))
    counts, positives = CellResampler(cells, replicates, seed).draw_bootstrap()
    moved = value - float(_average_precision_of_cells(cells.count[None], cells.positives[None])[0])
    replicate_values = _average_precision_of_cells(counts, positives)
    ends = interval_from_replicates(
        value,
        replicate_values + moved,
        confidence_level=confidence_level,
        method="percentile",
        degrees=cells.degrees,
    )
    low = max(ends.low, 0.0)
    high = min(ends.high, 1.0)
    return Estimate(value, low, high, replicates=replicates, confidence_level=confidence_level)


def _cells_between_events(data: Positive) -> IntArray:
    """Return cell indices ``(N,)`` of score ranges that start at the scores of events."""
    # Precision changes at the scores of events alone, so that nothing is lost if there are few of them.
    ordered = data.ranked[data.order]
    scores = ordered[data.outcome[data.order] > 0]
    edges = scores[np.append(True, scores[1:] != scores[:-1])]
    if len(edges) > _MAX_EVENTS:
        edges = edges[np.linspace(0, len(edges) - 1, _MAX_EVENTS).astype(np.int64)]
    first = np.searchsorted(ordered, edges)
    starts = np.unique(np.append(0, first[first < len(ordered)]))
    number = np.empty(len(ordered), dtype=np.int64)
    number[data.order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(ordered)))
    return number


def _average_precision_of_cells(counts: FloatArray, positives: FloatArray) -> FloatArray:
    """Return average precision ``(R,)`` from sample and event counts of cells by ascending score ``(R, M)``."""
    hits = positives[:, ::-1].cumsum(axis=1)
    rows = counts[:, ::-1].cumsum(axis=1)
    share = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    events = np.maximum(hits[:, -1:], 1e-300)
    return np.asarray((positives[:, ::-1] * share / events).sum(axis=1))


def reversed_auroc(predictions: Predictions) -> Estimate | None:
    """Return AUROC if it is significantly below 0.5, so that the scores rank the other class, else None.

    Args:
        predictions: Logits ``(N, 2)`` and target ``(N,)``.

    Returns:
        AUROC of the event with its 99 % interval, which lies below 0.5; None too for fewer than 20 rows or one outcome.

    Example:
        >>> from fedlas import Predictions
        >>> reversed_auroc(Predictions([[0.0, 1.0], [1.0, 0.0]] * 15, [1, 0] * 15)) is None
        True
    """
    data = positive_class(predictions, None)
    if len(data.outcome) < _FEWEST_ROWS or data.outcome.min() == data.outcome.max():
        return None
    area = auroc_estimate(data, 0.99)
    return area if area.high < 0.5 else None


def check_score_direction(
    predictions: Predictions, columns: str, classes: Sequence[str], *, fix: str = ""
) -> None:
    """Raise InputError if the scores rank the other one of two classes significantly higher.

    Args:
        predictions: Logits ``(N, 2)`` and target ``(N,)``.
        columns: Columns of the scores, for the message.
        classes: Names of the classes that the labels are; empty where these are 0 and 1.
        fix: What to do, where ``{other}`` is the name of the other class; empty: to name the classes in the other
            order, or 0 as the event.

    Raises:
        InputError: If the 99 % interval of AUROC lies below 0.5.

    Example:
        >>> from fedlas import Predictions
        >>> check_score_direction(Predictions([[0.0, 1.0], [1.0, 0.0]], [1, 0]), "p", ())
    """
    area = reversed_auroc(predictions)
    if area is None:
        return
    other = quoted_class(predictions, 1 - event_index(predictions))
    remedy = Argument("classes", ",".join(classes[::-1])) if classes else Argument("event", "0")
    advice: Text = (
        f"The column looks like the probability of {other}; ",
        remedy,
        " if that is meant.",
    )
    raise InputError(
        f"scores must rank {quoted_event(predictions)} above the rest",
        f"AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}] of {columns}",
        fix.format(other=other) if fix else advice,
    )


_FEWEST_ROWS = 20
"""With fewer rows the interval of AUROC is none."""
