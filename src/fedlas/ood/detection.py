"""How well a score tells OOD samples from in-distribution ones: AUROC, AUPR, FPR95 and OSCR, exact with ties.

Everything is counted per distinct score, so equal scores are never ordered by accident: a pair of equal ones is half
right for an area under a curve, and a threshold takes all of them or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedlas._core.check import InputError, check_number, describe
from fedlas._core.registry import Registry
from fedlas.stats import Interval
from fedlas.stats.auroc import auroc, pairs_in_order
from fedlas.stats.intervals import check_bootstrap, interval_from

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_BLOCK = 2**17
"""Counts of one block of replicates: 1 MiB of float64, so that several stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Samples at each distinct score, ascending, of ``R`` replicates; none of the rows is empty altogether.

    Attributes:
        known: In-distribution samples ``(R, G)``.
        unknown: OOD samples ``(R, G)``.
        right: In-distribution samples that are classified correctly ``(R, G)``; None where that is not known.
    """

    known: Floats
    unknown: Floats
    right: Floats | None = None

    @cached_property
    def low(self) -> tuple[Floats, Floats]:
        """Known and unknown samples at each score or below it, each ``(R, G)``."""
        return self.known.cumsum(axis=1), self.unknown.cumsum(axis=1)

    @cached_property
    def high(self) -> tuple[Floats, Floats]:
        """Known and unknown samples at each score or above it, each ``(R, G)``."""
        known, unknown = self.low
        return known[:, -1:] - known + self.known, unknown[:, -1:] - unknown + self.unknown


DetectionMetric = Callable[[Counts], Floats]

DETECTION: Registry[DetectionMetric] = Registry("detection metric")
"""Functions of :class:`Counts` to one value a replicate ``(R,)``, a fraction. Metadata: ``title``; ``positive``, the
class that is looked for, ``"in"`` or ``"out"``, or ``"either"`` where it makes no difference; ``higher_is_better``;
``needs_right``."""


@DETECTION.register("auroc", title="AUROC", positive="either", higher_is_better=True)
def _auroc(counts: Counts) -> Floats:
    """Probability that an OOD sample scores above an in-distribution one, plus half of that of a tie; 0.5 is chance."""
    return auroc(counts.known, counts.unknown)


@DETECTION.register("aupr-in", title="AUPR-in", positive="in", higher_is_better=True)
def _aupr_in(counts: Counts) -> Floats:
    """Average precision with in-distribution as the positive class, lowest scores first; chance is its share."""
    return _average_precision(counts.known, *counts.low)


@DETECTION.register("aupr-out", title="AUPR-out", positive="out", higher_is_better=True)
def _aupr_out(counts: Counts) -> Floats:
    """Average precision with OOD as the positive class, highest scores first; chance is its share."""
    return _average_precision(counts.unknown, *reversed(counts.high))


@DETECTION.register("fpr95-in", title="FPR95-in", positive="in", higher_is_better=False)
def _fpr95_in(counts: Counts) -> Floats:
    """Share of the OOD samples that pass when at least 95 % of the in-distribution ones do (positive: in)."""
    return _false_positives_in(counts, 0.95)


@DETECTION.register("fpr95-out", title="FPR95-out", positive="out", higher_is_better=False)
def _fpr95_out(counts: Counts) -> Floats:
    """Share of the in-distribution samples that are flagged when at least 95 % of the OOD ones are (positive: out)."""
    return _false_positives_out(counts, 0.95)


@DETECTION.register("oscr", title="OSCR", positive="in", higher_is_better=True, needs_right=True)
def _oscr(counts: Counts) -> Floats:
    """Area under correct classification rate over false positive rate: AUROC where a wrong class counts as a miss."""
    if counts.right is None:
        raise InputError("oscr", "it must be known which samples are correct", "None", "Pass id_correct.")
    pairs = counts.known.sum(axis=1) * counts.unknown.sum(axis=1)
    return pairs_in_order(counts.right, counts.unknown) / pairs


def detection_metrics(
    id_score: ArrayLike, ood_score: ArrayLike, *, id_correct: ArrayLike | None = None
) -> dict[str, float]:
    """Every detection metric of a score.

    Args:
        id_score: Scores of in-distribution samples ``(N,)``, finite, higher = more OOD.
        ood_score: Scores of OOD samples ``(M,)``.
        id_correct: Whether each in-distribution sample is classified correctly ``(N,)``; without it there is no OSCR.

    Returns:
        Fractions by name: ``auroc`` (in either direction the same), ``aupr-in`` and ``aupr-out`` (average precision
        with that class as the positive one; it depends on ``N / M``), ``fpr95-in`` (share of OOD samples below the
        threshold that at least 95 % of the in-distribution ones are below or at: positive class in-distribution, as in
        most papers), ``fpr95-out`` (the other way round) and ``oscr``.

    Raises:
        InputError: If scores are not one-dimensional, not finite or none, or ``id_correct`` does not fit.

    Example:
        >>> found = detection_metrics([0.1, 0.2, 0.3], [0.3, 0.9])
        >>> round(found["auroc"], 4), found["fpr95-in"], found["fpr95-out"]
        (0.9167, 0.5, 0.3333333333333333)

    Source:
        Hendrycks and Gimpel 2017 (arXiv 1610.02136) for AUROC and AUPR, Liang et al. 2018 (1706.02690) for FPR95,
        Dhamija et al. 2018 (1811.04110) and Vaze et al. 2022 (2110.06207) for OSCR.
    """
    counter = _Counter("detection_metrics", id_score, ood_score, id_correct)
    return {name: float(values[0]) for name, values in _measured(counter.all_samples()).items()}


def detection_intervals(
    id_score: ArrayLike,
    ood_score: ArrayLike,
    *,
    id_correct: ArrayLike | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every detection metric of a score with a percentile interval of the stratified bootstrap.

    Each replicate draws ``N`` in-distribution and ``M`` OOD samples with replacement, each from their own. What varies
    are the two test sets; the model is given, so differences between trainings are not in here.

    Args:
        id_score: As in :func:`detection_metrics`.
        ood_score: As there.
        id_correct: As there.
        level: Confidence level in ``(0, 1)``.
        replicates: At least 39 for level 0.95, and a thousand for steady ends.
        seed: The same seed draws the same samples for every score of the same two sets.

    Raises:
        InputError: As :func:`detection_metrics`, or if an option is out of range.

    Example:
        >>> found = detection_intervals([0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], replicates=200)["auroc"]
        >>> found.value, found.low <= found.value <= found.high
        (0.875, True)

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; two samples in chapter 8.
    """
    owner = "detection_intervals"
    check_bootstrap(owner, level=level, replicates=replicates, seed=seed, method="percentile")
    counter = _Counter(owner, id_score, ood_score, id_correct)
    values = _measured(counter.all_samples())
    blocks = [_measured(counts) for counts in counter.replicates(replicates, seed)]
    return {
        name: interval_from(
            float(value[0]), np.concatenate([block[name] for block in blocks]), level=level, method="percentile"
        )
        for name, value in values.items()
    }


