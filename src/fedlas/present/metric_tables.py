"""Tables of the metrics of predictions, before and after calibrators."""

from __future__ import annotations

from dataclasses import replace

from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions
from fedlas.present.blocks import Block, Note
from fedlas.present.noise_text import Known, Measured, cell_of_metric, legend_of, noise_in
from fedlas.present.table import FEWEST_CLASSES, Cell, Column, Table, column, is_detail

COMPARED = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "true_ece")
"""Metrics of the table that compares calibrators, where they were measured."""
WITHIN = "~ within noise: the test does not reject calibration. That is no proof of it."


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


def metric_blocks(
    measured: Measured, *, title: str, noise: Known | None = None, details: bool = False, num_classes: int = 10
) -> list[Block]:
    """Return a table of metrics by stage: the main ones, or all with interval, noise floor and p-value."""
    if details:
        return [metrics_table(measured, title=title, noise=noise)]
    short = short_table(measured, title=title, noise=noise, num_classes=num_classes)
    marked = any(cell.mark == "calibrated" for row in short.rows for cell in row)
    return [short, *([Note(WITHIN)] if marked else [])]
