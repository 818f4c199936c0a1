"""Differences of means over several labels between two models on the same samples, with tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fedlas._core.check import check_choice
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import run_single_threaded
from fedlas.binary.labels import LabelData, summarize_errors
from fedlas.predictions.multi_label import require_known_labels
from fedlas.stats.compare import apply_holm
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, check_replicates
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.two_models import (
    check_same_samples,
    count_used_samples,
    difference_from_influences,
    difference_from_replicates,
)

if TYPE_CHECKING:
    from fedlas.predictions import MultiLabel
    from fedlas.stats.difference import Difference

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
    for each in (a, b):
        require_known_labels(each)
    check_same_samples(a, b)
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
                difference_from_influences(
                    name,
                    means[0][name],
                    means[1][name],
                    both[1].predictions,
                    confidence_level=confidence_level,
                    degrees=both[1].degrees,
                )
            )
            continue
        (value, samples, _), (other, others, _) = errors[0][name], errors[1][name]
        differences.append(
            difference_from_replicates(
                name,
                value,
                other,
                samples - others,
                confidence_level=confidence_level,
                method="auto",
                degrees=both[0].degrees,
            )
        )
    count = count_used_samples(a)
    return {each.metric: replace(each, count=count) for each in apply_holm(differences)}


def macro_nll_change(
    a: MultiLabel, b: MultiLabel, confidence_level: float = CONFIDENCE_LEVEL
) -> tuple[float, float, float]:
    """Return macro NLL of ``b`` minus that of ``a``, and the ends of its paired interval."""
    first, second = LabelData.from_predictions(a), LabelData.from_predictions(b)
    after, before = (each.means(areas=False)["macro_nll"] for each in (second, first))
    change = difference_from_influences(
        "macro_nll",
        after,
        before,
        second.predictions,
        confidence_level=confidence_level,
        degrees=second.degrees,
    )
    return change.difference, change.low, change.high
