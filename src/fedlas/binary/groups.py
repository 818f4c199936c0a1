"""Groups of samples: events that were expected and that occurred, with tests, slopes and partial pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fedlas._core.check import InputError
from fedlas._core.renamed import renamed
from fedlas.binary.positive import Positive, counted, positive_class
from fedlas.binary.recalibration import events_test, logistic_recalibration, wald_estimate
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
        p: P-value of ``ratio`` after Holm's correction for all groups.
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
    samples = counted(predictions)
    measures = {}
    for place in np.unique(number):
        rows = np.flatnonzero(number == place)
        part = samples.rows(torch.from_numpy(rows))
        measures[names[place]] = _measured(part, event, confidence_level)
    corrected = holm([each.ratio.p or 0.0 for each in measures.values()])
    measures = {
        name: replace(each, p=p)
        for (name, each), p in zip(measures.items(), corrected, strict=True)
    }
    measures = _pooled(_pooled(measures, "slope", confidence_level), "shift", confidence_level)
    order = sorted(
        measures,
        key=lambda name: (measures[name].ratio.p or 0.0, -abs(measures[name].ratio.value - 1.0)),
    )
    return ResultTable({name: measures[name] for name in order})


def _measured(part: Predictions, event: int | str | None, confidence_level: float) -> GroupMeasures:
    """Return the measures of the samples of one group."""
    data = positive_class(part, event)
    events = int(data.outcome.sum())
    expected = data.mean(data.probability)
    observed = data.mean(data.outcome)
    slope = None
    shift = None
    try:
        line = logistic_recalibration(part, event=event, confidence_level=confidence_level)
        lines = (wald_estimate(line.slope, 1.0), wald_estimate(line.in_the_large, 0.0))
        slope, shift = (None if each.p is None else each for each in lines)
    except InputError:  # one outcome alone, or outcomes that a threshold separates
        pass
    ratio = _ratio(data, events, expected, observed, confidence_level)
    return GroupMeasures(data.num_samples, events, expected, observed, ratio, slope, shift)


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


def _pooled(
    measures: dict[Any, GroupMeasures], name: str, confidence_level: float
) -> dict[Any, GroupMeasures]:
    """Return the groups with ``pooled_NAME``."""
    numbers = {
        group: each for group, m in measures.items() if (each := getattr(m, name)) is not None
    }
    if len(numbers) < 2:
        return measures
    z = z_score(confidence_level)
    errors = np.array([(each.high - each.low) / (2.0 * z) for each in numbers.values()])
    pooled = partial_pooling(np.array([each.value for each in numbers.values()]), errors)
    for group, value, error in zip(
        numbers, pooled.values.tolist(), pooled.errors.tolist(), strict=True
    ):
        estimate = Estimate(
            value, value - z * error, value + z * error, confidence_level=confidence_level
        )
        change: dict[str, Any] = {f"pooled_{name}": estimate}
        measures = {**measures, group: replace(measures[group], **change)}
    return measures
