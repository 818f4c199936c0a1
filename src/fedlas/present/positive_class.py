"""The positive class of predictions of two classes: measures, their table and diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

from fedlas.binary import measures
from fedlas.plots import positive_reliability_diagram
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions, check_predictions
from fedlas.present.page import axes, figure
from fedlas.present.table import Column, Table, table_of
from fedlas.stats.estimates import Estimate

MeasuresByStage = Mapping[str, Mapping[str, Estimate]]
"""Measures by stage, then by name."""
REPLICATES = 199
"""At most so many of ICI, E50 and E90: they take longer than other metrics."""
_MOST_STAGES = 3

# Name, title, unit, decimals, what a calibrated model has, and whether it is one of the few that are always shown.
_ROWS: tuple[tuple[str, str, str, int, str, bool], ...] = (
    ("slope", "calibration slope", "", 3, "1", True),
    ("intercept", "calibration intercept", "", 3, "0", False),
    ("in_the_large", "calibration in the large", "", 3, "0", True),
    ("observed_to_expected", "observed / expected", "", 3, "1", False),
    ("ici", "ICI %", "%", 4, "", True),
    ("e50", "E50 %", "%", 4, "", False),
    ("e90", "E90 %", "%", 4, "", False),
    ("brier_skill", "Brier skill", "", 3, "", True),
)


def measures_by_stage(stages: Mapping[str, AnyPredictions], *, replicates: int) -> dict[str, dict[str, Estimate]]:
    """Return the measures of two-class predictions by stage; of more than three stages only the first."""
    # The measures count every sample once, so weighted predictions have none.
    few = list(stages.items())[: None if len(stages) <= _MOST_STAGES else 1]
    binary = {n: p for n, p in few if isinstance(p, Predictions) and p.weights is None and p.num_classes == 2}
    by_stage = {name: measures(each, replicates=min(replicates, REPLICATES)) for name, each in binary.items()}
    return {name: values for name, values in by_stage.items() if values}


def plain_measures(by_stage: MeasuresByStage) -> dict[str, Any]:
    """Return the measures by stage for JSON; numbers that are not finite are left out."""
    return {
        stage: {name: {k: v for k, v in each.plain().items() if isfinite(v)} for name, each in values.items()}
        for stage, values in by_stage.items()
    }


def measures_table(by_stage: MeasuresByStage, *, details: bool) -> Table:
    """Return one row for each measure; for one stage with interval and the value of a calibrated model."""
    rows = []
    for name, title, unit, places, ideal, main in _ROWS:
        estimates = [values.get(name) for values in by_stage.values()]
        if not (main or details) or not any(estimates):
            continue
        about = Column(title, unit, places=places)
        cells = [about.format(each.value if each else None) for each in estimates]
        if len(estimates) == 1 and estimates[0] is not None:
            low, high, floor = estimates[0].low, estimates[0].high, estimates[0].floor
            cells += ["" if isnan(low) else f"[{about.format(low)}, {about.format(high)}]"]
            cells += [ideal if floor is None else f"floor {about.format(floor)}"]
        rows.append((title, *cells))
    several = ("95 % interval", "if calibrated") if len(by_stage) == 1 else ()
    return table_of(("positive class", *by_stage, *several), rows, title="Probability of class 1")


def described(estimates: Mapping[str, Estimate]) -> dict[str, tuple[str, float | None, str]]:
    """Return title, ideal value if there is one, and value with interval as text, of each measure by name."""
    texts = {}
    for name, title, unit, places, ideal, _ in _ROWS:
        if name in estimates:
            about, each = Column("", unit, places=places), estimates[name]
            interval = "" if isnan(each.low) else f" [{about.format(each.low)}, {about.format(each.high)}]"
            texts[name] = (
                title.removesuffix(" %"),
                float(ideal) if ideal else None,
                about.format(each.value) + interval,
            )
    return texts


def positive_diagrams(stages: Mapping[str, AnyPredictions], by_stage: MeasuresByStage) -> list[Any]:
    """Draw a reliability diagram of the positive class for each stage with measures, for a page."""
    of_all_classes = {name: check_predictions("fedlas evaluate", stages[name]) for name in by_stage}
    return [
        figure(
            positive_reliability_diagram(of_all_classes[name], title=name, ax=axes(3.1, 3.9), replicates=REPLICATES),
            f"Reliability diagram of class 1, {name}",
        )
        for name in by_stage
    ]
