"""Tables, sentences and plots of the event of two classes: its measures, and decisions by a threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from fedlas._core.text import join_words
from fedlas.metrics.metric import event_measures
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import AnyPredictions, require_predictions
from fedlas.present.metric_tables import interval_header, left_out_text, stage_headers
from fedlas.present.table import DASH, Cell, Column, Mark, Table, make_table, metric_column
from fedlas.stats import ALPHA
from fedlas.stats.estimates import Estimate, EstimateTable
from fedlas.stats.noise_floor import format_p, is_significant

if TYPE_CHECKING:
    from fedlas.binary import Decision, Rule

MeasuresByStage = Mapping[str, Mapping[str, Estimate]]
"""Measures by stage, then by name."""
_MAX_STAGES = 3


def has_event(predictions: AnyPredictions) -> bool:
    """Return whether the predictions are about an event: two classes, with probabilities of both."""
    return isinstance(predictions, Predictions) and predictions.num_classes == 2


def measures_by_stage(
    stages: Mapping[str, AnyPredictions], *, replicates: int, confidence_level: float
) -> dict[str, EstimateTable]:
    """Return the event's measures by stage; with more than three stages only for the first stage."""
    from fedlas.binary import measures

    few = list(stages.items())[: None if len(stages) <= _MAX_STAGES else 1]
    options: dict[str, Any] = {"replicates": replicates, "confidence_level": confidence_level}
    return {name: measures(each, **options) for name, each in few if isinstance(each, Predictions)}


def measures_to_dict(by_stage: MeasuresByStage) -> dict[str, Any]:
    """Return the measures by stage as a dict for JSON, without values that are not finite."""
    return {
        stage: {name: estimate_to_dict(each) for name, each in values.items()}
        for stage, values in by_stage.items()
    }


