"""Expected and observed events in groups of samples, with tests, calibration slopes and partial pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas.binary.grouped_samples import GroupedSamples
from fedlas.binary.positive import positive_class
from fedlas.binary.recalibration import iter_group_rows
from fedlas.metrics.groups import check_group_sizes, factorize_groups
from fedlas.predictions.any_predictions import require_labels
from fedlas.stats.compare import holm
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.intervals import check_confidence_level, critical_z
from fedlas.stats.pooling import partial_pooling
from fedlas.stats.result_table import ResultTable

if TYPE_CHECKING:
    from fedlas.predictions import Predictions


@dataclass(frozen=True)
class GroupMeasures:
    """Expected and observed events of one group of samples.

    Attributes:
        num_samples: Samples in the group.
        events: Number of them in which the event occurred.
        expected: Mean probability of the event.
        observed: Share of the samples in which it occurred.
        ratio: Observed over expected, with interval and the p-value of the number of events given the probabilities.
        slope: Calibration slope; None where the group has none.
        shift: Calibration in the large; None where the group has none.
        pooled_slope: The slope after partial pooling over groups; None where fewer than two groups have one.
        pooled_shift: The same of calibration in the large.
        p: P-value of ``ratio`` after Holm's correction for all groups that have one; a group of one cluster has none.
    """

    num_samples: int
    events: int
    expected: float
    observed: float
    ratio: Estimate
    slope: Estimate | None = None
    shift: Estimate | None = None
    pooled_slope: Estimate | None = None
    pooled_shift: Estimate | None = None
    p: float | None = None


def group_measures(
    predictions: Predictions,
    groups: Sequence[Any],
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> ResultTable[Any, GroupMeasures]:
    """Compare the expected events of each group with the observed events.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        groups: Group of each sample ``(N,)``, as in :func:`~fedlas.metrics.calibration_by_group`.
        event: The class that is the event, its name or number; None: the event of two.
        confidence_level: Level of the intervals, in ``(0, 1)``.

    Returns:
        One entry for each group, the one with the strongest evidence of miscalibration first.

    Raises:
        InputError: If there is not one group for each sample, groups are floats, cannot be sorted or hold fewer than
            two samples on average, or as all functions here, for predictions of other than two classes without
            ``event``.

    Note:
        The interval of the ratio takes the probabilities as given: it is the exact one of the share of events (Clopper
        and Pearson) over the mean probability. With weights or clusters it is the normal one of its logarithm, and
        without an event the exact one again, of as many samples as the weights or clusters are worth (Kish).

        Slopes of small groups are mostly chance. ``pooled_slope`` moves each toward the mean of all groups, as far as
        its own error is large, see :func:`fedlas.stats.partial_pooling`; its interval says what the group is likely to
        have, given all groups.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> log_odds = torch.full((400,), -1.1)
        >>> happened = (torch.arange(400) % 10 < torch.tensor([2, 6]).repeat_interleave(200)).long()
        >>> two = Predictions(torch.stack([torch.zeros(400), log_odds], dim=1), happened)
        >>> found = group_measures(two, ["here"] * 200 + ["there"] * 200)
        >>> next(iter(found)), round(found["there"].ratio.value, 2), found["there"].p < 0.001
        ('there', 2.4, True)
    """
    check_confidence_level(confidence_level)
    require_labels(predictions)
    names, number = factorize_groups(predictions, groups)
    if predictions.weights is not None:
        number = number[predictions.weights > 0]
    check_group_sizes(names, len(number))
    data = positive_class(predictions, event)
    present, number = np.unique(number, return_inverse=True)
    rows = [*iter_group_rows(GroupedSamples.from_positive(data, number), confidence_level)]
    p_values = {place: p for place, row in enumerate(rows) if (p := row.ratio.p) is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    slopes, shifts = (
        _pool_estimates([getattr(row, name) for row in rows], confidence_level)
        for name in ("slope", "shift")
    )
    order = sorted(
        range(len(rows)),
        key=lambda place: (p_values.get(place, 2.0), -abs(rows[place].ratio.value - 1.0)),
    )
    return ResultTable(
        {
            names[present[place]]: GroupMeasures(
                **vars(rows[place]),
                pooled_slope=slopes[place],
                pooled_shift=shifts[place],
                p=corrected.get(place),
            )
            for place in order
        }
    )


def _pool_estimates(
    estimates: Sequence[Estimate | None], confidence_level: float
) -> list[Estimate | None]:
    """Return the group estimates after partial pooling; None for a group without an estimate."""
    pooled: list[Estimate | None] = [None] * len(estimates)
    numbers = {place: each for place, each in enumerate(estimates) if each is not None}
    if len(numbers) < 2:
        return pooled
    z = critical_z(confidence_level)
    errors = np.array([(each.high - each.low) / (2.0 * z) for each in numbers.values()])
    result = partial_pooling(np.array([each.value for each in numbers.values()]), errors)
    for place, value, error in zip(
        numbers, result.values.tolist(), result.errors.tolist(), strict=True
    ):
        ends = (value - z * error, value + z * error)
        pooled[place] = Estimate(value, *ends, confidence_level=confidence_level)
    return pooled
