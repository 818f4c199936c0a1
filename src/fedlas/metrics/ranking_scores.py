"""AUROC and average precision: how well the model ranks events above non-events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas._core import ops
from fedlas._core.check import InputError
from fedlas._core.types import FloatArray
from fedlas.metrics.metric import METRICS
from fedlas.metrics.sums import normalized_weights
from fedlas.predictions.any_predictions import require_predictions
from fedlas.predictions.event import event_index

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

Score = Callable[[FloatArray, NDArray[np.bool_], FloatArray], float]
"""From scores, outcomes and weights ``(N,)`` to a number."""
_LOG_SURE = math.log1p(-(2.0**-10))
"""Logarithm of the probability above which the probabilities of the other classes are added up."""


def auroc_influence(predictions: Predictions) -> FloatArray | None:
    """Return the influence of each sample on AUROC ``(N,)``, or None for other than two classes."""
    if predictions.num_classes != 2:
        return None
    shares = normalized_weights(predictions)
    weights = np.ones(predictions.num_samples) if shares is None else shares
    number = event_index(predictions)
    happened = predictions.target == number
    return auroc_and_influence(make_class_scorer(predictions)(number), happened, weights)[1]


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
    influence=auroc_influence,
    paper="Hanley and McNeil 1982",
)
def auroc(predictions: Predictions) -> float:
    """Area under the ROC curve: probability that an event scores above a non-event, ties counting half.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. With two classes one is the event, class 1 unless
            ``predictions.event`` or their names say another; with more it is
            the mean over each class that occurs against the rest. Samples rank by log-odds in float64, so that
            probabilities below 1e-38 and near 1 have ranks too.

    Returns:
        In ``[0, 1]``; 0.5 is chance. Also called the C statistic.

    Raises:
        InputError: If all samples have one label.

    Example:
        >>> from fedlas import Predictions
        >>> auroc(Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]], [1, 1, 0, 0]))
        0.875

    Source:
        Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143 (1982).
    """
    return _average_over_classes(predictions, lambda *each: float(auroc_and_influence(*each)[0]))


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
            the mean over each class that occurs against the rest. Samples rank by log-odds in float64.

    Returns:
        In ``[0, 1]``; the share of events by chance. It is the area under precision over recall as steps.

    Raises:
        InputError: If all samples have one label.

    Example:
        >>> from fedlas import Predictions
        >>> round(average_precision(Predictions([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]], [1, 0, 1])), 4)
        0.8333

    Source:
        Davis and Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006.
    """
    return _average_over_classes(predictions, compute_average_precision)


def _average_over_classes(predictions: Predictions, score: Score) -> float:
    """Return the mean of ``value(scores, happened, weights)`` over the classes; with two classes, that of the event."""
    require_predictions(predictions)
    target = predictions.target
    shares = normalized_weights(predictions)
    weights = np.ones(len(target)) if shares is None else shares
    occurring = np.unique(target[weights > 0])
    if len(occurring) < 2:
        raise InputError(
            "at least two classes must occur as labels",
            f"only class {occurring[0]}",
            "Pass a test set in which several classes occur.",
        )
    classes = [event_index(predictions)] if predictions.num_classes == 2 else occurring.tolist()
    scores = make_class_scorer(predictions)
    return float(np.mean([score(scores(k), target == k, weights) for k in classes]))


def make_class_scorer(predictions: Predictions) -> Callable[[int], FloatArray]:
    """Return a function from a class index to the log-odds of the class against the rest, float64 ``(N,)``.

    Ranks are those of the exact log-odds: nothing is floored, so that they are infinite where a probability of exactly
    0 was passed.
    """
    logs = predictions.scores.astype(np.float64)
    if predictions.are_probs:
        with np.errstate(divide="ignore"):  # of a probability of exactly 0
            np.log(logs, out=logs)
    if predictions.num_classes == 2:
        return lambda k: logs[:, k] - logs[:, 1 - k]
    if not predictions.are_probs:
        ops.log_softmax(logs, out=logs)

    def log_odds(k: int) -> FloatArray:
        log_p = logs[:, k]
        # 1 - p cancels near 1, where the others are added up. Elsewhere their rounding would part equal probabilities.
        sure = np.flatnonzero(log_p > _LOG_SURE)
        with np.errstate(divide="ignore"):
            rest = np.log1p(-np.minimum(np.exp(log_p), 1.0))
            others = np.delete(logs[sure], k, axis=1)
            rest[sure] = (
                np.log(ops.row_sum(np.exp(others)))
                if predictions.are_probs
                else ops.logsumexp(others)
            )
        odds: FloatArray = log_p - rest
        return odds

    return log_odds


