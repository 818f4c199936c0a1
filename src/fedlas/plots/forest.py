"""Forest plots of cluster estimates, their random-effects mean and its prediction interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.kinds import check_argument_types
from fedlas.plots.theme import Axes, ThemeOption, set_axis_label, set_ticks, set_title, styled_axes

if TYPE_CHECKING:
    from fedlas.stats import Estimate, RandomEffects

_ROW_HEIGHT = 0.19
_LOG_TICKS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
)
"""Ticks of a logarithmic axis."""


@check_argument_types
def forest_plot(
    estimates: Mapping[str, Estimate],
    summary: RandomEffects,
    *,
    label: str = "",
    ideal: float | None = None,
    is_log: bool = False,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw a forest plot: a row per cluster, then the mean with its interval and the prediction interval.

    Args:
        estimates: Estimate by name of the cluster, at least one; the first is at the top.
        summary: Their mean, from :func:`~fedlas.binary.heterogeneity`.
        label: Name of the measure, below the axis.
        ideal: Value of a calibrated model, marked by a line; None for no line.
        is_log: Whether the axis is logarithmic, as for observed over expected; a 0 is an arrow at its left end.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.

    Raises:
        InputError: If there is no estimate.

    Example:
        >>> from fedlas.stats import Estimate, RandomEffects
        >>> rows = {"North": Estimate(1.1, 0.9, 1.3), "South": Estimate(0.8, 0.6, 1.0)}
        >>> mean = RandomEffects(0.95, 0.5, 1.8, 0.3, 3.0, 0.2, 0.8, 0.02, 3, 0.95)
        >>> [text.get_text() for text in forest_plot(rows, mean).get_yticklabels()]
        ['North', 'South', 'mean', 'further cluster']
    """
    if not estimates:
        raise InputError(
            "estimates must have at least one cluster", "none", "Pass an estimate per cluster."
        )
    names = [*estimates, "mean"]
    axes, palette = styled_axes(
        theme, ax, size=(4.4, 0.9 + _ROW_HEIGHT * (len(names) + 1)), grid="x"
    )
    if ideal is not None:
        axes.axvline(ideal, color=palette.ink, linewidth=0.8, linestyle=(0, (4, 3)))
    style: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0}
    floor = _log_floor(estimates, summary) if is_log else -math.inf
    for row, each in enumerate(estimates.values()):
        ends = [max(each.low, floor), each.high]
        axes.plot(ends, [row, row], color=palette.muted, linewidth=1.1)
        marker = "<" if each.value < floor else "s"
        value = max(each.value, floor)
        axes.plot([value], [row], marker=marker, markersize=3.5, color=palette.muted, **style)
    row = len(estimates)
    color = palette.lines[0]
    axes.plot([summary.low, summary.high], [row, row], color=color, linewidth=2.4)
    axes.plot([summary.mean], [row], marker="D", markersize=6, color=color, **style)
    if summary.prediction_low == summary.prediction_low:
        names.append("further cluster")
        ends = [summary.prediction_low, summary.prediction_high]
        axes.plot(ends, [row + 1, row + 1], color=color, linewidth=1.2, linestyle=(0, (2, 1)))
    if is_log:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = [tick for tick in _LOG_TICKS if low <= tick <= high]
        set_ticks(axes.xaxis, ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    set_ticks(axes.yaxis, range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=palette.ink)
    if label:
        set_axis_label(axes.xaxis, label, palette)
    if title:
        set_title(axes, title, palette)
    return axes


def _log_floor(estimates: Mapping[str, Estimate], summary: RandomEffects) -> float:
    """Return the left end of a logarithmic axis: three quarters of the least number above 0."""
    numbers = [number for each in estimates.values() for number in (each.value, each.low)]
    least = min(number for number in (*numbers, summary.low, summary.mean) if number > 0.0)
    return 0.75 * least