def fpr_at(id_score: ArrayLike, ood_score: ArrayLike, *, tpr: float = 0.95, positive: str = "in") -> float:
    """False positive rate at the first threshold that reaches a true positive rate.

    Args:
        id_score: As in :func:`detection_metrics`.
        ood_score: As there.
        tpr: Share of the positive class that must be found, in ``(0, 1]``.
        positive: ``"in"`` or ``"out"``.

    Raises:
        InputError: As :func:`detection_metrics`, or if an option is out of range.
    """
    owner = "fpr_at"
    share = check_number(owner, "tpr", tpr, low=0.0, high=1.0, low_open=True)
    if positive not in ("in", "out"):
        raise InputError(owner, "positive must be 'in' or 'out'", repr(positive), "Name the class that is looked for.")
    counts = _Counter(owner, id_score, ood_score, None).all_samples()
    rates = (_false_positives_in if positive == "in" else _false_positives_out)(counts, share)
    return float(rates[0])


def roc_points(id_score: ArrayLike, ood_score: ArrayLike, *, most: int = 400) -> tuple[Floats, Floats]:
    """The ROC curve with OOD as the positive class.

    Args:
        id_score: As in :func:`detection_metrics`.
        ood_score: As there.
        most: About how many points to keep, for drawing.

    Returns:
        False positive rates and true positive rates ``(P,)``, from (0, 0) to (1, 1).
    """
    counts = _Counter("roc_points", id_score, ood_score, None).all_samples()
    false, true = (np.concatenate(([0.0], side[0, ::-1].cumsum())) for side in (counts.known, counts.unknown))
    false, true = false / false[-1], true / true[-1]
    # Evenly spaced along the curve, so that neither steep nor flat parts are lost.
    along = false + true
    kept = np.unique(np.concatenate((np.searchsorted(along, np.linspace(0.0, 2.0, most)), [0, len(along) - 1])))
    kept = kept[kept < len(along)]
    return false[kept], true[kept]


