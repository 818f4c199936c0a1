"""Tables and forest plots of an event's calibration and discrimination by cluster."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from math import isnan
from typing import TYPE_CHECKING, Any

from fedlas.binary.between_clusters import SCALES, Heterogeneity
from fedlas.present.positive_class import format_interval
from fedlas.present.table import DASH, Cell, Column, Table
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import format_p_digits

if TYPE_CHECKING:
    from fedlas.stats import RandomEffects

_MAX_CLUSTERS = 40
"""Clusters that a forest plot shows."""
_TITLES = {"observed_to_expected": "O/E", "slope": "slope", "auroc": "AUROC"}
_IDEAL = {"observed_to_expected": 1.0, "slope": 1.0}
_LEGEND = (
    "Mean of the clusters' true values (random effects by REML) with Hartung and Knapp's interval. Prediction: "
    "interval for a further cluster. Tau: standard deviation of the true values (of log O/E, of the log-odds of "
    "AUROC). I²: share of the differences that is not chance."
)


def summary_table(clusters: Heterogeneity, *, title: str) -> Table:
    """Return a table with a row per measure: random-effects mean, prediction interval, tau and I-squared."""
    level = next((each.confidence_level for each in clusters.summary.values()), 0.95)
    heads = ("mean", f"{100 * level:g} % interval", "prediction", "tau", "I² %", "p", "clusters")
    rows = [
        (Cell(_TITLES[name]), *_summary_cells(name, each))
        for name, each in clusters.summary.items()
    ]
    columns = (Column("measure", words=True), *map(Column, heads))
    return Table(columns, tuple(rows), title, (_LEGEND, *_missing_measures_note(clusters)))


def _summary_cells(name: str, each: RandomEffects) -> list[Cell]:
    form = Column("", places=3 if name == "auroc" else 2).format
    interval = format_interval(Estimate(each.mean, each.low, each.high), form)
    further = Estimate(each.mean, each.prediction_low, each.prediction_high)
    percent = Column("", "%", places=2).format
    return [
        Cell(form(each.mean), number=each.mean),
        Cell(interval),
        Cell(DASH if isnan(further.low) else format_interval(further, form)),
        Cell(Column("", places=3).format(each.tau), number=each.tau),
        Cell(percent(each.i_squared), number=each.i_squared),
        Cell(format_p_digits(each.p), number=each.p),
        Cell(f"{each.count:,}", number=each.count),
    ]


def _missing_measures_note(clusters: Heterogeneity) -> list[str]:
    """Return a note on the clusters that lack a measure, or an empty list if none do."""
    missing = {
        name: sum(getattr(each, name) is None for each in clusters.clusters.values())
        for name in SCALES
    }
    parts = [f"{count:,} without {_TITLES[name]}" for name, count in missing.items() if count]
    if not parts:
        return []
    return [
        f"Of {len(clusters.clusters):,} clusters, {', '.join(parts)}: too few events or non-events."
    ]


def clusters_table(clusters: Heterogeneity, *, title: str, max_rows: int | None = None) -> Table:
    """Return a table with a row per cluster, at most ``max_rows``."""
    heads = [Column("cluster", words=True), Column("n"), Column("events")]
    heads += [Column(_TITLES[name]) for name in SCALES]
    rows = []
    for name, each in islice(clusters.clusters.items(), max_rows):
        cells = [Cell(str(name)), Cell(f"{each.num_samples:,}"), Cell(f"{each.events:,}")]
        for measure in SCALES:
            estimate = getattr(each, measure)
            form = Column("", places=2).format
            cells.append(
                Cell(DASH)
                if estimate is None
                else Cell(
                    form(estimate.value),
                    extra=format_interval(estimate, form),
                    number=estimate.value,
                )
            )
        rows.append(tuple(cells))
    more = len(clusters.clusters) - len(rows)
    notes = (f"{more:,} further clusters: json(), or --json.",) if more else ()
    return Table(tuple(heads), tuple(rows), title, notes)


def draw_forest_plots(by_stage: Mapping[str, Heterogeneity]) -> list[Any]:
    """Draw a forest plot per measure of the last stage for a page, with at most 40 clusters, the largest."""
    from fedlas.plots import forest_plot
    from fedlas.present.page import new_page_axes, to_inline_svg

    if not by_stage:
        return []
    clusters = list(by_stage.values())[-1]
    largest = sorted(clusters.clusters.items(), key=lambda pair: -pair[1].num_samples)[
        :_MAX_CLUSTERS
    ]
    shown = {name for name, _ in largest}
    pictures = []
    for measure, summary in clusters.summary.items():
        title = _TITLES[measure]
        rows: dict[str, Estimate] = {
            str(name): estimate
            for name, each in clusters.clusters.items()
            if name in shown and (estimate := getattr(each, measure)) is not None
        }
        ax = forest_plot(
            rows,
            summary,
            ideal=_IDEAL.get(measure),
            is_log=SCALES[measure] == "log",
            ax=new_page_axes(3.1, 0.9 + 0.19 * (len(rows) + 2)),
            title=title,
        )
        pictures.append(to_inline_svg(ax, f"Forest plot of {title} by cluster"))
    return pictures


def cluster_tables(by_stage: Mapping[str, Heterogeneity], *, max_rows: int | None) -> list[Table]:
    """Return the tables of random-effects means and of clusters of each stage, the last stage first.

    Args:
        by_stage: Measures of clusters by stage.
        max_rows: Clusters of each stage that are listed; None for no list.
    """
    tables = []
    for stage, clusters in reversed(list(by_stage.items())):
        stage_suffix = "" if len(by_stage) == 1 else f", {stage}"
        tables.append(summary_table(clusters, title=f"Differences between clusters{stage_suffix}"))
        if max_rows is not None:
            tables.append(
                clusters_table(clusters, title=f"Clusters{stage_suffix}", max_rows=max_rows)
            )
    return tables


def clusters_to_dict(by_stage: Mapping[str, Heterogeneity]) -> dict[str, Any]:
    """Return the measures of clusters by stage as a dict for JSON, without missing values."""
    return {
        stage: {
            "summary": {
                name: _fields_to_dict(vars(each)) for name, each in clusters.summary.items()
            },
            "clusters": {
                str(name): _fields_to_dict(vars(each)) for name, each in clusters.clusters.items()
            },
        }
        for stage, clusters in by_stage.items()
    }


def _fields_to_dict(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.to_dict() if isinstance(value, Estimate) else value
        for name, value in content.items()
        if value is not None and value == value  # not NaN
    }
