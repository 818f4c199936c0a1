"""Pre-specified differences between methods of a bench, with tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fedlas._core.check import InputError, suggestion
from fedlas.lab.runs.summary import Summary
from fedlas.metrics import METRICS
from fedlas.stats import Difference
from fedlas.stats.compare import apply_holm, seed_difference


def method_differences(
    summary: Summary, pairs: Sequence[str], *, metric: str, stage: str = "test"
) -> list[Difference]:
    """Return paired differences between methods over their common seeds, corrected for multiple comparisons.

    Args:
        summary: Runs of a bench.
        pairs: ``A:B`` each.
        metric: Name of a metric.
        stage: ``test``, ``test_calibrated`` or ``auto``.

    Raises:
        InputError: If a pair is invalid, a method or metric is missing, or a pair has no seed in common.
    """
    metric = require_measured_metric(summary, metric)
    return apply_holm(
        _paired_difference(summary, parse_pair(summary, pair), metric, stage)
        for pair in dict.fromkeys(pairs)
    )


def require_measured_metric(summary: Summary, metric: str) -> str:
    """Return the registry name of a metric that the runs measured.

    Raises:
        InputError: If no run measured the metric.
    """
    metric = METRICS[metric].name if metric in METRICS else metric
    if metric not in summary.metrics:
        names = summary.metrics
        fix = f"They measured {', '.join(names)}."
        if metric not in METRICS:
            fix = suggestion(metric, names)
        raise InputError("the metric must be one that the runs measured", repr(metric), fix)
    return metric


def parse_pair(summary: Summary, pair: str) -> tuple[str, str]:
    """Parse ``A:B`` into two methods that have finished runs.

    Raises:
        InputError: If ``pair`` is not of this form, or a method has no finished run.
    """
    first, _, second = pair.partition(":")
    if not first or not second or first == second:
        raise InputError(
            "a pair must be two different methods, A:B",
            repr(pair),
            "Write e.g. fedlas:ls for FedLAS minus LS.",
        )
    for method in (first, second):
        if method not in summary.methods:
            raise InputError(
                "a method must have a finished run",
                f"{method!r} in {summary.folder}",
                suggestion(method, summary.methods),
            )
    return first, second


def _paired_difference(
    summary: Summary, pair: tuple[str, str], metric: str, stage: str
) -> Difference:
    columns = [summary.values(method, metric, stage) for method in pair]
    # The tests are paired, so a seed counts only if both methods have a value.
    both = [
        row for row in zip(summary.seeds, *columns, strict=True) if not any(map(math.isnan, row))
    ]
    if not both:
        raise InputError(
            "the methods of a pair must have a seed in common",
            f"none for {':'.join(pair)}",
            "Run both with the same seeds.",
        )
    seeds, first, second = zip(*both, strict=True)
    difference = seed_difference(first, second, metric=metric, names=pair)
    return replace(difference, seeds=seeds)
