"""Pre-specified differences between methods of a bench, with tests over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from fedlas._core.check import InputError, suggestion
from fedlas.lab.report.after_auto import AUTO, with_auto
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.summary import Summary
from fedlas.metrics import METRICS
from fedlas.plots import new_axes, seed_values
from fedlas.plots.theme import LIGHT, legend_outside
from fedlas.present.page import write_picture
from fedlas.present.table import DASH, Block, Table, column, table_of
from fedlas.stats import (
    holm,
    mean_interval,
    paired_t_test,
    seeds_needed,
)

LEVEL = 0.05
STAGES = {"raw": "test", "temperature": "test_calibrated", "auto": AUTO}
"""Stages as the command line calls them, by their keys among the metrics of a run."""


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
    holm: float | None
    needed: int | None


CAPTION = (
    "t: paired t-test over seeds; Holm: the same, corrected for the number of pairs in the table. needed: seeds for "
    "80 % power if the difference is as large as it looks; from few seeds a rough guess."
)
_HEADS = ("seeds", "A", "B", "difference, 95 %", "t", "Holm", "needed")
NARROW = (0, 1, 4, 5, 6, 7)
"""Columns that fit a terminal: pair, seeds, difference, t, Holm, needed."""


def compare_methods(
    folder: Path,
    pairs: Sequence[str],
    *,
    metrics: Sequence[str] = ("ece",),
    stage: Literal["raw", "temperature", "auto"] = "raw",
    details: bool = False,
    plot: Path | None = None,
) -> list[Block]:
    """Return sentences and tables on the differences between methods of a bench, with tests over seeds.

    Args:
        folder: Folder of the bench.
        pairs: ``A:B`` each: A minus B.
        metrics: Registered metrics that the runs measured.
        stage: As trained, or after the calibrator of this name; ``auto`` needs predictions, or the file of a report.
        details: Include the means of A and of B.
        plot: Picture to write of the differences, seed by seed, a panel for each metric; the end of its name (.svg,
            .png, .pdf) says of which kind.

    Raises:
        InputError: If the folder holds no finished run, a pair is none, a method or metric is not there, a pair has
            no seed in common, or the picture cannot be written.
    """
    summary = with_auto(collect(folder)) if stage == "auto" else collect(folder)
    if stage == "auto" and not any(run.measured.get(AUTO) for run in summary.runs):
        fix = "Keep the runs' predictions, or use --stage temperature."
        raise InputError("--stage auto needs predictions of every run", str(folder), fix)
    names = [metric.lower() for metric in metrics]
    by_metric = {
        name: method_differences(summary, pairs, metric=name, stage=STAGES[stage]) for name in names
    }
    if plot is not None:
        write_picture(differences_figure(by_metric), plot)
    blocks: list[Block] = []
    for metric, each in by_metric.items():
        when = "as trained" if stage == "raw" else f"after {stage}"
        table = differences_table(each, metric, f"{when}, {summary.recipe}")
        blocks += [
            *(sentence(difference, metric) for difference in each),
            table if details else table.where(NARROW),
        ]
    blocks.append(CAPTION)
    return blocks


def differences_table(rows: Sequence[Difference], metric: str, about: str) -> Table:
    """Return a row for each pair; ``about`` follows the metric's name in the title."""
    title = f"{f'{column(metric).title} {column(metric).unit}'.strip()}, {about}"
    return table_of(
        ["A - B", *_HEADS], [_cells(difference, metric) for difference in rows], title=title
    )


