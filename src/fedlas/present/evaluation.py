"""Metrics of predictions before and after calibrators: tables, the verdict, and the page of ``fedlas evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedlas._core.files import write_text
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions, check_predictions
from fedlas.present.noise_text import Known, Measured, cell_of_metric, legend_of, noise_in
from fedlas.present.page import diagram, render
from fedlas.present.positive_class import Found, measures_table, positive_diagrams
from fedlas.present.ranking import SELECTION, lead, ranking_table, signs
from fedlas.present.table import FEWEST_CLASSES, Cell, Column, Table, column, is_detail

COMPARED = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "true_ece")
"""Metrics of the table that compares calibrators, where they were measured."""
WITHIN = "~ within noise: the test does not reject calibration. That is no proof of it."
# Of more stages each gets a row instead of a column.
_MOST_COLUMNS = 3


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


def size_of(predictions: AnyPredictions) -> str:
    """How many samples and classes there are, e.g. ``"50,000 samples, 10 classes"``."""
    samples = f"{predictions.num_samples:,} samples"
    if isinstance(predictions, TopLabel):
        return f"{samples}, confidences of the predicted class only"
    return f"{samples}, {predictions.num_classes} classes"


def classes_of(predictions: AnyPredictions) -> int:
    """Number of classes; 0 where only the top label is known."""
    return predictions.num_classes if isinstance(predictions, Predictions) else 0


def short_table(measured: Measured, *, title: str, noise: Known | None = None, num_classes: int = 10) -> Table:
    """The main metrics, one line each: of one stage with interval, floor and p, of several the values.

    Args:
        measured: As in :func:`metrics_table`.
        title: As there.
        noise: As there.
        num_classes: Of few classes the top-5 accuracy is left out.
    """
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
    stages: Mapping[str, AnyPredictions],
    measured: Measured,
    *,
    name: str,
    num_bins: int,
    remarks: Sequence[str] = (),
    noise: Known | None = None,
    groups: Sequence[tuple[str, Table]] = (),
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
        groups: A sentence and a table of groups for each stage that has some.
        positive: Measures of the positive class by stage, where there are two classes.

    Raises:
        InputError: If the folder cannot be written to.
    """
    first = next(iter(stages.values()))
    names, noise = list(next(iter(measured.values()))), noise or {}
    if len(stages) > _MOST_COLUMNS:
        of_all_classes = {stage: check_predictions("--calibrate", each) for stage, each in stages.items()}
        said = [lead(measured, noise)]
        notes = tuple(filter(None, [signs(measured, of_all_classes, noise)]))
        short = replace(ranking_table(measured, of_all_classes, title="Main metrics", noise=noise), notes=notes)
        whole = ranking_table(measured, of_all_classes, title="All metrics", noise=noise, metrics=names)
    else:
        said = verdicts(measured, noise, first.num_samples)
        short = short_table(measured, title="Main metrics", noise=noise, num_classes=classes_of(first))
        whole = metrics_table(measured, title="All metrics", noise=noise)
    page = render(
        "evaluation.html.j2",
        name=name,
        size=size_of(first),
        num_bins=num_bins,
        groups=groups,
        verdicts=said,
        short=short,
        whole=whole,
        selection=SELECTION if len(stages) > _MOST_COLUMNS else "",
        columns=[(c.title, c.about) for c in map(column, names)],
        remarks=remarks,
        diagrams=[diagram(stage, predictions, num_bins, band=True) for stage, predictions in stages.items()],
        positive=measures_table(positive, details=True) if positive else None,
        positive_diagrams=positive_diagrams(stages, positive or {}),
    )
    return write_text(path, page)
