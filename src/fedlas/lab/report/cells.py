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
from fedlas.present.table import Cell, Column, Mark, Table, column, is_detail
from fedlas.stats import BestMethod


def by_seed(
    result: Result, about: Column, stage: str = "test"
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return values per seed and noise floors per method, in the unit of a column, for a figure."""
    scale = 100 if about.unit else 1
    values = {m: [scale * v for v in result.values(m, about.metric, stage)] for m in result.methods}
    floors = {m: noise_of(result, m, about, stage).floor_value for m in result.methods if values[m]}
    return values, {m: scale * floor for m, floor in floors.items() if floor is not None}


def noise_of(result: Result, method: str, about: Column, stage: str = "test") -> NoiseText:
    """Return interval, noise floor and calibration test of a method as text."""
    return noise_text(
        result.summary.estimates(method, about.metric, stage, seeds=result.seeds[method]),
        about.format,
    )


def mark(result: Result, method: str, metric: str, stage: str = "test") -> Mark:
    """Return the mark of a method; empty below :data:`FEWEST_SEEDS` seeds."""
    comparison = result.comparisons.get((metric, stage))
    if comparison is None or comparison.best is None or comparison.n < FEWEST_SEEDS:
        return ""
    if len(result.summary.tested) == 1:  # it has nothing to be compared with
        return ""
    apart = method in result.summary.incomplete(metric, stage) and bool(
        result.values(method, metric, stage)
    )
    return "untested" if apart else mark_of(method, comparison)


def cell_of(result: Result, method: str, about: Column, stage: str = "test") -> Cell:
    """Return a cell with mean, deviation and mark; interval, noise floor and p-value are its details."""
    values = result.values(method, about.metric, stage)
    comparison = result.comparisons.get((about.metric, stage))
    p_value = comparison.p_values.get(method) if comparison else None
    noise = noise_of(result, method, about, stage)
    mean = fmean(values) if values else None
    return Cell(
        about.format(mean),
        about.format(stdev(values)) if len(values) > 1 else "",
        mark(result, method, about.metric, stage),
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
        metrics = sorted(shown, key=is_detail)
    columns = [column(name, shown=not is_detail(name)) for name in metrics]
    columns = [about if about.unit else replace(about, places=places) for about in columns]
    rows = [
        (
            Cell(method),
            Cell(str(len(result.seeds[method]))),
            *(cell_of(result, method, about, stage) for about in columns),
        )
        for method in result.methods
    ]
    return Table((Column("Method", words=True), Column("Seeds"), *columns), tuple(rows), title)


# A page, its text and its legends ask for the tables of one result, one after the other.
@lru_cache(maxsize=1)
def tables(result: Result) -> tuple[tuple[str, Table], ...]:
    """Return each measured stage with its table."""
    return tuple(
        (stage, result_table(result, stage, title=f"{when.capitalize()} temperature scaling"))
        for stage, when in STAGES.items()
        if any(run.measured.get(stage) for run in result.summary.runs)
    )


def marks(result: Result) -> frozenset[Mark]:
    """Return the marks that occur in the tables."""
    return frozenset(cell.mark for _, table in tables(result) for row in table.rows for cell in row)


@lru_cache(maxsize=1)
def all_noise(result: Result) -> tuple[NoiseText, ...]:
    """Return interval, noise floor and calibration test of every method, metric and stage."""
    return tuple(
        noise_of(result, method, about, stage)
        for stage, table in tables(result)
        for about in table.columns
        if about.metric
        for method in result.methods
    )


def mark_of(method: str, comparison: BestMethod) -> Mark:
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


def run_cell(run: FinishedRun, about: Column, stage: str = "test") -> Cell:
    """Return the value of one run, with its interval, noise floor and p-value."""
    value = run.measured[stage].get(about.metric)
    estimate = run.estimates.get(about.metric, stage) if run.estimates else None
    noise = noise_text([estimate] if estimate else [], about.format)
    return Cell(about.format(value), details=noise.lines, number=value)
