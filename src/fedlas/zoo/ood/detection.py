"""Detection metrics of OOD scores: AUROC, AUPR, FPR95 and OSCR, exact with ties.

Samples are counted at each distinct score, so that the order of ties does not matter: a tied pair counts half for an
area under a curve, and a threshold includes all samples of a tie or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.registry import Registry
from fedlas._core.types import FloatArray
from fedlas.metrics.ranking_scores import auroc_from_counts, count_concordant_pairs
from fedlas.stats import Interval
from fedlas.stats.intervals import check_bootstrap_options, interval_from_replicates
from fedlas.stats.proportion import clopper_pearson
from fedlas.zoo.ood._counts import ScoreCounter, ScoreCounts

__all__ = ["DETECTION", "detection_intervals", "detection_metrics", "fpr_at_tpr", "roc_points"]

Positive = Literal["in", "out"]

DetectionMetric = Callable[[ScoreCounts], FloatArray]

DETECTION: Registry[DetectionMetric] = Registry("detection metric")
"""Functions of :class:`ScoreCounts` to one value per replicate ``(R,)``, a fraction. Metadata: ``title``; ``positive``,
the class to detect, ``"in"`` or ``"out"``, or ``"either"`` where it makes no difference; ``higher_is_better``;
``needs_correct``."""


@DETECTION.register("auroc", title="AUROC", positive="either", higher_is_better=True)
def _auroc(counts: ScoreCounts) -> FloatArray:
    """Return the probability that an OOD sample scores above an in-distribution sample; ties count half."""
    return auroc_from_counts(counts.inside, counts.outside)


@DETECTION.register("aupr-in", title="AUPR-in", positive="in", higher_is_better=True)
def _aupr_in(counts: ScoreCounts) -> FloatArray:
    """Return the average precision with in-distribution as the positive class, lowest scores first."""
    return _average_precision(counts.inside, *counts.low)


@DETECTION.register("aupr-out", title="AUPR-out", positive="out", higher_is_better=True)
def _aupr_out(counts: ScoreCounts) -> FloatArray:
    """Return the average precision with OOD as the positive class, highest scores first."""
    return _average_precision(counts.outside, *reversed(counts.high))


@DETECTION.register("fpr95-in", title="FPR95-in", positive="in", higher_is_better=False)
def _fpr95_in(counts: ScoreCounts) -> FloatArray:
    """Return the share of OOD samples accepted at the threshold that accepts 95 % of in-distribution samples."""
    return _false_positive_rate(counts, "in", 0.95)


@DETECTION.register("fpr95-out", title="FPR95-out", positive="out", higher_is_better=False)
def _fpr95_out(counts: ScoreCounts) -> FloatArray:
    """Return the share of in-distribution samples flagged at the threshold that flags 95 % of OOD samples."""
    return _false_positive_rate(counts, "out", 0.95)


@DETECTION.register("oscr", title="OSCR", positive="in", higher_is_better=True, needs_correct=True)
def _oscr(counts: ScoreCounts) -> FloatArray:
    """Return the area under the curve of correct classification rate over false positive rate."""
    if counts.correct is None:
        raise InputError("id_correct is required for oscr", "None", "Pass id_correct.")
    pairs = counts.inside.sum(axis=1) * counts.outside.sum(axis=1)
    return count_concordant_pairs(counts.correct, counts.outside) / pairs


def detection_metrics(
    id_score: ArrayLike, ood_score: ArrayLike, *, id_correct: ArrayLike | None = None
) -> dict[str, float]:
    """Return all detection metrics of an OOD score.

    Args:
        id_score: Scores of in-distribution samples ``(N,)``, finite, higher = more OOD.
        ood_score: Scores of OOD samples ``(M,)``.
        id_correct: Whether each in-distribution sample is classified correctly ``(N,)``; without it there is no OSCR.

    Returns:
        Fractions by name: ``auroc`` (the same for either positive class), ``aupr-in`` and ``aupr-out`` (average
        precision with that class as the positive one; it depends on ``N / M``), ``fpr95-in`` (share of OOD samples at
        or below the threshold that takes at least 95 % of the in-distribution ones: positive class in-distribution, as
        in most papers), ``fpr95-out`` (the reverse) and ``oscr``.

    Raises:
        InputError: If scores are empty, not one-dimensional or not finite, or ``id_correct`` does not fit.

    Example:
        >>> found = detection_metrics([0.1, 0.2, 0.3], [0.3, 0.9])
        >>> round(found["auroc"], 4), found["fpr95-in"], found["fpr95-out"]
        (0.9167, 0.5, 0.3333333333333333)

    Source:
        Hendrycks and Gimpel 2017 (arXiv 1610.02136) for AUROC and AUPR, Liang et al. 2018 (1706.02690) for FPR95,
        Dhamija et al. 2018 (1811.04110) and Vaze et al. 2022 (2110.06207) for OSCR.
    """
    counter = ScoreCounter(id_score, ood_score, id_correct)
    return {
        name: float(values[0]) for name, values in _compute_metrics(counter.all_samples()).items()
    }


def detection_intervals(
    id_score: ArrayLike,
    ood_score: ArrayLike,
    *,
    id_correct: ArrayLike | None = None,
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return all detection metrics of an OOD score, with percentile intervals of a stratified bootstrap.

    Each replicate draws ``N`` in-distribution and ``M`` OOD samples with replacement, each from their own set. The
    intervals cover the variation of the two test sets for a given model, and not that between trainings.

    Args:
        id_score: As in :func:`detection_metrics`.
        ood_score: As in :func:`detection_metrics`.
        id_correct: As in :func:`detection_metrics`.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: At least 39 for level 0.95; a thousand for stable ends.
        seed: The same seed draws the same samples for every score of the same two sets.

    Raises:
        InputError: As :func:`detection_metrics`, or if an option is out of range.

    Note:
        Where all replicates are equal, as for two perfectly separated sets, the bootstrap interval has no width. The
        interval is then Clopper and Pearson's for as many independent pairs as the smaller set has samples.

    Example:
        >>> found = detection_intervals([0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], replicates=200)["auroc"]
        >>> found.value, found.low <= found.value <= found.high
        (0.875, True)

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; two samples in chapter 8.
    """
    check_bootstrap_options(
        confidence_level=confidence_level, replicates=replicates, seed=seed, method="percentile"
    )
    counter = ScoreCounter(id_score, ood_score, id_correct)
    blocks = [_compute_metrics(counts) for counts in counter.replicates(replicates, seed)]
    return {
        name: _bootstrap_interval(
            float(value[0]),
            np.concatenate([block[name] for block in blocks]),
            confidence_level=confidence_level,
            pairs=counter.pairs,
        )
        for name, value in _compute_metrics(counter.all_samples()).items()
    }