class _Counter:
    """Counts the samples at each distinct score, of all samples or of bootstrap replicates."""

    def __init__(self, owner: str, id_score: ArrayLike, ood_score: ArrayLike, id_correct: ArrayLike | None) -> None:
        known, unknown = _checked(owner, "id_score", id_score), _checked(owner, "ood_score", ood_score)
        self._right: NDArray[np.bool_] | None = None
        if id_correct is not None:
            right = np.asarray(id_correct)
            if right.shape != known.shape or right.dtype != np.bool_:
                raise InputError(
                    owner, f"id_correct must be ({len(known)},) bool", describe(right), "One for each in-distribution."
                )
            self._right = right
        values, place = np.unique(np.concatenate((known, unknown)), return_inverse=True)
        self._groups = len(values)
        self._known, self._unknown = place[: len(known)], place[len(known) :]

    def all_samples(self) -> Counts:
        right = None if self._right is None else self._count(self._known[self._right][None])
        return Counts(self._count(self._known[None]), self._count(self._unknown[None]), right)

    def replicates(self, number: int, seed: int) -> Iterator[Counts]:
        """Blocks of replicates; which samples they draw does not depend on the size of a block."""
        rows = max(1, _BLOCK // self._groups)
        sides = [np.random.Generator(np.random.PCG64([seed, side])) for side in range(2)]
        for start in range(0, number, rows):
            size = min(rows, number - start)
            drawn, unknown = (
                random.integers(0, len(places), size=(size, len(places)), dtype=np.int64)
                for random, places in zip(sides, (self._known, self._unknown), strict=True)
            )
            right = None if self._right is None else self._count(self._known[drawn], weights=self._right[drawn])
            yield Counts(self._count(self._known[drawn]), self._count(self._unknown[unknown]), right)

    def _count(self, places: Integers, weights: NDArray[np.bool_] | None = None) -> Floats:
        """How often each group occurs in each row of ``places (R, N)``: ``(R, G)``."""
        rows = len(places)
        flat = (places + self._groups * np.arange(rows)[:, None]).ravel()
        counted = np.bincount(flat, None if weights is None else weights.ravel(), minlength=rows * self._groups)
        return counted.reshape(rows, self._groups).astype(np.float64)


def _measured(counts: Counts) -> dict[str, Floats]:
    entries = (e for e in DETECTION.entries() if counts.right is not None or not e.metadata.get("needs_right"))
    return {entry.name: entry.value(counts) for entry in entries}


def _average_precision(positive: Floats, found: Floats, false: Floats) -> Floats:
    """Mean over the positives of the precision at the threshold that just takes each: ``found / (found + false)``."""
    taken = found + false
    np.maximum(taken, 1.0, out=taken)  # a replicate may have drawn nothing on this side of the threshold
    return (positive * found / taken).sum(axis=1) / positive.sum(axis=1)


def _false_positives_in(counts: Counts, share: float) -> Floats:
    """Share of the unknown at or below the first score that takes enough of the known."""
    found, false = counts.low
    first = (found >= _enough(share, found[0, -1])).argmax(axis=1)
    rates: Floats = false[np.arange(len(false)), first] / false[:, -1]
    return rates


def _false_positives_out(counts: Counts, share: float) -> Floats:
    """Share of the known at or above the last score that takes enough of the unknown."""
    false, found = counts.high
    last = (found >= _enough(share, found[0, 0])).sum(axis=1) - 1  # they fall from score to score
    rates: Floats = false[np.arange(len(false)), last] / false[:, 0]
    return rates


def _enough(share: float, number: float) -> int:
    """The fewest samples that are this share of all; every replicate has the same number."""
    return math.ceil(share * float(number) - 1e-9)


def _checked(owner: str, name: str, score: ArrayLike) -> Floats:
    try:
        values = np.asarray(score, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(owner, f"{name} must be numbers", describe(score), "Pass one score a sample.") from error
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        got = describe(values) if values.ndim != 1 or len(values) == 0 else "NaN or infinite ones among them"
        raise InputError(owner, f"{name} must be finite scores (N,), at least one", got, "Check the score.")
    return values
