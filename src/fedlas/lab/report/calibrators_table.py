"""The terminal table that compares calibrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedlas._core.extras import require
from fedlas.lab.report.noise_text import EVALUATION_CAPTION, noise_text
from fedlas.lab.report.tables import Column, column
from fedlas.stats.noise import Noise

COMPARED = ("accuracy", "nll", "ece", "adaptive_ece", "brier", "true_ece")
"""Metrics of the table that compares calibrators, where they were measured."""


def comparison_table(
    measured: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    noise: Mapping[str, Mapping[str, Noise]] | None = None,
) -> Any:
    """A ``rich`` table that compares calibrators: one row each, one column for each of :data:`COMPARED`.

    Args:
        measured: Metrics by stage (``"as predicted"`` first, then ``"after NAME"``), then by registry name.
        title: Above the table.
        noise: Intervals and noise floors of the same, shown below the calibration errors.
    """
    box = require("rich.box", extra="bench").SIMPLE_HEAD  # with lines between columns, names would not fit 80 of them
    table = require("rich.table", extra="bench").Table(title=title, title_justify="left", box=box, padding=(0, 1, 0, 0))
    if any((noise or {}).values()):
        table.caption, table.caption_justify = (
            f"Below a calibration error its interval, floor and p. {EVALUATION_CAPTION}",
            "left",
        )
    columns = [column(name) for name in COMPARED if name in next(iter(measured.values()))]
    table.add_column("calibrator", no_wrap=True)
    for about in columns:
        table.add_column(about.head, justify="right")
    for number, (stage, values) in enumerate(measured.items()):
        table.add_row(
            stage.removeprefix("after "),
            *(_compared(about, values, (noise or {}).get(stage, {})) for about in columns),
            end_section=number == 0,
        )
    return table


def _compared(about: Column, values: Mapping[str, float], noise: Mapping[str, Noise]) -> str:
    """A number; below a calibration error its interval, and below that noise floor and p-value."""
    number, found = about.format(values[about.metric]), noise.get(about.metric)
    if found is None or found.floor is None:
        return number
    text = noise_text([found], about.format)
    about_floor = f"{text.sign}{text.floor} {text.p_value.replace(' ', '')}"
    return f"{number}\n[dim]\\{text.interval}\n{about_floor}[/dim]"