def auroc_and_influence(
    scores: FloatArray,
    outcome: NDArray[np.bool_],
    weights: FloatArray,
    *,
    order: NDArray[np.int64] | None = None,
) -> tuple[float, FloatArray]:
    """Return AUROC and the influence of each sample ``(N,)``.

    Args:
        scores: ``(N,)``.
        outcome: ``(N,)``, both outcomes among them.
        weights: ``(N,)``.
        order: Samples by ascending score ``(N,)``, if they have been sorted.
    """
    # For an event that is the share of the others that score below it less the area, over the number of events; for the
    # others accordingly. The sum of squares of the influences is DeLong's variance: each kind has its `n / (n - 1)`.
    # Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves",
    # Biometrics 44 (1988); Sun and Xu 2014 for the computation from ranks.
    order = np.argsort(scores) if order is None else order
    # Of the weight of the other kind: what scores below the run of equal scores, and half of what is in it.
    is_event = outcome[order]
    weight = weights[order]
    last = _run_ends(scores[order])
    size = np.diff(last, prepend=-1)
    events, others = (
        np.cumsum(np.where(kind, weight, 0.0))[last] for kind in (is_event, ~is_event)
    )
    share = np.empty(len(scores))
    for kind, sums in ((is_event, others), (~is_event, events)):
        below = 0.5 * (sums + np.concatenate([[0.0], sums[:-1]])) / sums[-1]
        share[order[kind]] = np.repeat(below, size)[kind]
    above = share[outcome]
    below = 1.0 - share[~outcome]
    area = float(np.average(above, weights=weights[outcome]))
    influence = np.zeros(len(scores))
    for rows, values, total in (
        (outcome, above, float(events[-1])),
        (~outcome, below, float(others[-1])),
    ):
        number = int(rows.sum())
        influence[rows] = (
            weights[rows] * (values - area) / total * math.sqrt(number / max(number - 1, 1))
        )
    return area, influence


def compute_average_precision(
    scores: FloatArray,
    outcome: NDArray[np.bool_],
    weights: FloatArray,
    *,
    order: NDArray[np.int64] | None = None,
) -> float:
    """Return the average precision, with one threshold per distinct score."""
    order = (np.argsort(scores, kind="stable") if order is None else order)[::-1]
    if not weights.all():
        order = order[weights[order] > 0]  # the first threshold needs some weight
    last = _run_ends(scores[order])
    hits = np.cumsum((weights * outcome)[order])[last]
    all_rows = np.cumsum(weights[order])[last]
    return float((np.diff(hits, prepend=0.0) * hits / all_rows).sum() / hits[-1])


def _run_ends(ordered: FloatArray) -> NDArray[np.int64]:
    """Return the last index of each run of equal scores, given sorted scores."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def count_concordant_pairs(low_counts: FloatArray, high_counts: FloatArray) -> FloatArray:
    """Return the number of concordant pairs ``(R,)``, ties counting half, from counts of each score ``(R, G)``."""
    return np.asarray((high_counts * (low_counts.cumsum(axis=1) - 0.5 * low_counts)).sum(axis=1))


def auroc_from_counts(negative_counts: FloatArray, positive_counts: FloatArray) -> FloatArray:
    """Return AUROC ``(R,)`` from the counts of negative and positive samples of each score ``(R, G)``.

    Args:
        negative_counts: Samples at each distinct score, ascending, of ``R`` replicates ``(R, G)``.
        positive_counts: The positive ones ``(R, G)``.

    Returns:
        NaN for a replicate that lacks one of the two kinds. Whole counts give the nearest float to the exact value.

    Example:
        >>> auroc_from_counts(np.array([[1.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 1.0]])).tolist()
        [0.875]

    Source:
        Mann and Whitney, "On a test of whether one of two random variables is stochastically larger than the other",
        Annals of Mathematical Statistics 18 (1947).
    """
    with np.errstate(invalid="ignore"):
        return count_concordant_pairs(negative_counts, positive_counts) / (
            negative_counts.sum(axis=1) * positive_counts.sum(axis=1)
        )