def _bootstrap_interval(
    value: float, replicates: FloatArray, *, confidence_level: float, pairs: int
) -> Interval:
    """Return the percentile interval, or an exact interval over ``pairs`` pairs if all replicates are equal."""
    interval = interval_from_replicates(
        value, replicates, confidence_level=confidence_level, method="percentile"
    )
    if interval.low < interval.high:
        return interval
    # Perfectly separated samples are separated in every replicate. Pairs without a common sample are each in order
    # with probability AUROC, so all of them are with probability AUROC**pairs.
    lower_count = math.floor(value * pairs + 1e-9)
    upper_count = math.ceil(value * pairs - 1e-9)
    low = clopper_pearson(lower_count, pairs, confidence_level=confidence_level)[0]
    high = clopper_pearson(upper_count, pairs, confidence_level=confidence_level)[1]
    return replace(interval, low=low, high=high, method="exact")


def fpr_at_tpr(
    id_score: ArrayLike, ood_score: ArrayLike, *, tpr: float = 0.95, positive: Positive = "in"
) -> float:
    """Return the false positive rate at the first threshold that reaches a true positive rate.

    Args:
        id_score: As in :func:`detection_metrics`.
        ood_score: As in :func:`detection_metrics`.
        tpr: Share of the positive class to detect, in ``(0, 1]``.
        positive: The class to detect.

    Raises:
        InputError: As :func:`detection_metrics`, or if an option is out of range.

    Example:
        >>> fpr_at_tpr([0.1, 0.2, 0.3, 0.4], [0.35, 0.6, 0.7, 0.8], tpr=1.0)
        0.25
    """
    share = check_number("tpr", tpr, low=0.0, high=1.0, low_open=True)
    check_choice("positive", positive, get_args(Positive))
    return float(
        _false_positive_rate(ScoreCounter(id_score, ood_score).all_samples(), positive, share)[0]
    )


def roc_points(
    id_score: ArrayLike, ood_score: ArrayLike, *, most: int = 400
) -> tuple[FloatArray, FloatArray]:
    """Return the ROC curve with OOD as the positive class.

    Args:
        id_score: As in :func:`detection_metrics`.
        ood_score: As in :func:`detection_metrics`.
        most: Approximate number of points to keep, for drawing; at least 2.

    Returns:
        False positive rates and true positive rates ``(P,)``, from (0, 0) to (1, 1).

    Raises:
        InputError: As :func:`detection_metrics`, or if ``most`` is out of range.

    Example:
        >>> false, true = roc_points([0.1, 0.3], [0.2, 0.4])
        >>> false.tolist(), true.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    check_count("most", most, low=2)
    counts = ScoreCounter(id_score, ood_score).all_samples()
    false, true = (
        np.concatenate(([0.0], side[0, ::-1].cumsum())) for side in (counts.inside, counts.outside)
    )
    false = false / false[-1]
    true = true / true[-1]
    if len(false) <= most:
        return false, true
    # Evenly spaced along the curve, so that neither steep nor flat parts are lost.
    along = false + true
    points = np.unique(
        np.concatenate((np.searchsorted(along, np.linspace(0.0, 2.0, most)), [0, len(along) - 1]))
    )
    points = points[points < len(along)]
    return false[points], true[points]


def _compute_metrics(counts: ScoreCounts) -> dict[str, FloatArray]:
    entries = (
        e
        for e in DETECTION.entries()
        if counts.correct is not None or not e.metadata.get("needs_correct")
    )
    return {entry.name: entry.value(counts) for entry in entries}


def _average_precision(positive: FloatArray, true: FloatArray, false: FloatArray) -> FloatArray:
    """Return the mean of the precision at the thresholds that include each positive sample."""
    # a replicate may have no sample on this side of the threshold
    flagged = np.maximum(true + false, 1.0)
    return (positive * true / flagged).sum(axis=1) / positive.sum(axis=1)


def _false_positive_rate(counts: ScoreCounts, positive: Positive, tpr: float) -> FloatArray:
    """Return the false positive rate at the first threshold with the given true positive rate."""
    true, false = (
        counts.low if positive == "in" else (side[:, ::-1] for side in reversed(counts.high))
    )
    # the same for every replicate; less the product's rounding
    enough = math.ceil(tpr * float(true[0, -1]) - 1e-9)
    first = (true >= enough).argmax(axis=1)
    rates: FloatArray = false[np.arange(len(false)), first] / false[:, -1]
    return rates
