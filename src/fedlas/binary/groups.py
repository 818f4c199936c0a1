"""Groups of samples: events that were expected and that occurred, with tests, slopes and partial pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.renamed import renamed
from fedlas.binary.many_groups import Grouped, GroupRow, measured_groups
from fedlas.binary.positive import Positive, positive_class
from fedlas.binary.recalibration import events_test, recalibration_of, wald_estimate
from fedlas.metrics.groups import check_two_a_group, group_numbers
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_labeled
from fedlas.stats.compare import holm
from fedlas.stats.degrees import student_score
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.intervals import check_level, z_score
from fedlas.stats.pooling import partial_pooling
from fedlas.stats.proportion import clopper_pearson
from fedlas.stats.result_table import ResultTable


@dataclass(frozen=True)
class GroupMeasures:
    """Events of one group of samples.

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


@renamed(positive="event")
def group_measures(
    predictions: Predictions,
    groups: Sequence[Any],
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> ResultTable[Any, GroupMeasures]:
    """Compare the events that are expected in each group with those that occur.

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
        and Pearson) over the mean probability. With weights or clusters it is the normal one of its logarithm.

        Slopes of small groups are mostly chance. ``pooled_slope`` moves each toward the mean of all groups, as far as
        its own error is large, see :func:`fedlas.stats.partial_pooling`; its interval says what the group is likely to
        have, given all groups.

    Example:
        >>> import torch
        >>> log_odds = torch.full((400,), -1.1)
        >>> happened = (torch.arange(400) % 10 < torch.tensor([2, 6]).repeat_interleave(200)).long()
        >>> two = Predictions(torch.stack([torch.zeros(400), log_odds], dim=1), happened)
        >>> found = group_measures(two, ["here"] * 200 + ["there"] * 200)
        >>> next(iter(found)), round(found["there"].ratio.value, 2), found["there"].p < 0.001
        ('there', 2.4, True)
    """
    check_level(confidence_level)
    check_labeled(predictions)
    names, number = group_numbers(predictions, groups)
    if predictions.weights is not None:
        number = number[predictions.weights.cpu().numpy() > 0]
    check_two_a_group(names, len(number))
    data = positive_class(predictions, event)
    present, number = np.unique(number, return_inverse=True)
    if data.is_plain:
        rows = [*measured_groups(Grouped.of(data, number), confidence_level)]
    else:
        ends = np.bincount(number).cumsum()[:-1]
        parts = np.split(np.argsort(number, kind="stable"), ends)
        rows = [_measured(data.rows(part), confidence_level) for part in parts]
    p_values = {place: p for place, row in enumerate(rows) if (p := row.ratio.p) is not None}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    slopes, shifts = (
        _pooled([getattr(row, name) for row in rows], confidence_level)
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


def _measured(data: Positive, confidence_level: float) -> GroupRow:
    """Return the measures of the samples of one group."""
    events = int(data.outcome.sum())
    expected = data.mean(data.probability)
    observed = data.mean(data.outcome)
    slope = None
    shift = None
    try:
        if 0 < events < data.num_samples:
            line = recalibration_of(data, confidence_level)
            lines = (wald_estimate(line.slope, 1.0), wald_estimate(line.in_the_large, 0.0))
            slope, shift = (None if each.p is None else each for each in lines)
    except InputError:  # outcomes that a threshold separates
        pass
    ratio = _ratio(data, events, expected, observed, confidence_level)
    return GroupRow(data.num_samples, events, expected, observed, ratio, slope, shift)


def _ratio(
    data: Positive, events: int, expected: float, observed: float, confidence_level: float
) -> Estimate:
    """Return observed over expected with its interval and test."""
    mean = max(expected, 1e-300)
    ratio = observed / mean
    if data.is_plain:
        ends = clopper_pearson(events, data.num_samples, confidence_level=confidence_level)
        low, high = (end / mean for end in ends)
    else:
        gaps = data.outcome - ratio * data.probability
        score = student_score(confidence_level, data.degrees(gaps))
        reach = np.exp(score * data.error_of_mean(gaps) / observed) if observed > 0 else np.inf
        low = ratio / reach
        high = ratio * reach
    p, test = events_test(data)
    return Estimate(ratio, low, high, p=p, confidence_level=confidence_level, test=test)


def _pooled(estimates: Sequence[Estimate | None], confidence_level: float) -> list[Estimate | None]:
    """Return the estimates of groups after partial pooling; None for a group without one."""
    pooled: list[Estimate | None] = [None] * len(estimates)
    numbers = {place: each for place, each in enumerate(estimates) if each is not None}
    if len(numbers) < 2:
        return pooled
    z = z_score(confidence_level)
    errors = np.array([(each.high - each.low) / (2.0 * z) for each in numbers.values()])
    result = partial_pooling(np.array([each.value for each in numbers.values()]), errors)
    for place, value, error in zip(
        numbers, result.values.tolist(), result.errors.tolist(), strict=True
    ):
        ends = (value - z * error, value + z * error)
        pooled[place] = Estimate(value, *ends, confidence_level=confidence_level)
    return pooled
