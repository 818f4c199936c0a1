"""Tables and forest plots of an event's calibration and discrimination by cluster."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from math import isnan
from typing import TYPE_CHECKING, Any

from fedlas._core.text import join_words
from fedlas.binary.between_clusters import MIN_EVENTS, SCALES, Heterogeneity
from fedlas.present.metric_tables import slopes_left_out_note
from fedlas.present.positive_class import format_interval
from fedlas.present.table import DASH, Cell, Column, Table
from fedlas.stats import ALPHA, RandomEffects
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import format_p, format_p_digits, is_significant

if TYPE_CHECKING:
    from fedlas.stats import RandomEffects

_MAX_CLUSTERS = 40
"""Clusters that a forest plot shows."""
_TITLES = {"observed_to_expected": "O/E", "slope": "slope", "auroc": "AUROC"}
_IDEAL = {"observed_to_expected": 1.0, "slope": 1.0}
_LEGEND = (
    "Mean of the clusters' true values, each cluster alike; the table of all samples counts samples. O/E: Poisson "
    "model with a random intercept (adjusted profile likelihood), Wald's interval; slope and AUROC: normal model "
    "(REML), Hartung and Knapp's interval. Prediction: interval for a further cluster. Tau: standard deviation of the "
    "true values (of log O/E, of the log-odds of AUROC). I²: share of the differences that is not chance. p: of the "
    "hypothesis that all clusters have one value."
)


def clusters_sentence(clusters: Heterogeneity) -> str:
    """Return a sentence on the mean O/E of clusters, and on the measures in which they differ, for a headline."""
    form = Column("", places=2).format
    ratio = clusters.summary.get("observed_to_expected")
    parts = []
    if ratio is not None:
        parts = [f"mean O/E {form(ratio.mean)} [{form(ratio.low)}, {form(ratio.high)}]"]
        if not isnan(ratio.prediction_low):
            ends = f"[{form(ratio.prediction_low)}, {form(ratio.prediction_high)}]"
            parts.append(f"a further one {ends}")
    tested = {
        _TITLES[name]: format_p(each.p, None)
        for name, each in clusters.summary.items()
        if is_significant(each.p, ALPHA)
    }
    differ = join_words([f"{title} ({p})" for title, p in tested.items()])
    names = join_words([_TITLES[name] for name in clusters.summary])
    if differ:
        parts.append(f"they differ in {differ}")
    elif names:
        parts.append(f"no difference shows in {names}")
    count = f"{len(clusters.clusters):,} clusters"
    return f"{count}: {'; '.join(parts) or 'no measure has a mean'}."


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
    """Return notes on the clusters that are not in a mean, or an empty list if all are in all of them."""
    total = len(clusters.clusters)
    counts = {
        name: clusters.summary[name].count if name in clusters.summary else 0 for name in SCALES
    }
    notes = []
    if counts["observed_to_expected"] < total:
        num_missing = total - counts["observed_to_expected"]
        why = "they expect no event" if counts["observed_to_expected"] else "no event occurred"
        notes.append(f"The mean O/E leaves out {num_missing:,} of {total:,} clusters: {why}.")
    parts = [
        f"{_TITLES[name]} {total - counts[name]:,}"
        for name in ("slope", "auroc")
        if counts[name] < total
    ]
    if parts:
        notes.append(
            f"The means leave out, of {total:,} clusters, {', '.join(parts)}: fewer than {MIN_EVENTS} events or "
            f"non-events, which would bias them, or no estimate."
        )
    return notes


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
    left_out = slopes_left_out_note(each.slope for each in clusters.clusters.values())
    return Table(tuple(heads), tuple(rows), title, (*notes, *left_out))


def draw_forest_plots(by_stage: Mapping[str, Heterogeneity]) -> list[Any]:
    """Draw a forest plot per measure of the last stage for a page: clusters in its mean, of the 40 largest."""
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
            if name in shown
            and (estimate := getattr(each, measure)) is not None
            and (measure == "observed_to_expected" or each.has_enough_events)
        }
        if not rows:
            continue
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
