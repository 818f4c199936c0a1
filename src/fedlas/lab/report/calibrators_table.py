"""The terminal table that compares calibrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlas._core.terminal import Cell, table
from fedlas.lab.report.noise_text import EVALUATION_CAPTION, noise_text
from fedlas.lab.report.tables import Column, column
from fedlas.stats.estimates import Estimate

COMPARED = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "true_ece")
"""Metrics of the table that compares calibrators, where they were measured."""


def comparison_table(
    measured: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    noise: Mapping[str, Mapping[str, Estimate]] | None = None,
) -> Any:
    """A ``rich`` table that compares calibrators: one row each, one column for each of :data:`COMPARED`.

    Args:
        measured: Metrics by stage (``"as predicted"`` first, then ``"after NAME"``), then by registry name.
        title: Above the table.
        noise: Intervals and noise floors of the same, shown below the calibration errors.
    """
    columns = [column(name) for name in COMPARED if name in next(iter(measured.values()))]
    return table(
        ["calibrator", *(about.head for about in columns)],
        [
            [stage.removeprefix("after "), *(_compared(each, values, (noise or {}).get(stage, {})) for each in columns)]
            for stage, values in measured.items()
        ],
        title=title,
        caption=[f"Below a calibration error its interval, floor and p. {EVALUATION_CAPTION}"]
        if any((noise or {}).values())
        else [],
        right=range(1, len(columns) + 1),
        whole=[0],
        line_after=[0],
        title_justify="left",
        padding=(0, 1, 0, 0),
    )


def _compared(about: Column, values: Mapping[str, float], noise: Mapping[str, Estimate]) -> Cell:
    """A number; below a calibration error its interval, and below that noise floor and p-value."""
    number, found = about.format(values[about.metric]), noise.get(about.metric)
    if found is None or found.floor is None:
        return number
    text = noise_text([found], about.format)
    return [number, (f"\n{text.interval}\n{text.sign}{text.floor} {text.p_value.replace(' ', '')}", "dim")]
