"""The page of ``fedlas evaluate --report``: one predictions file, before and after an optional calibrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlas._core.files import write_text
from fedlas.lab.report.noise_text import noise_legend, noise_text
from fedlas.lab.report.page import diagram, render
from fedlas.lab.report.tables import Cell, Column, column
from fedlas.predictions import Predictions
from fedlas.stats.estimates import Estimate

# Of more stages each gets a row instead of a column.
_MOST_COLUMNS = 4


def write_evaluation(
    path: Path,
    stages: Mapping[str, Predictions],
    measured: Mapping[str, Mapping[str, float]],
    *,
    name: str,
    num_bins: int,
    remarks: Sequence[str] = (),
    noise: Mapping[str, Mapping[str, Estimate]] | None = None,
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

    Raises:
        InputError: If the folder cannot be written to.
    """
    first = next(iter(stages.values()))
    columns = [column(metric) for metric in next(iter(measured.values()))]
    chance = noise or {}

    def cell(stage: str, about: Column) -> Cell:
        found = chance.get(stage, {}).get(about.metric)
        text = noise_text([found] if found else [], about.format)
        return Cell(about.format(measured[stage][about.metric]), "", "", noise=text)

    rows = [(about, [cell(stage, about) for stage in measured]) for about in columns]
    by_stage = {stage: [cell(stage, about) for about in columns] for stage in measured}
    known = [c.noise for _, cells in rows for c in cells]
    page = render(
        "evaluation.html.j2",
        name=name,
        num_samples=first.num_samples,
        num_classes=first.num_classes,
        num_bins=num_bins,
        stages=list(stages),
        rows=rows,
        by_stage=by_stage if len(stages) > _MOST_COLUMNS else {},
        remarks=remarks,
        noise_notes=noise_legend(known, several=False),
        diagrams=[diagram(stage, predictions, num_bins, band=True) for stage, predictions in stages.items()],
    )
    return write_text(path, page)
