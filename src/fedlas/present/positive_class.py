"""The positive class of predictions of two classes: measures, tables and diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

from fedlas.binary import measures, net_benefit, positive_bins
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
_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

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


def positive_class(stages: Mapping[str, AnyPredictions], *, replicates: int) -> dict[str, dict[str, Estimate]]:
    """Measures by stage of predictions of two classes, where there are any; of many stages the first alone."""
    # The measures count every sample once, so weighted predictions have none.
    plain = {n: p for n, p in stages.items() if isinstance(p, Predictions) and p.weights is None}
    binary = {name: p for name, p in plain.items() if p.num_classes == 2}
    few = list(binary)[: None if len(binary) <= _MOST_STAGES else 1]
    by_stage = {name: measures(binary[name], replicates=min(replicates, REPLICATES)) for name in few}
    return {name: values for name, values in by_stage.items() if values}


def plain_measures(by_stage: MeasuresByStage) -> dict[str, Any]:
    """Return the measures by stage for JSON; numbers that are not finite are left out."""
    return {
        stage: {name: {k: v for k, v in each.plain().items() if isfinite(v)} for name, each in values.items()}
        for stage, values in by_stage.items()
    }


def measures_table(by_stage: MeasuresByStage, *, details: bool) -> Table:
    """Return a row a measure: with interval and the value of a calibrated model if there is one stage."""
    rows = []
    for name, title, unit, places, ideal, main in _ROWS:
        known = [values.get(name) for values in by_stage.values()]
        if not (main or details) or not any(known):
            continue
        about = Column(title, unit, places=places)
        cells = [about.format(each.value if each else None) for each in known]
        if len(by_stage) == 1 and known[0] is not None:
            low, high, floor = known[0].low, known[0].high, known[0].floor
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


def bins_table(predictions: Predictions) -> Table:
    """Return the reliability diagram of the positive class as numbers; empty bins are left out."""
    bins, percent = positive_bins(predictions), Column("", "%")
    rows = [
        (
            f"{low:.1f} to {high:.1f}",
            f"{int(count):,}",
            percent.format(float(probability)),
            percent.format(float(frequency)),
            f"[{percent.format(float(bottom))}, {percent.format(float(top))}]",
        )
        for low, high, count, probability, frequency, bottom, top in zip(
            bins.edges[:-1], bins.edges[1:], bins.count, bins.probability, bins.frequency, bins.low, bins.high,
            strict=True,
        )
        if count
    ]  # fmt: skip
    heads = ("probability", "samples", "mean %", "frequency %", "95 % interval")
    return table_of(heads, rows, title="Reliability of class 1, as predicted")


def benefit_table(predictions: Predictions) -> Table:
    """Return net benefit at a few thresholds."""
    curve, number = net_benefit(predictions, thresholds=_THRESHOLDS), Column("")
    rows = [
        (f"{limit:g}", *map(number.format, (model, everybody, gain)), f"[{number.format(low)}, {number.format(high)}]")
        for limit, model, everybody, gain, low, high in zip(
            *(each.tolist() for each in (curve.threshold, curve.model, curve.treat_all, curve.gain)),
            curve.gain_low.tolist(), curve.gain_high.tolist(), strict=True,
        )
    ]  # fmt: skip
    heads = ("threshold", "net benefit", "act on all", "gain", "95 % interval")
    return table_of(heads, rows, title="Net benefit, and its gain over acting on all or on none")


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
