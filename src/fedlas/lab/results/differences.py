"""Pre-specified differences between methods of a bench, with tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from fedlas._core.check import InputError, suggestion
from fedlas.lab.runs.summary import Summary
from fedlas.metrics import METRICS
from fedlas.stats import ALPHA, PairedTest, holm, mean_interval, paired_t_test, seeds_needed


@dataclass(frozen=True)
class Difference:
    """One method minus another on one metric, over the seeds that both have.

    Attributes:
        pair: The two methods.
        seeds: The seeds.
        values: Values of each method, ``(n,)`` each, in the order of ``seeds``.
        mean: Mean difference.
        interval: 95 % interval of the mean difference by Student's t; None for one seed or no spread.
        t: p-value of the paired t-test; None where there is none.
        holm: The same with Holm's correction over all pairs.
        needed: Seeds with which a paired t-test would find a difference of this size four times in five, if size and
            spread are what they seem; None where they cannot be computed.
    """

    pair: tuple[str, str]
    seeds: tuple[int, ...]
    values: tuple[tuple[float, ...], tuple[float, ...]]
    mean: float
    interval: tuple[float, float] | None
    t: float | None
    holm: float | None = None
    needed: int | None = None


def method_differences(
    summary: Summary, pairs: Sequence[str], *, metric: str, stage: str = "test"
) -> list[Difference]:
    """Return the differences of pairs of methods, as numbers.

    Args:
        summary: Runs of a bench.
        pairs: ``A:B`` each.
        metric: Name of a metric.
        stage: ``test``, ``test_calibrated`` or ``auto``.

    Raises:
        InputError: If a pair is none, a method or metric is not there, or a pair has no seed in common.
    """
    metric = measured_metric(summary, metric)
    every = [
        _difference(summary, pair_of(summary, pair), metric, stage) for pair in dict.fromkeys(pairs)
    ]
    adjusted = iter(holm([difference.t for difference in every if difference.t is not None]))
    return [d if d.t is None else replace(d, holm=next(adjusted)) for d in every]


def measured_metric(summary: Summary, metric: str) -> str:
    """Return the registry name of a metric that the runs measured.

    Raises:
        InputError: If they did not.
    """
    metric = METRICS[metric].name if metric in METRICS else metric
    if metric not in summary.metrics:
        names = summary.metrics
        fix = f"They measured {', '.join(names)}."
        if metric not in METRICS:
            fix = suggestion(metric, names)
        raise InputError("the runs must have measured the metric", repr(metric), fix)
    return metric


def pair_of(summary: Summary, pair: str) -> tuple[str, str]:
    """Return the two methods of ``A:B``.

    Raises:
        InputError: If it is no pair, or a method has no finished run.
    """
    first, _, second = pair.partition(":")
    if not first or not second or first == second:
        raise InputError(
            "a pair must be A:B", repr(pair), "Write e.g. fedlas:ls for FedLAS minus LS."
        )
    for method in (first, second):
        if method not in summary.methods:
            raise InputError(
                "a method must have a finished run",
                f"{method!r} in {summary.folder}",
                suggestion(method, summary.methods),
            )
    return first, second


def _difference(summary: Summary, pair: tuple[str, str], metric: str, stage: str) -> Difference:
    columns = [summary.values(method, metric, stage) for method in pair]
    # The tests are paired, so a seed counts only if both methods have a value.
    both = [
        row for row in zip(summary.seeds, *columns, strict=True) if not any(map(math.isnan, row))
    ]
    if not both:
        raise InputError(
            "a pair must have a seed in common", ":".join(pair), "Run both with the same seeds."
        )
    seeds, first, second = zip(*both, strict=True)
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    test: PairedTest = paired_t_test(first, second)
    result = Difference(pair, seeds, (first, second), fmean(gaps), None, test.p_value)
    # Without spread the test has nothing to divide by, and there is no interval.
    if test.p_value is None or stdev(gaps) == 0:
        return result
    needed = None
    with suppress(InputError):  # no difference, or one that no affordable number of seeds finds
        needed = seeds_needed(result.mean, stdev(gaps))
    interval = mean_interval(gaps, confidence_level=1 - ALPHA)
    return replace(result, interval=interval, needed=needed)
