"""The event of predictions of two classes: its measures, their table and their diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

from fedlas.binary import measures
from fedlas.plots import positive_reliability_diagram
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions, check_predictions
from fedlas.present.metric_tables import interval_head, stage_heads
from fedlas.present.page import axes, figure
from fedlas.present.table import DASH, Cell, Column, Mark, Table
from fedlas.stats import ALPHA
from fedlas.stats.estimates import Estimate, EstimateTable
from fedlas.stats.noise_floor import p_said, rejects

MeasuresByStage = Mapping[str, Mapping[str, Estimate]]
"""Measures by stage, then by name."""
_MOST_STAGES = 3


@dataclass(frozen=True)
class _Row:
    """How a measure is shown.

    Attributes:
        title: Name.
        percent: Whether it is shown in percent.
        places: Decimals of a fraction; two fewer in percent.
        arrow: ``"↓"``, ``"↑"``, or what a calibrated model has, such as ``"→ 1"``.
        main: Whether it is one of the few that are always shown.
        about: One line on what it measures.
    """

    title: str
    percent: bool = False
    places: int = 3
    arrow: str = ""
    main: bool = True
    about: str = ""

    @property
    def column(self) -> Column:
        return Column(
            self.title,
            "%" if self.percent else "",
            self.arrow,
            places=self.places,
            about=self.about,
        )


_UP = "↑"
_DOWN = "↓"
ROWS: Mapping[str, _Row] = {
    "observed": _Row("observed", True, 4, about="Share of the samples in which the event occurs."),
    "expected": _Row("expected", True, 4, about="Mean probability of the event."),
    "observed_to_expected": _Row(
        "observed / expected",
        arrow="→ 1",
        about="Above 1 the event occurs more often than expected.",
    ),
    "in_the_large": _Row(
        "in the large", arrow="→ 0", main=False, about="Shift that all log-odds lack."
    ),
    "slope": _Row(
        "calibration slope", arrow="→ 1", about="Below 1 the probabilities are too extreme."
    ),
    "intercept": _Row(
        "intercept", arrow="→ 0", main=False, about="Correction at a probability of 1/2."
    ),
    "ici": _Row(
        "ICI",
        True,
        4,
        _DOWN,
        about="Mean distance of the probability from the smoothed frequency (loess).",
    ),
    "e50": _Row("E50", True, 4, _DOWN, main=False, about="Median of these distances."),
    "e90": _Row("E90", True, 4, _DOWN, main=False, about="Their 90th percentile."),
    "emax": _Row("Emax", True, 4, _DOWN, main=False, about="Their maximum."),
    "spiegelhalter_z": _Row(
        "Spiegelhalter's z",
        places=2,
        arrow="→ 0",
        main=False,
        about="Standard normal if calibrated.",
    ),
    "nll": _Row(
        "NLL",
        places=4,
        arrow=_DOWN,
        about="Mean negative logarithm of the probability of what happened.",
    ),
    "brier": _Row(
        "Brier score",
        places=4,
        arrow=_DOWN,
        about="Mean squared distance of probability and outcome.",
    ),
    "brier_skill": _Row(
        "Brier scaled",
        arrow=_UP,
        about="1 less the Brier score over that of the prevalence; 0 is no better than that.",
    ),
    "auroc": _Row(
        "AUROC",
        arrow=_UP,
        about="Probability that an event ranks above a sample without one (C statistic).",
    ),
    "average_precision": _Row(
        "average precision",
        arrow=_UP,
        about="Area under precision over recall; by chance the share observed.",
    ),
}
"""Rows of the table, in their order."""


def is_event(predictions: AnyPredictions) -> bool:
    """Return whether the probability of an event is the subject: there are two classes, and both are known."""
    return isinstance(predictions, Predictions) and predictions.num_classes == 2


def measures_by_stage(
    stages: Mapping[str, AnyPredictions], *, replicates: int, confidence_level: float
) -> dict[str, EstimateTable]:
    """Return the measures of two-class predictions by stage; of more than three stages only the first."""
    few = list(stages.items())[: None if len(stages) <= _MOST_STAGES else 1]
    options: dict[str, Any] = {"replicates": replicates, "confidence_level": confidence_level}
    return {name: measures(each, **options) for name, each in few if isinstance(each, Predictions)}


def plain_measures(by_stage: MeasuresByStage) -> dict[str, Any]:
    """Return the measures by stage for JSON; numbers that are not finite are left out."""
    return {
        stage: {name: _finite(each.plain()) for name, each in values.items()}
        for stage, values in by_stage.items()
    }


def _finite(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in content.items() if isinstance(value, str) or isfinite(value)
    }


def event_table(
    by_stage: Mapping[str, Mapping[str, Estimate]], *, title: str, details: bool
) -> Table:
    """Return one row for each measure: of each stage the value with its interval, and that of a calibrated model.

    Args:
        by_stage: Estimates of :data:`ROWS` by stage, then by name.
        title: Above the table.
        details: Whether to show all measures, with p-values.
    """
    names = [name for name, row in ROWS.items() if (row.main or details) and _any(by_stage, name)]
    single = len(by_stage) == 1
    interval = Column(interval_head(by_stage))
    heads = [Column("event", words=True)]
    for head in stage_heads(by_stage):
        heads += [Column(head), interval]
    heads += [Column("floor"), Column("p")] if single else []
    rows = [
        _cells(name, [values.get(name) for values in by_stage.values()], details=details)
        for name in names
    ]
    return Table(tuple(heads), tuple(rows), title)


def _any(by_stage: Mapping[str, Mapping[str, Estimate]], name: str) -> bool:
    return any(name in values for values in by_stage.values())


def _cells(name: str, estimates: list[Estimate | None], *, details: bool) -> tuple[Cell, ...]:
    row = ROWS[name]
    form = row.column.format
    cells = [Cell(row.column.head, tip=row.about)]
    for each in estimates:
        if each is None:
            cells += [Cell(DASH), Cell()]
            continue
        mark: Mark = "" if each.p is None or rejects(each.p, ALPHA) else "calibrated"
        cells.append(Cell(form(each.value), mark=mark, number=each.value))
        below = [] if each.floor is None else [f"floor {form(each.floor)}"]
        below += [] if each.p is None else [p_said(each.p, each.least_p)]
        shown = tuple(below) if details and len(estimates) > 1 else ()
        cells.append(Cell(interval_text(each, form), details=shown))
    each = estimates[0]
    if len(estimates) == 1 and each is not None:
        cells.append(Cell("" if each.floor is None else form(each.floor)))
        cells.append(Cell("" if each.p is None else p_only(each)))
    return tuple(cells)


def interval_text(estimate: Estimate, form: Any) -> str:
    """Return ``"[1.37, 2.31]"``; nothing where an end is not known."""
    return "" if isnan(estimate.low) else f"[{form(estimate.low)}, {form(estimate.high)}]"


def p_only(estimate: Estimate) -> str:
    """Return the p-value without its name, for a column of p-values."""
    return p_said(estimate.p or 0.0, estimate.least_p).removeprefix("p ").removeprefix("= ")


def described(estimates: Mapping[str, Estimate]) -> dict[str, tuple[str, str]]:
    """Return title, and value with interval as text, of each measure by name."""
    texts = {}
    for name, row in ROWS.items():
        if name in estimates:
            form = row.column.format
            each = estimates[name]
            unit = " %" if row.percent else ""
            texts[name] = (
                row.title,
                f"{form(each.value)}{unit} {interval_text(each, form)}".strip(),
            )
    return texts


def event_frame(by_stage: Mapping[str, Mapping[str, Estimate]]) -> list[tuple[Any, ...]]:
    """Return rows of a data frame: stage, measure, value, interval, floor and p-value."""
    return [
        (stage, name, each.value, each.low, each.high, each.floor, each.p)
        for stage, values in by_stage.items()
        for name, each in values.items()
    ]


def positive_diagrams(
    stages: Mapping[str, AnyPredictions], by_stage: MeasuresByStage, *, event: str
) -> list[Any]:
    """Draw a reliability diagram of the event for each stage with a curve, for a page."""
    drawn = {
        name: check_predictions(stages[name])
        for name, values in by_stage.items()
        if "ici" in values
    }
    options: dict[str, Any] = {"scale": "auto", "axes_for": list(drawn.values())}
    return [
        figure(
            positive_reliability_diagram(each, title=name, ax=axes(3.1, 3.9), **options),
            f"Reliability diagram of {event}, {name}",
        )
        for name, each in drawn.items()
    ]
