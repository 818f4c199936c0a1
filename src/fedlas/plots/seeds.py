"""Plots of the values of methods, or of differences between methods, by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from fedlas._core.check import InputError, check_number
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas.plots.theme import (
    REFERENCE,
    Axes,
    Theme,
    ThemeOption,
    draw_legend_below,
    draw_legend_outside,
    set_axis_label,
    set_ticks,
    styled_axes,
)
from fedlas.stats import mean_interval
from fedlas.stats.compare import check_values

_MAX_ROWS_ON_SCREEN = 15
"""Rows of a figure whose foot is below the screen: the scale is at its top."""
_ROW_HEIGHT = 0.25
"""Inches from one row to the next."""


@check_argument_types
def seed_values(
    values: Mapping[str, Sequence[float]],
    *,
    label: str,
    floors: Mapping[str, float] | None = None,
    zero: bool = False,
    ax: Axes | None = None,
    theme: ThemeOption = "light",
    legend: bool = True,
) -> Axes:
    """Draw a row per method: a dot per seed, the mean, and the 95 % interval of the mean over seeds.

    Args:
        values: For each method (or difference of two) one value per seed, in the unit of ``label``. NaN is left out;
            a name without any value keeps its row. The first is at the top.
        label: Label of the horizontal axis.
        floors: The noise floor of some names, drawn as a tick: the value of a perfectly calibrated model.
        zero: The values are differences: a line is drawn at 0, and rows whose interval excludes it are colored.
        ax: Where to draw; None: a new figure, as high as needed.
        theme: Palette.
        legend: Whether to explain the marks, below the axes or at the foot of a new figure.

    Returns:
        The Axes. There is no interval for one seed, or for seeds with equal values; that of values that are never
        negative ends at 0, unless they are differences.

    Raises:
        InputError: If no name has a value, a value is infinite, or ``floors`` has a name that ``values`` lacks.

    Note:
        Overlapping intervals of two methods do not mean that the methods are equal: with the same seeds their values
        are correlated. Draw their differences with ``zero=True`` instead.

    Example:
        >>> ax = seed_values({"fedlas": [1.7, 1.2, 2.1], "ls": [3.9, 3.8, 4.1]}, label="ECE %")
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['fedlas', 'ls']
    """
    rows = {}
    for name, numbers in values.items():
        checked = check_values("values", numbers, "Drop infinite values.", allow_nan=True)
        rows[name] = checked[checked == checked].tolist()  # without NaN
    if not any(rows.values()):
        raise InputError(
            "at least one name must have a finite value", dict(values), "Pass values for a name."
        )
    if unknown := sorted(set(floors or ()) - set(rows)):
        raise InputError(
            "names in floors must occur in values", unknown, "Use the names of values."
        )
    for name, floor in (floors or {}).items():
        check_number(f"floors[{name!r}]", floor)
    axes, palette = styled_axes(theme, ax, size=(3.7, 1.1 + _ROW_HEIGHT * len(rows)), grid="x")
    if zero:
        axes.axvline(0, color=palette.ink, **REFERENCE)
    for row, (name, numbers) in enumerate(rows.items()):
        if numbers:
            _draw_row(axes, palette, row, numbers, zero=zero, floor=(floors or {}).get(name))

    # Scales and text.
    set_ticks(axes.yaxis, range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(require("matplotlib.ticker", extra="tables").MaxNLocator(nbins=5))
    axes.tick_params(axis="y", length=0, labelcolor=palette.ink)
    # Right-aligned: next to long names the axes are narrower than the label, which may then reach below the names.
    set_axis_label(axes.xaxis, label, palette, loc="right")
    if len(rows) > _MAX_ROWS_ON_SCREEN:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
    if legend and ax is None:
        draw_legend_outside(axes, palette, max_columns=2)
    elif legend:
        draw_legend_below(axes, palette)
    return axes


def _draw_row(
    axes: Axes, palette: Theme, row: int, numbers: list[float], *, zero: bool, floor: float | None
) -> None:
    """Draw the seeds of a row, their mean and its interval, and the noise floor; each mark enters the legend once."""
    mean = fmean(numbers)
    ends = mean_interval(numbers)
    if ends is not None and not zero and min(numbers) >= 0:
        ends = max(ends[0], 0.0), ends[1]  # errors and losses are never negative
    excludes_zero = zero and ends is not None and not ends[0] <= 0 <= ends[1]
    color = palette.lines[1 if mean > 0 else 2] if excludes_zero else palette.ink
    named = axes.get_legend_handles_labels()[1]

    def label_once(mark: str) -> str:
        return "_" if mark in named else mark  # matplotlib leaves such names out of legends

    axes.scatter(
        numbers, [row - 0.28] * len(numbers), s=11, color=palette.muted, alpha=0.7, linewidths=0,
        label=label_once("a seed"),
    )  # fmt: skip
    if ends is not None:
        style: dict[str, Any] = {
            "linewidth": 1.7,
            "solid_capstyle": "butt",
            "label": label_once("95 % interval"),
        }
        axes.plot(ends, [row, row], color=color, **style)
    axes.plot(
        [mean], [row], marker="D", markersize=5, linestyle="none", color=color, markeredgecolor=palette.background,
        markeredgewidth=0.6, label=label_once("mean"),
    )  # fmt: skip
    if floor is not None:
        axes.plot(
            [floor], [row], marker="|", markersize=9, markeredgewidth=1.6, linestyle="none",
            color=palette.lines[3], label=label_once("noise floor"),
        )  # fmt: skip
