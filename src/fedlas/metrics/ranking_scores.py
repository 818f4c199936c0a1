"""AUROC and average precision: how well the model ranks events above non-events."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.metrics.metric import METRICS
from fedlas.metrics.sums import averaging_one
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import check_predictions
from fedlas.predictions.event import event_number

Floats = NDArray[np.float64]
Score = Callable[[Floats, NDArray[np.bool_], Floats], float]
"""From scores, outcomes and weights ``(N,)`` to a number."""


def area_influence(predictions: Predictions) -> Floats | None:
    """Return the influence of each sample on AUROC ``(N,)``, or None for other than two classes."""
    if predictions.num_classes != 2:
        return None
    shares = averaging_one(predictions)
    weights = np.ones(predictions.num_samples) if shares is None else shares.numpy()
    number = event_number(predictions)
    happened = predictions.target.cpu().numpy() == number
    return area_and_influence(class_scores(predictions)(number), happened, weights)[1]


@METRICS.register(
    "auroc",
    order=230,
    title="AUROC",
    higher_is_better=True,
    percent=False,
    between=(0, 1),
    default=False,
    weighted=True,
    several_labels=True,
    influence=area_influence,
    paper="Hanley and McNeil 1982",
)
def auroc(predictions: Predictions) -> float:
    """Area under the ROC curve: probability that an event scores above a non-event, ties counting half.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. With two classes one is the event, class 1 unless
            ``predictions.event`` or their names say another; with more it is
            the mean over each class that occurs against the rest.

    Returns:
        In ``[0, 1]``; 0.5 is chance. Also called the C statistic.

    Raises:
        InputError: If all samples have one label.

    Example:
        >>> auroc(Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]], [1, 1, 0, 0]))
        0.875

    Source:
        Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143 (1982).
    """
    return _mean_over_classes(predictions, lambda *each: float(area_and_influence(*each)[0]))


@METRICS.register(
    "average_precision",
    order=240,
    title="Average precision",
    higher_is_better=True,
    percent=False,
    between=(0, 1),
    default=False,
    weighted=True,
    several_labels=True,
    paper="Davis and Goadrich 2006",
)
def average_precision(predictions: Predictions) -> float:
    """Average precision: mean over events of the precision among samples that score at least as high.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. With two classes one is the event, class 1 unless
            ``predictions.event`` or their names say another; with more it is
            the mean over each class that occurs against the rest.

    Returns:
        In ``[0, 1]``; the share of events by chance. It is the area under precision over recall as steps.

    Raises:
        InputError: If all samples have one label.

    Example:
        >>> round(average_precision(Predictions([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]], [1, 0, 1])), 4)
        0.8333

    Source:
        Davis and Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006.
    """
    return _mean_over_classes(predictions, mean_precision)


def _mean_over_classes(predictions: Predictions, value: Score) -> float:
    """Return the mean of ``value(scores, happened, weights)`` over the classes; with two classes, that of the event."""
    check_predictions(predictions)
    target = predictions.target.cpu().numpy()
    shares = averaging_one(predictions)
    weights = np.ones(len(target)) if shares is None else shares.numpy()
    occurring = np.unique(target[weights > 0])
    if len(occurring) < 2:
        raise InputError(
            "at least two classes must occur as labels",
            f"only class {occurring[0]}",
            "Pass a test set in which several classes occur.",
        )
    classes = [event_number(predictions)] if predictions.num_classes == 2 else occurring.tolist()
    scores = class_scores(predictions)
    return float(np.mean([value(scores(k), target == k, weights) for k in classes]))


def class_scores(predictions: Predictions) -> Callable[[int], Floats]:
    """Return a function that maps a class index to scores that rank as its probabilities, in float64."""
    if predictions.num_classes == 2:
        # Differences of logits keep the ranks that probabilities near 0 and 1 would lose.
        logits = predictions.scores.detach().cpu().double().numpy()
        return lambda k: logits[:, k] - logits[:, 1 - k]
    probs = predictions.probs.detach().cpu().double().numpy()
    return lambda k: probs[:, k]


def area_and_influence(
    scores: Floats,
    happened: NDArray[np.bool_],
    weights: Floats,
    *,
    order: NDArray[np.int64] | None = None,
) -> tuple[float, Floats]:
    """Return AUROC and the influence of each sample ``(N,)``.

    Args:
        scores: ``(N,)``.
        happened: ``(N,)``, both outcomes among them.
        weights: ``(N,)``.
        order: Samples by ascending score ``(N,)``, if they have been sorted.
    """
    # For an event that is the share of the others that score below it less the area, over the number of events; for the
    # others accordingly. The sum of squares of the influences is DeLong's variance: each kind has its `n / (n - 1)`.
    # Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves",
    # Biometrics 44 (1988); Sun and Xu 2014 for the computation from ranks.
    order = np.argsort(scores) if order is None else order
    # Of the weight of the other kind: what scores below the run of equal scores, and half of what is in it.
    is_event = happened[order]
    weight = weights[order]
    last = _ends_of_runs(scores[order])
    size = np.diff(last, prepend=-1)
    events, others = (
        np.cumsum(np.where(kind, weight, 0.0))[last] for kind in (is_event, ~is_event)
    )
    share = np.empty(len(scores))
    for kind, sums in ((is_event, others), (~is_event, events)):
        below = 0.5 * (sums + np.concatenate([[0.0], sums[:-1]])) / sums[-1]
        share[order[kind]] = np.repeat(below, size)[kind]
    above = share[happened]
    below = 1.0 - share[~happened]
    area = float(np.average(above, weights=weights[happened]))
    influence = np.zeros(len(scores))
    for rows, values, total in (
        (happened, above, float(events[-1])),
        (~happened, below, float(others[-1])),
    ):
        number = int(rows.sum())
        influence[rows] = (
            weights[rows] * (values - area) / total * math.sqrt(number / max(number - 1, 1))
        )
    return area, influence


def mean_precision(
    scores: Floats,
    happened: NDArray[np.bool_],
    weights: Floats,
    *,
    order: NDArray[np.int64] | None = None,
) -> float:
    """Return the average precision, with one threshold per distinct score."""
    order = (np.argsort(scores, kind="stable") if order is None else order)[::-1]
    if not weights.all():
        order = order[weights[order] > 0]  # the first threshold needs some weight
    last = _ends_of_runs(scores[order])
    hits = np.cumsum((weights * happened)[order])[last]
    all_rows = np.cumsum(weights[order])[last]
    return float((np.diff(hits, prepend=0.0) * hits / all_rows).sum() / hits[-1])


def _ends_of_runs(ordered: Floats) -> NDArray[np.int64]:
    """Return the last index of each run of equal scores, given sorted scores."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def pairs_in_order(low: Floats, high: Floats) -> Floats:
    """Return the number of concordant pairs ``(R,)``, ties counting half, from counts of each score ``(R, G)``."""
    return np.asarray((high * (low.cumsum(axis=1) - 0.5 * low)).sum(axis=1))


def auroc_of_counts(negative: Floats, positive: Floats) -> Floats:
    """Return AUROC ``(R,)`` from the counts of negative and positive samples of each score ``(R, G)``.

    Args:
        negative: Samples at each distinct score, ascending, of ``R`` replicates ``(R, G)``.
        positive: The positive ones ``(R, G)``.

    Returns:
        NaN for a replicate that lacks one of the two kinds. Whole counts give the nearest float to the exact value.

    Example:
        >>> auroc_of_counts(np.array([[1.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 1.0]])).tolist()
        [0.875]

    Source:
        Mann and Whitney, "On a test of whether one of two random variables is stochastically larger than the other",
        Annals of Mathematical Statistics 18 (1947).
    """
    with np.errstate(invalid="ignore"):
        return pairs_in_order(negative, positive) / (negative.sum(axis=1) * positive.sum(axis=1))