def sentence(difference: Difference, metric: str) -> str:
    """Say whether a difference is more than chance over seeds."""
    about = column(metric)
    size = about.format(abs(difference.mean)) + (" points" if about.unit else "")
    first, second = difference.pair
    n = len(difference.seeds)
    if difference.holm is None:
        return f"{first} - {second}: {n} seed{'s' * (n != 1)} without a spread cannot test the difference of {size}."
    if difference.holm > LEVEL:
        more = (
            ""
            if difference.needed is None
            else f" About {difference.needed} seeds would show one of this size."
        )
        return f"No difference in {about.title} shows between {first} and {second} over {n} seeds.{more}"
    way = "lower" if difference.mean < 0 else "higher"
    p = _p(difference.holm)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
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
    metric = METRICS[metric].name if metric in METRICS else metric
    if metric not in summary.metrics:
        measured = list(summary.metrics)
        fix = (
            suggestion(metric, measured)
            if metric not in METRICS
            else f"They measured {', '.join(measured)}."
        )
        raise InputError("the runs must have measured the metric", repr(metric), fix)
    every = [
        _difference(summary, _methods(summary, pair), metric, stage)
        for pair in dict.fromkeys(pairs)
    ]
    adjusted = iter(holm([difference.t for difference in every if difference.t is not None]))
    return [d if d.t is None else replace(d, holm=next(adjusted)) for d in every]


def _methods(summary: Summary, pair: str) -> tuple[str, str]:
    first, colon, second = pair.partition(":")
    if not colon or not first or not second or first == second:
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
    values = zip(
        summary.seeds, *(summary.values(method, metric, stage) for method in pair), strict=True
    )
    # The tests are paired, so a seed counts only if both methods have a value.
    both = [(seed, a, b) for seed, a, b in values if not (math.isnan(a) or math.isnan(b))]
    if not both:
        raise InputError(
            "a pair must have a seed in common", ":".join(pair), "Run both with the same seeds."
        )
    seeds, first, second = (tuple(column) for column in zip(*both, strict=True))
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    mean = fmean(gaps)
    spread = stdev(gaps) if len(gaps) > 1 else 0.0
    test = paired_t_test(first, second)
    # Without spread the test has nothing to divide by, and there is no interval.
    interval = None
    needed = None
    if test.p_value is not None and spread > 0:
        interval = mean_interval(gaps, confidence_level=1 - LEVEL)
        needed = _needed(mean, spread)
    return Difference(
        pair,
        tuple(int(seed) for seed in seeds),
        (first, second),
        mean,
        interval,
        test.p_value,
        None,
        needed,
    )


def _needed(mean: float, spread: float) -> int | None:
    try:
        return seeds_needed(mean, spread)
    except InputError:  # no difference, or one that no affordable number of seeds finds
        return None


def _cells(difference: Difference, metric: str) -> list[str]:
    percent = column(metric).unit == "%"
    scale, digits = (100, 2) if percent else (1, 4)

    def form(value: float) -> str:
        return f"{value * scale:.{digits}f}"

    def signed(value: float) -> str:
        return f"{value * scale:+.{digits}f}"

    low_high = difference.interval
    return [
        " - ".join(difference.pair),
        str(len(difference.seeds)),
        *(form(fmean(values)) for values in difference.values),
        signed(difference.mean)
        + (f" [{signed(low_high[0])}, {signed(low_high[1])}]" if low_high else ""),
        *(_p(value) for value in (difference.t, difference.holm)),
        DASH if difference.needed is None else str(difference.needed),
    ]


def differences_figure(by_metric: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw the differences seed by seed, one panel for each metric, one row for each pair.

    Args:
        by_metric: For each metric the differences, the same pairs in the same order.
    """
    rows = max(map(len, by_metric.values()))
    axes = new_axes(
        LIGHT, size=(1.1 + 2.6 * len(by_metric), 1.1 + 0.26 * rows), panels=len(by_metric)
    )
    for ax, (metric, rows_of_metric) in zip(axes, by_metric.items(), strict=True):
        scale = 100 if column(metric).unit == "%" else 1
        values = {
            " - ".join(d.pair): [scale * (a - b) for a, b in zip(*d.values, strict=True)]
            for d in rows_of_metric
        }
        unit = " (points)" if scale == 100 else ""
        first = ax is axes[0]
        seed_values(
            values, label=f"{column(metric).title}{unit}, A - B", zero=True, ax=ax, legend=False
        )
        ax.tick_params(axis="y", labelleft=first)
    legend_outside(axes[0], LIGHT, most=3)
    return axes[0].figure


def _p(value: float | None) -> str:
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
