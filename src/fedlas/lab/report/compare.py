"""Pre-specified differences between methods of a bench, with tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas.lab.report.verdict import number_of
from fedlas.lab.runs.summary import Summary
from fedlas.metrics import METRICS
from fedlas.plots import new_axes, seed_values
from fedlas.plots.theme import LIGHT, legend_outside
from fedlas.present.table import DASH, Column, Table, column, table_of
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


CAPTION = (
    "t: paired t-test over seeds; Holm: the same, corrected for the number of pairs in the table. needed: seeds for "
    "80 % power if the difference is as large as it looks; from few seeds a rough guess."
)
_HEADS = ("A - B", "seeds", "A", "B", "difference, 95 %", "t", "Holm", "needed")
NARROW = (0, 1, 4, 5, 6, 7)
"""Columns that fit a terminal: pair, seeds, difference, t, Holm, needed."""


def differences_table(rows: Sequence[Difference], metric: str, about: str) -> Table:
    """Return a row for each pair; ``about`` follows the metric's name in the title."""
    shown = column(metric)
    title = f"{f'{shown.title} {shown.unit}'.strip()}, {about}"
    return table_of(_HEADS, [_cells(difference, shown) for difference in rows], title=title)


def sentence(difference: Difference, metric: str) -> str:
    """Say whether a difference is more than chance over seeds."""
    about = column(metric)
    size = about.format(abs(difference.mean)) + (" points" if about.unit else "")
    first, second = difference.pair
    n = len(difference.seeds)
    if difference.holm is None:
        return f"{first} - {second}: {number_of(n, 'seed')} without a spread cannot test the difference of {size}."
    if difference.holm > ALPHA:
        needed = difference.needed
        more = "" if needed is None else f" About {needed} seeds would show one of this size."
        return f"No difference in {about.title} shows between {first} and {second} over {n} seeds.{more}"
    way = "lower" if difference.mean < 0 else "higher"
    p = f"p = {short_p(difference.holm)}".replace("= <", "<")
    return (
        f"The {about.title} of {first} is {way} than that of {second} by {size} ({p}, {n} seeds)."
    )


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


def signed(about: Column, value: float) -> str:
    """Return a difference as text, with its sign."""
    return f"{'-' if value < 0 else '+'}{about.format(abs(value))}"


def _cells(difference: Difference, about: Column) -> list[str]:
    ends = ", ".join(signed(about, end) for end in difference.interval or ())
    return [
        " - ".join(difference.pair),
        str(len(difference.seeds)),
        *(about.format(fmean(values)) for values in difference.values),
        signed(about, difference.mean) + f" [{ends}]" * bool(ends),
        short_p(difference.t),
        short_p(difference.holm),
        str(difference.needed or DASH),
    ]


def differences_figure(by_metric: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw the differences seed by seed, one panel for each metric, one row for each pair.

    Args:
        by_metric: For each metric the differences, the same pairs in the same order.
    """
    rows = max(map(len, by_metric.values()))
    size = (1.1 + 2.6 * len(by_metric), 1.1 + 0.26 * rows)
    axes = new_axes(LIGHT, size=size, panels=len(by_metric))
    for ax, (metric, differences) in zip(axes, by_metric.items(), strict=True):
        about = column(metric)
        scale = 100 if about.unit else 1
        values = {
            " - ".join(d.pair): [scale * (a - b) for a, b in zip(*d.values, strict=True)]
            for d in differences
        }
        label = f"{about.title}{' (points)' * bool(about.unit)}, A - B"
        seed_values(values, label=label, zero=True, ax=ax, legend=False)
        ax.tick_params(axis="y", labelleft=ax is axes[0])
    legend_outside(axes[0], LIGHT, most=3)
    return axes[0].figure


def short_p(value: float | None) -> str:
    """Return three decimals; a dash for None."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
