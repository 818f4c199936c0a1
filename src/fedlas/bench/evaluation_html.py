"""The page of ``fedlas evaluate --report``: one predictions file, before and after an optional calibrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlas._core.files import write_text
from fedlas.bench.page import diagram, render
from fedlas.bench.tables import column
from fedlas.predictions import Predictions

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
) -> Path:
    """Write the page atomically and return its path.

    Args:
        path: File to write.
        stages: Predictions by stage, such as ``"as predicted"`` and ``"after temperature"``.
        measured: Metrics by stage, then by registry name.
        name: What was measured, for the heading.
        num_bins: Bins of the calibration errors and the diagrams.
        remarks: Sentences below the table.

    Raises:
        InputError: If the folder cannot be written to.
    """
    first = next(iter(stages.values()))
    columns = [column(metric) for metric in next(iter(measured.values()))]
    rows = [(about, [about.format(values[about.metric]) for values in measured.values()]) for about in columns]
    by_stage = {stage: [about.format(values[about.metric]) for about in columns] for stage, values in measured.items()}
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
        diagrams=[diagram(stage, predictions, num_bins) for stage, predictions in stages.items()],
    )
    return write_text(path, page)
