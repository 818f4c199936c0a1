"""A decision in a table: from which probability on one acts, and what that does on the test samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedlas.binary import Decision, Rule
from fedlas.plots import decision_curve
from fedlas.predictions import Predictions
from fedlas.present.metric_tables import stage_heads
from fedlas.present.page import axes, figure
from fedlas.present.positive_class import interval_text
from fedlas.present.table import DASH, Cell, Column, Table, table_of
from fedlas.stats.estimates import Estimate

Decisions = Mapping[str, Sequence[Decision]]
"""Decisions by stage, one for each rule."""
_LEGEND = (
    "Chosen on the held-out predictions, counted on the test predictions. Net benefit: true positives per 1,000, less "
    "false alarms at their weight."
)
_PERCENT = Column("", "%", places=3).format
_SHARE = Column("", "%", places=4).format


def _per_thousand(estimate: Estimate | None) -> tuple[str, str]:
    """Return a net benefit and its interval, with digits for the size of the interval's ends."""
    if estimate is None:
        return DASH, ""
    places = 1 if max(abs(estimate.low), abs(estimate.high)) >= 0.01 else 2
    return _ends(estimate, lambda value: f"{1000 * value:+.{places}f}")


def rules_of(
    cost_ratio: float | None, budget: float | None, recall: float | None, precision: float | None
) -> list[Rule]:
    """Return a rule for each number that is given."""
    values = {"cost_ratio": cost_ratio, "budget": budget, "recall": recall, "precision": precision}
    return [Rule(**{name: value}) for name, value in values.items() if value is not None]


def decision_tables(decisions: Decisions) -> list[Table]:
    """Return a table for each rule: numbers of each stage with their intervals."""
    stages = list(decisions)
    tables: list[Table] = []
    for number, each in enumerate(zip(*decisions.values(), strict=True), start=1):
        level = next((d.recall.confidence_level for d in each if d.recall is not None), 0.95)
        heads = [Column("decision", words=True)]
        for head in stage_heads(stages):
            heads += [Column(head), Column(f"{100 * level:g} % interval")]
        rows = [(Cell(title), *_cells(each, make)) for title, make in _ROWS.items()]
        words = each[0].rule.words
        notes = (_LEGEND,) if number == len(next(iter(decisions.values()))) else ()
        tables.append(Table(tuple(heads), tuple(rows), f"{words[0].upper()}{words[1:]}", notes))
    return tables


def _cells(
    decisions: Sequence[Decision], make: Callable[[Decision], tuple[str, str]]
) -> list[Cell]:
    cells: list[Cell] = []
    for each in decisions:
        cells += map(Cell, (DASH, "") if each.threshold is None else make(each))
    return cells


def _ends(estimate: Estimate | None, form: Callable[[float], str]) -> tuple[str, str]:
    return (DASH, "") if estimate is None else (form(estimate.value), interval_text(estimate, form))


def _scaled(estimate: Estimate | None, number: int) -> str:
    """Return the interval of a share as one of a number of samples."""
    return (
        "" if estimate is None else f"[{estimate.low * number:.0f}, {estimate.high * number:.0f}]"
    )


def _false_alarms(each: Decision) -> tuple[str, str]:
    if each.precision is None:
        return f"{each.false_alarms:,}", ""
    low = (1.0 - each.precision.high) * each.acted
    return f"{each.false_alarms:,}", f"[{low:.0f}, {(1.0 - each.precision.low) * each.acted:.0f}]"


_ROWS: Mapping[str, Callable[[Decision], tuple[str, str]]] = {
    "act from, %": lambda each: (_SHARE(each.threshold), ""),
    "acted on": lambda each: (f"{each.acted:,}", f"of {each.num_samples:,}"),
    "events found": lambda each: (f"{each.events_found:,}", _scaled(each.recall, each.events)),
    "recall %": lambda each: _ends(each.recall, _PERCENT),
    "false alarms": _false_alarms,
    "precision %": lambda each: _ends(each.precision, _PERCENT),
    "net benefit": lambda each: _per_thousand(each.net_benefit),
    "... over acting on all": lambda each: _per_thousand(each.over_all),
}


def rules_table(decisions: Sequence[Decision]) -> Table:
    """Return a row for each rule: from which probability of the event to act, and what that does on test."""
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
        benefit = " ".join(_per_thousand(each.net_benefit))
        rows.append([rule, _SHARE(each.threshold), *counts, benefit])
    heads = ("rule", "act from %", "acts on", "events found", "alarms", "net benefit")
    notes = [
        "Chosen on validation, counted on test. Alarms: false ones. Net benefit: per 1,000, against none."
    ]
    return table_of(heads, rows, title="From which probability on to act", notes=notes)


def decision_words(decision: Decision, event: str) -> str:
    """Return one sentence on a decision."""
    rule = decision.rule.words
    if decision.threshold is None:
        return f"Decision ({rule}): no threshold keeps this on the held-out predictions."
    return (
        f"Decision ({rule}): act from {_SHARE(decision.threshold)} % on: {decision.acted:,} of "
        f"{decision.num_samples:,} samples, {decision.events_found:,} of {decision.events:,} events of {event} found, "
        f"{decision.false_alarms:,} false alarms."
    )


def plain_decisions(decisions: Decisions) -> dict[str, Any]:
    """Return the decisions by stage for JSON."""
    return {stage: [each.plain() for each in row] for stage, row in decisions.items()}


def curve_picture(stages: Mapping[str, Predictions], decisions: Decisions, event: str) -> Any:
    """Draw the decision curve of all stages, with the chosen thresholds, for a page."""
    last = list(decisions.values())[-1] if decisions else ()
    chosen = [each.threshold for each in last if each.threshold is not None]
    names = stage_heads(stages) if len(stages) > 1 else ["model"]
    models = dict(zip(names, stages.values(), strict=True))
    ax = decision_curve(
        models, thresholds="data", marks=chosen, ax=axes(3.1, 3.4), title="Decision curve"
    )
    return figure(ax, f"Decision curve of {event}")
