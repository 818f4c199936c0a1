"""Groups of samples with several labels each: pooled events, and the worst calibrated label per group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.kinds import check_argument_types
from fedlas.binary.groups import group_measures
from fedlas.binary.labels import LabelMeasures, label_measures
from fedlas.metrics.groups import check_group_sizes, factorize_groups
from fedlas.predictions.any_predictions import drop_zero_weights
from fedlas.predictions.multi_label import UNKNOWN, require_known_labels, require_multi_label
from fedlas.stats.compare import holm
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate
from fedlas.stats.estimates_by_group import MAX_TESTED
from fedlas.stats.result_table import ResultTable

if TYPE_CHECKING:
    from fedlas.predictions import MultiLabel


@dataclass(frozen=True)
class LabelGroupMeasures:
    """Calibration of several labels in one group of samples.

    Attributes:
        num_samples: Samples in the group of which a label is known.
        positives: Labels that they have.
        expected: Mean probability of all known labels.
        observed: Share of the known labels that they have.
        ratio: Observed over expected labels, with interval and p-value over samples or whole clusters.
        macro_ece: Mean ECE of the labels in the group, with interval and noise floor.
        worst_label: The label with the strongest evidence of miscalibration.
        worst: Its measures in the group; its p-value is corrected for all labels.
        p: Twice the smaller p-value of ``ratio`` and of the worst label (Bonferroni), after Holm's correction for all
            groups; a group of one cluster has none.
    """

    num_samples: int
    positives: int
    expected: float
    observed: float
    ratio: Estimate
    macro_ece: Estimate
    worst_label: str
    worst: LabelMeasures
    p: float | None = None


@check_argument_types
def label_group_measures(
    predictions: MultiLabel,
    groups: Sequence[Any],
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ResultTable[Any, LabelGroupMeasures]:
    """Measure the calibration of several labels in each group of samples, such as hospitals.

    Args:
        predictions: Logits and labels ``(N, L)``; unknown labels count for nothing.
        groups: Group of each sample ``(N,)``, as in :func:`~fedlas.metrics.calibration_by_group`.
        num_bins: Bins of equal width of the ECE, at least 1.
        confidence_level: Level of the intervals, in ``(0, 1)``.
        replicates: For the ECE, as in :func:`label_measures`; of more than 500 groups it has no interval.
        seed: The same seed draws the same samples.

    Returns:
        One entry for each group of which a label is known, the one with the strongest evidence of miscalibration first.

    Raises:
        InputError: As :func:`label_measures`, or for groups as in :func:`group_measures`.

    Example:
        >>> import torch
        >>> from fedlas.predictions import MultiLabel
        >>> logits = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) - 1
        >>> target = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1))
        >>> logits[500:, 1] += 2
        >>> several = MultiLabel(logits, target, names=("cat", "dog", "fox"))
        >>> found = label_group_measures(several, ["here"] * 500 + ["there"] * 500, replicates=99)
        >>> next(iter(found)), found["there"].worst_label, round(found["there"].worst.ratio.value, 1)
        ('there', 'dog', 0.5)
    """
    require_multi_label(predictions)
    several: Any = predictions
    names, number = factorize_groups(several, groups)
    counts = (require_known_labels(predictions).target != UNKNOWN).any(axis=1)
    several, some = drop_zero_weights(replace(several.rows(counts), features=None))
    number = number[counts]
    if some is not None:
        number = number[some]
    present = np.unique(number).tolist()
    check_group_sizes(present, len(number))
    rows = (several.target != UNKNOWN).nonzero()[0]
    pooled = group_measures(
        several.pooled(), number[rows].tolist(), confidence_level=confidence_level
    )
    options: dict[str, Any] = {"num_bins": num_bins, "confidence_level": confidence_level}
    options |= {"replicates": replicates if len(present) <= MAX_TESTED else 0, "seed": seed}
    measured: dict[int, LabelGroupMeasures] = {}
    p_values: dict[int, float] = {}
    for place in present:
        inside = number == place
        table = label_measures(several.rows(inside), **options)
        name, worst = next(iter(table.items()))
        whole = pooled[place]
        measured[place] = LabelGroupMeasures(
            int(inside.sum()),
            whole.events,
            whole.expected,
            whole.observed,
            whole.ratio,
            table.overall["macro_ece"],
            name,
            worst,
        )
        tested = [p for p in (whole.ratio.p, worst.p) if p is not None]
        if tested:
            p_values[place] = min(1.0, len(tested) * min(tested))
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    order = sorted(
        present,
        key=lambda place: (p_values.get(place, 2.0), -abs(measured[place].ratio.value - 1.0)),
    )
    return ResultTable(
        {names[place]: replace(measured[place], p=corrected.get(place)) for place in order}
    )
