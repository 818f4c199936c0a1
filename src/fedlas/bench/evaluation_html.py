"""The page of ``fedlas evaluate --report``: one predictions file, before and after an optional calibrator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fedlas._core.files import write_text
from fedlas.bench.page import diagram, render
from fedlas.bench.tables import column
from fedlas.predictions import Predictions


def write_evaluation(
    path: Path,
    stages: Mapping[str, Predictions],
    measured: Mapping[str, Mapping[str, float]],
    *,
    name: str,
    num_bins: int,
) -> Path:
    """Write the page atomically and return its path.

    Args:
        path: File to write.
        stages: Predictions by stage, such as ``"as predicted"`` and ``"after temperature"``.
        measured: Metrics by stage, then by registry name.
        name: What was measured, for the heading.
        num_bins: Bins of the calibration errors and the diagrams.

    Raises:
        InputError: If the folder cannot be written to.
    """
    first = next(iter(stages.values()))
    columns = [column(metric) for metric in next(iter(measured.values()))]
    rows = [(about, [about.format(values[about.metric]) for values in measured.values()]) for about in columns]
    page = render(
        "evaluation.html.j2",
        name=name,
        num_samples=first.num_samples,
        num_classes=first.num_classes,
        num_bins=num_bins,
        stages=list(stages),
        rows=rows,
        diagrams=[diagram(stage, predictions, num_bins) for stage, predictions in stages.items()],
    )
    return write_text(path, page)
