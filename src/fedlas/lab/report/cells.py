"""Cells, marks and tables of a result: mean and deviation over seeds, interval, noise floor and p-value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import fmean, stdev

from fedlas.lab.results.result import FEWEST_SEEDS, Result
from fedlas.lab.runs.summary import STAGES, FinishedRun
from fedlas.metrics import METRICS
from fedlas.present.metric_tables import NoiseText, noise_text
from fedlas.present.table import Cell, Column, Mark, Table, is_detail_metric, metric_column
from fedlas.stats import BestMethod


def values_by_seed(
    result: Result, metric_column: Column, stage: str = "test"
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return values per seed and noise floors per method, in the unit of a column, for a figure."""
    scale = 100 if metric_column.unit else 1
    values = {
        m: [scale * v for v in result.values(m, metric_column.metric, stage)]
        for m in result.methods
    }
    floors = {
        m: method_noise(result, m, metric_column, stage).floor_value
        for m in result.methods
        if values[m]
    }
    return values, {m: scale * floor for m, floor in floors.items() if floor is not None}


def method_noise(
    result: Result, method: str, metric_column: Column, stage: str = "test"
) -> NoiseText:
    """Return interval, noise floor and calibration test of a method as text."""
    return noise_text(
        result.summary.estimates(method, metric_column.metric, stage, seeds=result.seeds[method]),
        metric_column.format,
    )


def method_mark(result: Result, method: str, metric: str, stage: str = "test") -> Mark:
    """Return the mark of a method; empty below :data:`FEWEST_SEEDS` seeds."""
    comparison = result.comparisons.get((metric, stage))
    if comparison is None or comparison.best is None or comparison.n < FEWEST_SEEDS:
        return ""
    if len(result.summary.tested_methods) == 1:  # it has nothing to be compared with
        return ""
    apart = method in result.summary.incomplete_methods(metric, stage) and bool(
        result.values(method, metric, stage)
    )
    return "untested" if apart else comparison_mark(method, comparison)


def method_cell(result: Result, method: str, metric_column: Column, stage: str = "test") -> Cell:
    """Return a cell with mean, deviation and mark; interval, noise floor and p-value are its details."""
    values = result.values(method, metric_column.metric, stage)
    comparison = result.comparisons.get((metric_column.metric, stage))
    p_value = comparison.p_values.get(method) if comparison else None
    noise = method_noise(result, method, metric_column, stage)
    mean = fmean(values) if values else None
    return Cell(
        metric_column.format(mean),
        metric_column.format(stdev(values)) if len(values) > 1 else "",
        method_mark(result, method, metric_column.metric, stage),
        details=noise.lines,
        tip="" if p_value is None else f"p = {p_value:.2g} against the best, Holm",
        number=mean,
    )


def result_table(
    result: Result,
    stage: str = "test",
    metrics: Sequence[str] | None = None,
    *,
    title: str = "",
    places: int = 4,
) -> Table:
    """Return one row per method and one column per metric.

    Args:
        result: Values by method, seed and stage.
        stage: ``"test"`` or ``"test_calibrated"``.
        metrics: None for all measured metrics; metrics registered as details come last and are folded at first.
        title: As in :class:`~fedlas.present.table.Table`.
        places: Decimals of numbers that are not in percent.
    """
    if metrics is None:
        shown = (
            name
            for name in result.summary.metrics
            if name not in METRICS or result.classes >= METRICS[name].fewest_classes
        )
        metrics = sorted(shown, key=is_detail_metric)
    columns = [metric_column(name, shown=not is_detail_metric(name)) for name in metrics]
    columns = [about if about.unit else replace(about, places=places) for about in columns]
    rows = [
        (
            Cell(method),
            Cell(str(len(result.seeds[method]))),
            *(method_cell(result, method, about, stage) for about in columns),
        )
        for method in result.methods
    ]
    return Table((Column("Method", words=True), Column("Seeds"), *columns), tuple(rows), title)


# A page, its text and its legends ask for the tables of one result, one after the other.
@lru_cache(maxsize=1)
def stage_tables(result: Result) -> tuple[tuple[str, Table], ...]:
    """Return each measured stage with its table."""
    return tuple(
        (stage, result_table(result, stage, title=f"{when.capitalize()} temperature scaling"))
        for stage, when in STAGES.items()
        if any(run.measured.get(stage) for run in result.summary.runs)
    )


def shown_marks(result: Result) -> frozenset[Mark]:
    """Return the marks that occur in the tables."""
    return frozenset(
        cell.mark for _, table in stage_tables(result) for row in table.rows for cell in row
    )


@lru_cache(maxsize=1)
def all_noise_texts(result: Result) -> tuple[NoiseText, ...]:
    """Return interval, noise floor and calibration test of every method, metric and stage."""
    return tuple(
        method_noise(result, method, about, stage)
        for stage, table in stage_tables(result)
        for about in table.columns
        if about.metric
        for method in result.methods
    )


def comparison_mark(method: str, comparison: BestMethod) -> Mark:
    """Return the mark of a method from a comparison with the best method."""
    if method == comparison.best:
        return "leading" if comparison.not_distinguishable or comparison.untested else "best"
    if method in comparison.not_distinguishable:
        return "same"
    return (
        "worse"
        if method in comparison.distinguishable
        else "untested"
        if method in comparison.untested
        else ""
    )


def run_cell(run: FinishedRun, metric_column: Column, stage: str = "test") -> Cell:
    """Return the value of one run, with its interval, noise floor and p-value."""
    value = run.measured[stage].get(metric_column.metric)
    estimate = run.estimates.get(metric_column.metric, stage) if run.estimates else None
    noise = noise_text([estimate] if estimate else [], metric_column.format)
    return Cell(metric_column.format(value), details=noise.lines, number=value)
