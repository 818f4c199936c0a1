"""Metrics of predictions before and after calibrators: tables, the verdict, and the page of ``fedlas evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedlas._core.files import write_text
from fedlas.lab.report.model import FEWEST_CLASSES, is_detail
from fedlas.lab.report.noise_text import NoiseText, noise_in, noise_legend
from fedlas.lab.report.page import diagram, render
from fedlas.lab.report.positive_class import Found, measures_table, positive_diagrams
from fedlas.lab.report.table import Cell, Column, Table, column
from fedlas.predictions import Predictions
from fedlas.stats.estimates import Estimate

COMPARED = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "true_ece")
"""Metrics of the table that compares calibrators, where they were measured."""
SELECTION = "Ranked by NLL on these samples. Choosing a calibrator by them is selection: measure the choice on others."
WITHIN = "~ within noise: the test does not reject calibration, which is no evidence of it. Intervals: 95 %."
_SHORT = ("accuracy", "nll", "ece")
# Of more stages each gets a row instead of a column.
_MOST_COLUMNS = 4

Measured = Mapping[str, Mapping[str, float]]
Known = Mapping[str, Mapping[str, Estimate]]


def cell_of_metric(about: Column, value: float | None, noise: NoiseText) -> Cell:
    """A number with its interval, noise floor and p-value."""
    return Cell(about.format(value), mark="calibrated" if noise.calibrated else "", details=noise.lines, number=value)


def metrics_table(measured: Measured, *, title: str, noise: Known | None = None) -> Table:
    """A row a metric, a column a stage.

    Args:
        measured: Metrics by stage, then by registry name.
        title: Above the table.
        noise: Intervals and noise floors of some of them.
    """
    names = list(dict.fromkeys(name for values in measured.values() for name in values))
    rows = []
    for about in map(column, names):
        cells = [
            cell_of_metric(about, values.get(about.metric), noise_in((noise or {}).get(stage, {}), about))
            for stage, values in measured.items()
        ]
        rows.append((Cell(about.head, tip=about.about), *cells))
    return Table((Column("metric", words=True), *map(Column, measured)), tuple(rows), title, legend_of(noise or {}))


def stages_table(
    measured: Measured,
    *,
    title: str,
    noise: Known | None = None,
    metrics: Sequence[str] = COMPARED,
    floors: bool = False,
) -> Table:
    """A row a stage, the lowest NLL first, a column for each of ``metrics`` that was measured.

    Args:
        measured: As in :func:`metrics_table`.
        title: As there.
        noise: As there.
        metrics: Registry names.
        floors: Whether each noise floor follows its number, in brackets.
    """
    columns = [column(name) for name in metrics if name in next(iter(measured.values()))]
    rows = []
    for stage, values in sorted(measured.items(), key=lambda item: item[1].get("nll", 0.0)):
        cells = []
        for about in columns:
            found = noise_in((noise or {}).get(stage, {}), about)
            cell = cell_of_metric(about, values[about.metric], found)
            cells.append(replace(cell, extra=f"({found.floor})") if floors and found.floor else cell)
        rows.append((Cell(stage.removeprefix("after ")), *cells))
    if floors and any((noise or {}).values()):
        columns = [replace(c, unit="% (floor)") if c.metric == "ece" else c for c in columns]
    return Table((Column("calibrator", words=True), *columns), tuple(rows), title, legend_of(noise or {}))


def legend_of(noise: Known) -> tuple[str, ...]:
    """What interval, floor and p-value of these are."""
    known = [noise_in(found, column(name)) for found in noise.values() for name in found]
    return tuple(noise_legend(known, several=False))


def short_table(measured: Measured, *, title: str, noise: Known | None = None, num_classes: int = 10) -> Table:
    """The main metrics, one line each: of one stage with interval, floor and p, of several the values.

    Args:
        measured: As in :func:`metrics_table`.
        title: As there.
        noise: As there.
        num_classes: Of few classes the top-5 accuracy is left out.
    """
    if len(measured) > _MOST_COLUMNS - 1:
        return replace(stages_table(measured, title=title, noise=noise, metrics=_SHORT, floors=True), notes=())
    # Top-5 accuracy says nothing with few classes, so the short table leaves it out.
    main = {
        stage: {
            name: value
            for name, value in values.items()
            if not is_detail(name) and (name != "top5" or num_classes >= FEWEST_CLASSES)
        }
        for stage, values in measured.items()
    }
    whole = replace(metrics_table(main, title=title, noise=noise), notes=())
    if len(measured) > 1 or not any((noise or {}).values()):
        return whole
    # A single stage leaves room for interval, floor and p-value in columns of their own.
    ((stage, known),) = ((stage, (noise or {}).get(stage, {})) for stage in measured)
    rows = []
    for name, row in zip(main[stage], whole.rows, strict=True):
        found = noise_in(known, column(name))
        texts = (found.interval, found.floor, found.p_value.removeprefix("p = ").removeprefix("p "))
        rows.append((row[0], row[1], *map(Cell, texts)))
    heads = (*whole.columns, *map(Column, ("95 % interval", "floor", "p")))
    return Table(heads, tuple(rows), title)


def verdicts(measured: Measured, noise: Known, samples: int) -> list[str]:
    """Whether the calibration error of each stage is more than noise, in a sentence."""
    about = column("ece")
    found = {stage: noise_in(noise.get(stage, {}), about) for stage in measured}
    within = [stage for stage, text in found.items() if text.calibrated]
    if len(measured) > _MOST_COLUMNS - 1:
        # A sentence for each stage would be longer than the table, so many stages are counted.
        best = min(measured, key=lambda stage: measured[stage].get("nll", 0.0))
        text = f"Calibration: {len(within)} of {len(measured)} are within noise of a calibrated model on {samples:,} "
        lowest = f"NLL: {best} is lowest, {column('nll').format(measured[best].get('nll'))}."
        return [lowest, *([f"{text}samples."] if any(t.floor for t in found.values()) else [])]
    said = []
    for stage, noise_text in found.items():
        if noise_text.floor:
            where = f" {stage}" if len(measured) > 1 else ""
            kind = "within" if noise_text.calibrated else "more than"
            said.append(
                f"Calibration: ECE {about.format(measured[stage]['ece'])} %{where} is {kind} the noise of a calibrated "
                f"model on {samples:,} samples (floor {noise_text.floor} %, {noise_text.p_value})."
            )
    return said


def write_evaluation(
    path: Path,
    stages: Mapping[str, Predictions],
    measured: Measured,
    *,
    name: str,
    num_bins: int,
    remarks: Sequence[str] = (),
    noise: Known | None = None,
    positive: Found | None = None,
) -> Path:
    """Write the page atomically and return its path.

    Args:
        path: File to write.
        stages: Predictions by stage, such as ``"as predicted"`` and ``"after temperature"``.
        measured: Metrics by stage, then by registry name.
        name: What was measured, for the heading.
        num_bins: Bins of the calibration errors and the diagrams.
        remarks: Sentences below the table.
        noise: Intervals and noise floors by stage, then by registry name.
        positive: Measures of the positive class by stage, where there are two classes.

    Raises:
        InputError: If the folder cannot be written to.
    """
    first = next(iter(stages.values()))
    names = list(next(iter(measured.values())))
    by_row = len(stages) > _MOST_COLUMNS
    make = stages_table if by_row else metrics_table
    options = {"metrics": names} if by_row else {}
    page = render(
        "evaluation.html.j2",
        name=name,
        num_samples=first.num_samples,
        num_classes=first.num_classes,
        num_bins=num_bins,
        verdicts=verdicts(measured, noise or {}, first.num_samples),
        short=short_table(measured, title="Main metrics", noise=noise, num_classes=first.num_classes),
        whole=make(measured, title="All metrics", noise=noise, **options),
        selection=SELECTION if len(measured) > _MOST_COLUMNS - 1 else "",
        columns=[(c.title, c.about) for c in map(column, names)],
        remarks=remarks,
        diagrams=[diagram(stage, predictions, num_bins, band=True) for stage, predictions in stages.items()],
        positive=measures_table(positive, details=True) if positive else None,
        positive_diagrams=positive_diagrams(stages, positive or {}),
    )
    return write_text(path, page)
