"""Differences of means over several labels between two models on the same samples, with tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fedlas._core.check import InputError, check_choice
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import run_single_threaded
from fedlas._core.types import FloatArray
from fedlas.binary.labels import LabelData, summarize_errors
from fedlas.predictions import MultiLabel
from fedlas.predictions.multi_label import require_known_labels
from fedlas.stats.compare import apply_holm
from fedlas.stats.degrees import two_sided_p_value
from fedlas.stats.difference import Difference
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, check_replicates
from fedlas.stats.intervals import check_confidence_level, normal_interval, standard_error
from fedlas.stats.two_models import bootstrap_difference_test

COMPARED = ("macro_nll", "macro_brier", "macro_auroc", "macro_ece", "micro_nll")
"""Means over labels that are compared by default."""


@check_argument_types
@run_single_threaded
def compare_labels(
    a: MultiLabel,
    b: MultiLabel,
    metrics: Sequence[str] | None = None,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return the differences ``a - b`` of means over labels, with paired intervals and tests.

    Args:
        a: Labels ``(N, L)`` as the first model predicts them.
        b: The same samples and labels by the second.
        metrics: Names such as ``"macro_ece"``; None for :data:`COMPARED`.
        num_bins: Bins of the ECE.
        confidence_level: Level of the intervals.
        replicates: Of the paired bootstrap of the ECE; other means need none.
        seed: The same seed draws the same samples.

    Raises:
        InputError: For different samples or labels, or an unknown metric.
    """
    _check_same_labels(a, b)
    check_replicates(replicates, check_confidence_level(confidence_level))
    both = LabelData.from_predictions(a), LabelData.from_predictions(b)
    means = [each.means() for each in both]
    errors = [
        summarize_errors(each.errors(num_bins=num_bins, replicates=replicates, seed=seed))
        for each in both
    ]
    names = list(COMPARED if metrics is None else metrics)
    known_names = [*means[0], *errors[0]]
    differences = []
    for name in names:
        check_choice("metrics", name, known_names)
        if name in means[0]:
            differences.append(
                _paired_difference(name, means[0][name], means[1][name], both[1], confidence_level)
            )
            continue
        (value, samples, _), (other, others, _) = errors[0][name], errors[1][name]
        differences.append(
            _bootstrap_difference(
                name, value, other, samples - others, confidence_level, both[0].degrees
            )
        )
    count = a.num_samples
    return {each.metric: replace(each, count=count) for each in apply_holm(differences)}


def _paired_difference(
    name: str,
    first: tuple[float, FloatArray],
    second: tuple[float, FloatArray],
    data: LabelData,
    confidence_level: float,
) -> Difference:
    moved = first[1] - second[1]
    gap = first[0] - second[0]
    error = standard_error(moved, data.predictions) if data.has_several_units else math.nan
    ends = normal_interval(gap, error, confidence_level=confidence_level, degrees=data.degrees)
    p = (
        None
        if math.isnan(error)
        else two_sided_p_value(gap / error, data.degrees)
        if error
        else float(gap == 0)
    )
    return Difference(name, first[0], second[0], ends.low, ends.high, p)


def _bootstrap_difference(
    name: str, a: float, b: float, gaps: FloatArray, confidence_level: float, degrees: float
) -> Difference:
    """Return a difference with the interval and p-value from its replicates ``(R,)``."""
    if not len(gaps):
        return Difference(name, a, b)
    ends, p = bootstrap_difference_test(
        a - b, gaps, confidence_level=confidence_level, method="auto", degrees=degrees
    )
    return Difference(name, a, b, ends.low, ends.high, p)


def _check_same_labels(a: MultiLabel, b: MultiLabel) -> None:
    """Raise InputError if two predictions differ in samples, labels, weights or clusters."""
    got = (
        ""
        if a.logits.shape == b.logits.shape and a.names == b.names
        else "different samples or labels"
    )
    require_known_labels(a)
    require_known_labels(b)
    if not got and bool((a.target != b.target).any()):
        row = int((a.target != b.target).any(dim=1).nonzero()[0])
        got = f"different labels, first in row {row + 1:,}"
    for name in ("weights", "clusters"):
        one, other = getattr(a, name), getattr(b, name)
        if (one is None) != (other is None) or (one is not None and bool((one != other).any())):
            got = got or f"different {name}"
    if got:
        raise InputError(
            "a and b must be predictions for the same samples and labels, in the same order",
            got,
            "Predict one test set with both models, without shuffling.",
        )


def macro_nll_change(
    a: MultiLabel, b: MultiLabel, confidence_level: float = CONFIDENCE_LEVEL
) -> tuple[float, float, float]:
    """Return macro NLL of ``b`` minus that of ``a``, and the ends of its paired interval."""
    first, second = LabelData.from_predictions(a), LabelData.from_predictions(b)
    after, before = (each.means(areas=False)["macro_nll"] for each in (second, first))
    change = _paired_difference("macro_nll", after, before, second, confidence_level)
    return change.difference, change.low, change.high