def estimate_to_dict(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as a dict for JSON, without values that are not finite."""
    return {
        key: value
        for key, value in estimate.to_dict().items()
        if isinstance(value, str) or isfinite(value)
    }


def event_table(
    by_stage: Mapping[str, Mapping[str, Estimate]], *, title: str, details: bool
) -> Table:
    """Return a table with a row per measure of the event and columns of values and intervals per stage.

    Args:
        by_stage: Estimates of the measures of an event by stage, then by name.
        title: Above the table.
        details: Whether to show all measures, with p-values.
    """
    names = [
        name
        for name, row in event_measures().items()
        if (details or not row.detail) and _is_measured(by_stage, name)
    ]
    single = len(by_stage) == 1
    interval = Column(interval_header(by_stage))
    heads = [Column("event", words=True)]
    for head in stage_headers(by_stage):
        heads += [Column(head), interval]
    heads += [Column("floor"), Column("p")] if single else []
    rows = [
        _measure_cells(name, [values.get(name) for values in by_stage.values()], details=details)
        for name in names
    ]
    return Table(tuple(heads), tuple(rows), title, left_out_notes(by_stage))


def left_out_notes(by_stage: MeasuresByStage) -> tuple[str, ...]:
    """Return a note per stage on the samples that measures of log-odds leave out, where there are any."""
    notes = []
    for stage, values in by_stage.items():
        counted = {name: each.left_out for name, each in values.items() if each.left_out}
        if counted:
            count = max(counted.values())
            titles = join_words([metric_column(name, event=True).title for name in counted])
            where = f"{stage}: " if len(by_stage) > 1 else ""
            verb = "is" if count == 1 else "are"
            notes.append(f"{where}{left_out_text(count)} {verb} left out of {titles}.")
    return tuple(notes)


def _is_measured(by_stage: Mapping[str, Mapping[str, Estimate]], name: str) -> bool:
    return any(name in values for values in by_stage.values())


def _measure_cells(
    name: str, estimates: list[Estimate | None], *, details: bool
) -> tuple[Cell, ...]:
    about = metric_column(name, event=True)
    form = about.format
    cells = [Cell(about.head, tip=about.about)]
    for each in estimates:
        if each is None:
            cells += [Cell(DASH), Cell()]
            continue
        mark: Mark = "" if each.p is None or is_significant(each.p, ALPHA) else "calibrated"
        cells.append(Cell(form(each.value), mark=mark, number=each.value))
        below = [] if each.floor is None else [f"floor {form(each.floor)}"]
        below += [] if each.p is None else [format_p(each.p, each.least_p)]
        shown = tuple(below) if details and len(estimates) > 1 else ()
        cells.append(Cell(format_interval(each, form), details=shown))
    each = estimates[0]
    if len(estimates) == 1 and each is not None:
        cells.append(Cell("" if each.floor is None else form(each.floor)))
        cells.append(Cell("" if each.p is None else format_bare_p(each)))
    return tuple(cells)


def format_interval(estimate: Estimate, format_number: Any) -> str:
    """Return an interval as text, such as ``"[1.37, 2.31]"``; empty if it is unknown."""
    return (
        ""
        if isnan(estimate.low)
        else f"[{format_number(estimate.low)}, {format_number(estimate.high)}]"
    )


def format_bare_p(estimate: Estimate) -> str:
    """Return the p-value without ``p`` and ``=``, for a column of p-values."""
    return format_p(estimate.p or 0.0, estimate.least_p).removeprefix("p ").removeprefix("= ")


def titled_values(estimates: Mapping[str, Estimate]) -> dict[str, tuple[str, str]]:
    """Return the title, and the value with its interval as text, of each measure by name."""
    texts = {}
    for name in event_measures():
        if name in estimates:
            about = metric_column(name, event=True)
            each = estimates[name]
            unit = " %" if about.unit else ""
            value = f"{about.format(each.value)}{unit} {format_interval(each, about.format)}"
            texts[name] = about.title, value.strip()
    return texts


def draw_event_reliability(
    stages: Mapping[str, AnyPredictions], by_stage: MeasuresByStage, *, event: str
) -> list[Any]:
    """Draw a reliability diagram of the event per stage for a page, for stages that have a calibration curve."""
    from fedlas.plots import positive_reliability_diagram
    from fedlas.present.page import new_page_axes, to_inline_svg

    axes_of = {
        name: require_predictions(stages[name])
        for name, values in by_stage.items()
        if "ici" in values
    }
    options: dict[str, Any] = {"scale": "auto", "axes_for": list(axes_of.values())}
    return [
        to_inline_svg(
            positive_reliability_diagram(each, title=name, ax=new_page_axes(3.1, 3.6), **options),
            f"Reliability diagram of {event}, {name}",
        )
        for name, each in axes_of.items()
    ]


Decisions = Mapping[str, Sequence["Decision"]]
"""Decisions by stage, one for each rule."""
_LEGEND = (
    "Thresholds are chosen on held-out predictions and evaluated on test predictions. Net benefit: true positives per "
    "1,000 samples, minus weighted false alarms."
)
_format_rate = Column("", "%", places=3).format
_format_threshold = Column("", "%", places=4).format


def _format_net_benefit(estimate: Estimate | None) -> tuple[str, str]:
    """Return net benefit per 1,000 samples and its interval as text."""
    if estimate is None:
        return DASH, ""
    places = 1 if max(abs(estimate.low), abs(estimate.high)) >= 0.01 else 2
    return _value_and_interval(estimate, lambda value: f"{1000 * value:+.{places}f}")


def make_rules(
    cost_ratio: float | None, budget: float | None, recall: float | None, precision: float | None
) -> list[Rule]:
    """Return a decision rule for each argument that is not None."""
    from fedlas.binary import Rule

    values = {"cost_ratio": cost_ratio, "budget": budget, "recall": recall, "precision": precision}
    return [Rule(**{name: value}) for name, value in values.items() if value is not None]


def decision_tables(decisions: Decisions) -> list[Table]:
    """Return a table per rule, with the numbers and intervals of each stage."""
    stages = list(decisions)
    tables: list[Table] = []
    for number, each in enumerate(zip(*decisions.values(), strict=True), start=1):
        level = next((d.recall.confidence_level for d in each if d.recall is not None), 0.95)
        heads = [Column("decision", words=True)]
        for head in stage_headers(stages):
            heads += [Column(head), Column(f"{100 * level:g} % interval")]
        rows = [
            (Cell(title), *_decision_cells(each, make)) for title, make in _DECISION_ROWS.items()
        ]
        words = each[0].rule.words
        notes = (_LEGEND,) if number == len(next(iter(decisions.values()))) else ()
        tables.append(Table(tuple(heads), tuple(rows), f"{words[0].upper()}{words[1:]}", notes))
    return tables


def _decision_cells(
    decisions: Sequence[Decision], format_entry: Callable[[Decision], tuple[str, str]]
) -> list[Cell]:
    cells: list[Cell] = []
    for each in decisions:
        cells += map(Cell, (DASH, "") if each.threshold is None else format_entry(each))
    return cells


def _value_and_interval(
    estimate: Estimate | None, format_number: Callable[[float], str]
) -> tuple[str, str]:
    return (
        (DASH, "")
        if estimate is None
        else (format_number(estimate.value), format_interval(estimate, format_number))
    )


def _count_interval(estimate: Estimate | None, count: int) -> str:
    """Return the interval of a share, scaled to counts, as text."""
    return "" if estimate is None else format_interval(estimate, lambda end: f"{end * count:.0f}")


def _false_alarm_cells(each: Decision) -> tuple[str, str]:
    if each.precision is None:
        return f"{each.false_alarms:,}", ""
    share = replace(each.precision, low=1.0 - each.precision.high, high=1.0 - each.precision.low)
    return f"{each.false_alarms:,}", _count_interval(share, each.acted)


_DECISION_ROWS: Mapping[str, Callable[[Decision], tuple[str, str]]] = {
    "act from, %": lambda each: (_format_threshold(each.threshold), ""),
    "acted on": lambda each: (f"{each.acted:,}", f"of {each.num_samples:,}"),
    "events found": lambda each: (
        f"{each.events_found:,}",
        _count_interval(each.recall, each.events),
    ),
    "recall %": lambda each: _value_and_interval(each.recall, _format_rate),
    "false alarms": _false_alarm_cells,
    "precision %": lambda each: _value_and_interval(each.precision, _format_rate),
    "net benefit": lambda each: _format_net_benefit(each.net_benefit),
    "... over acting on all": lambda each: _format_net_benefit(each.over_all),
}


def rules_table(decisions: Sequence[Decision]) -> Table:
    """Return a table with a row per rule: the threshold, and what acting from it on does on the test samples."""
    rows = []
    for each in decisions:
        rule = f"{each.rule.name.replace('_', ' ')} {each.rule.value:g}"
        if each.threshold is None:
            rows.append([rule, "none", *[DASH] * 4])
            continue
        counts = [
            f"{each.acted:,}",
            f"{each.events_found:,} of {each.events:,}",
            f"{each.false_alarms:,}",
        ]
        benefit = " ".join(_format_net_benefit(each.net_benefit))
        rows.append([rule, _format_threshold(each.threshold), *counts, benefit])
    heads = ("rule", "act from %", "acts on", "events found", "false alarms", "net benefit")
    notes = [
        "Chosen on validation, counted on test. Net benefit: per 1,000 samples, relative to acting on none."
    ]
    return make_table(heads, rows, title="Decision thresholds", notes=notes)


def decision_sentence(decision: Decision, event: str) -> str:
    """Return a sentence on a decision: its rule, its threshold and the resulting counts."""
    rule = decision.rule.words
    if decision.threshold is None:
        return f"Decision ({rule}): no threshold satisfies this rule on the held-out predictions."
    return (
        f"Decision ({rule}): act from {_format_threshold(decision.threshold)} % on: {decision.acted:,} of "
        f"{decision.num_samples:,} samples, {decision.events_found:,} of {decision.events:,} events of {event} found, "
        f"{decision.false_alarms:,} false alarms."
    )


def decisions_to_dict(decisions: Decisions) -> dict[str, Any]:
    """Return the decisions by stage as a dict for JSON."""
    return {stage: [each.to_dict() for each in row] for stage, row in decisions.items()}


def draw_decision_curves(
    stages: Mapping[str, Predictions], decisions: Decisions, event: str
) -> Any:
    """Draw the decision curves of all stages with the chosen thresholds, for a page."""
    from fedlas.plots import decision_curve
    from fedlas.present.page import new_page_axes, to_inline_svg

    last = list(decisions.values())[-1] if decisions else ()
    chosen = [each.threshold for each in last if each.threshold is not None]
    names = stage_headers(stages) if len(stages) > 1 else ["model"]
    models = dict(zip(names, stages.values(), strict=True))
    ax = decision_curve(
        models, thresholds="data", marks=chosen, ax=new_page_axes(3.1, 3.4), title="Decision curve"
    )
    return to_inline_svg(ax, f"Decision curve of {event}")


def draw_event_plots(
    stages: Mapping[str, Predictions], decisions: Decisions, event: str
) -> list[Any]:
    """Draw the decision curves of all stages and the risk distribution of the last stage, for a page."""
    from fedlas.plots import risk_distribution
    from fedlas.present.page import new_page_axes, to_inline_svg

    pictures = [draw_decision_curves(stages, decisions, event)]
    last = list(stages.values())[-1]
    if len(last.tensors().target.unique()) > 1:
        ax = risk_distribution(last, ax=new_page_axes(3.1, 2.9), title="Risk by outcome")
        pictures.append(to_inline_svg(ax, f"Distribution of the probability of {event} by outcome"))
    return pictures
