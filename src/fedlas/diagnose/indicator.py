"""How closely the feature-norm indicator tracks a sample's confidence, its correctness, and the gap between the two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe
from fedlas.diagnose.association import Associations, associations
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_measurable
from fedlas.stats.intervals import Interval


@dataclass(frozen=True)
class IndicatorReport:
    """Associations of a score ``Z`` with the states of held-out samples.

    Attributes:
        confidence: Score and the model's confidence.
        correctness: Score and correctness of the prediction; it has an AUROC.
        gap: Score and ``confidence - correct``, the signed gap of a sample, whose mean is the confidence gap.
        baseline: Confidence and correctness: what an indicator of correctness has to beat.
    """

    confidence: Associations
    correctness: Associations
    gap: Associations
    baseline: Associations


def indicator_report(
    score: Tensor, predictions: Predictions, *, confidence_level: float = 0.95
) -> IndicatorReport:
    """Return correlations of a score with confidence, correctness and signed gap, with intervals.

    Args:
        score: One number per sample ``(N,)``: NCI's ``Z``, or a norm.
        predictions: Predictions of the same samples.
        confidence_level: Confidence level in ``(0, 1)``.

    Raises:
        InputError: If score is not ``(N,)`` or not finite, or there are fewer than three samples.

    Note:
        A score can follow the gap for a trivial reason. Wrong samples have gaps near +1 and right samples near 0 or
        below, so any score that is low for wrong samples correlates negatively with the gap. :func:`binned_scores`
        shows what the gap adds to correctness.
    """
    _check_rows(score, predictions)
    states = _states(predictions.confidence.double(), predictions.correct)
    return IndicatorReport(
        confidence=associations(score, states["confidence"], confidence_level=confidence_level),
        correctness=associations(score, states["correct"], confidence_level=confidence_level),
        gap=associations(score, states["gap"], confidence_level=confidence_level),
        baseline=associations(
            states["confidence"], states["correct"], confidence_level=confidence_level
        ),
    )


def _states(confidence: Tensor, correct: Tensor) -> dict[str, Tensor]:
    """Return states ``(N,)`` that a score may follow, by their names in the log."""
    return {"confidence": confidence, "correct": correct, "gap": confidence - correct.double()}


def indicator_numbers(score: Tensor, predictions: Predictions) -> dict[str, float]:
    """Return the numbers of :func:`indicator_report` by name, with 95 % intervals, for every epoch's log.

    Args:
        score: ``(N,)``. Samples whose score is not finite, such as an overflowing norm, are left out.
        predictions: Predictions of the same samples.

    Returns:
        ``pearson_confidence``, ``spearman_confidence``, ``pearson_correct``, ``spearman_correct``, ``auroc_correct``,
        ``pearson_gap`` and ``spearman_gap``, and for each the ends of its interval, ``..._low`` and ``..._high``. A
        number is NaN where :func:`associations` has none, and for fewer than three samples.

    Raises:
        InputError: If score is not ``(N,)``.
    """
    _check_rows(score, predictions)
    score = score.to(predictions.logits.device)
    finite = score.isfinite()
    enough = int(finite.sum()) >= 3  # two samples always correlate perfectly
    numbers: dict[str, float] = {}
    for name, value_of in _states(predictions.confidence.double(), predictions.correct).items():
        against = associations(score[finite], value_of[finite]) if enough else None
        for measure in (
            ("pearson", "spearman", "auroc") if name == "correct" else ("pearson", "spearman")
        ):
            interval: Interval | None = None if against is None else getattr(against, measure)
            ends = (
                (math.nan,) * 3
                if interval is None
                else (interval.value, interval.low, interval.high)
            )
            value, low, high = ends
            numbers |= {
                f"{measure}_{name}": value,
                f"{measure}_{name}_low": low,
                f"{measure}_{name}_high": high,
            }
    return numbers


@dataclass(frozen=True)
class ScoreBins:
    """Samples in groups of ascending score.

    Attributes:
        score: Mean score of each group ``(B,)``.
        confidence: Mean confidence of each group.
        accuracy: Share of right predictions in each group.
        standard_error: Standard error of ``confidence - accuracy``, the signed gap, of each group.
        count: Samples in each group.
    """

    score: list[float]
    confidence: list[float]
    accuracy: list[float]
    standard_error: list[float]
    count: list[int]


def binned_scores(score: Tensor, predictions: Predictions, *, num_bins: int = 10) -> ScoreBins:
    """Return confidence and accuracy in ``num_bins`` groups of equally many samples, by ascending score.

    If the score distinguishes over- and under-confident samples, confidence exceeds accuracy at one end and falls short
    of it at the other.

    Raises:
        InputError: If score is not ``(N,)``, or there are more bins than samples.
    """
    _check_rows(score, predictions)
    check_count("num_bins", num_bins)
    if num_bins > predictions.num_samples:
        raise InputError(
            f"num_bins must be at most {predictions.num_samples}", num_bins, "Ask for fewer."
        )
    order = score.argsort(stable=True)
    gap = predictions.confidence.double() - predictions.correct.double()
    groups = torch.tensor_split(order, num_bins)
    return ScoreBins(
        score=[float(score[group].double().mean()) for group in groups],
        confidence=[float(predictions.confidence[group].double().mean()) for group in groups],
        accuracy=[float(predictions.correct[group].double().mean()) for group in groups],
        standard_error=[
            float(gap[group].std(correction=0)) / max(len(group), 1) ** 0.5 for group in groups
        ],
        count=[len(group) for group in groups],
    )


@dataclass(frozen=True)
class FailureCases:
    """Samples where the indicator and the state that it should indicate disagree most.

    Attributes:
        high: Indices of under-confident samples with a high score: right, at a low confidence.
        low: Indices of over-confident samples with a low score: wrong, at a high confidence.
    """

    high: list[int]
    low: list[int]


def failure_cases(score: Tensor, predictions: Predictions, *, count: int = 12) -> FailureCases:
    """Return the samples with the most negative ``Z * (confidence - correct)``, for either sign of the score.

    As in the paper, a large norm indicates an over-confident sample and a small one an under-confident sample. Scores
    are measured from their median.

    Args:
        score: ``(N,)``.
        predictions: Predictions of the same samples.
        count: Largest number of samples of each kind.

    Raises:
        InputError: If score is not ``(N,)``.
    """
    _check_rows(score, predictions)
    check_count("count", count)
    above = (score - score.median()).double()
    product = above * (predictions.confidence.double() - predictions.correct.double())
    order = product.argsort(stable=True)
    order = order[product[order] < 0]
    return FailureCases(
        high=[int(i) for i in order[above[order] > 0][:count]],
        low=[int(i) for i in order[above[order] < 0][:count]],
    )


def _check_rows(score: Tensor, predictions: Predictions) -> None:
    check_measurable(predictions)
    check_takes_weights(predictions, takes_weights=False)
    if not isinstance(score, Tensor) or score.shape != (predictions.num_samples,):
        raise InputError(
            f"score must be ({predictions.num_samples},), one number per sample",
            describe(score),
            "Pass the indicator's Z, or a norm.",
        )
