"""Results of tuning: the best value so far over the trials, and the value over each parameter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.plots.theme import ThemeName, canvas, caption, legend_below, name_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["best_so_far", "parameter_effect"]

Value = float | str | bool | None


def best_so_far(
    values: Mapping[str, Sequence[float | None]],
    *,
    label: str,
    maximize: bool = False,
    ax: Axes | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw the best value that each method has reached after each trial, as steps.

    Args:
        values: For each method the values of its trials, in order; None where a trial has none.
        label: Label of the vertical axis.
        maximize: Whether higher is better.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Returns:
        The Axes. A method's line begins at its first trial with a value and ends at its last trial.

    Raises:
        InputError: If no trial has a value.

    Example:
        >>> ax = best_so_far({"ls": [0.4, 0.5, None, 0.3]}, label="NLL")
        >>> ax.lines[0].get_ydata().tolist()
        [0.4, 0.4, 0.4, 0.3]
    """
    owner = "best_so_far"
    if not any(value is not None for found in values.values() for value in found):
        raise InputError(owner, "a trial must have a value", "none", "Draw it once one is done.")
    axes, palette = canvas(owner, theme, ax, size=(5.6, 3.8))
    better = max if maximize else min
    most = 0
    for i, (name, found) in enumerate(values.items()):
        # A failed trial has no value and keeps the height before it.
        first = next((k for k, value in enumerate(found) if value is not None), len(found))
        worst = -math.inf if maximize else math.inf
        heights = list(itertools.accumulate((worst if value is None else value for value in found[first:]), better))
        numbers = range(first, len(found))
        # A marker at each improvement, which also shows a method with a single trial.
        news = [k for k in range(len(heights)) if k == 0 or heights[k] != heights[k - 1]]
        axes.plot(
            numbers, heights, linewidth=1.5, drawstyle="steps-post", label=name, **palette.line(i),
            marker="o", markersize=4, markevery=news,
        )  # fmt: skip
        most = max(most, len(found))
    axes.set_xlim(-0.02 * most, max(most - 1, 1) + 0.02 * most)
    axes.xaxis.set_major_locator(require("matplotlib.ticker", extra="plots").MaxNLocator(integer=True, nbins=8))
    caption(axes, palette, "trial (0 is the preset)", f"{label}, best so far")
    legend_below(axes, palette)
    return axes


def parameter_effect(
    settings: Sequence[Value],
    values: Sequence[float | None],
    *,
    name: str,
    label: str,
    best: int | None = None,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
    theme: ThemeName = "light",
    legend: bool = True,
) -> Axes:
    """Draw the value of each trial over one parameter, with the preset and the best marked.

    Args:
        settings: The parameter in each trial, the preset first. Settings that are not numbers are evenly spaced, in
            order of appearance.
        values: The value of each trial; None if it failed, which is drawn as a cross on the axis.
        name: Name of the parameter.
        label: Label of the vertical axis.
        best: Index of the best trial.
        log: Logarithmic horizontal axis, where all settings are above 0.
        limits: Ends of the searched range.
        ax: Where to draw; a new figure if None.
        theme: Palette.
        legend: Whether to explain the marks below the axes.

    Returns:
        The Axes.

    Raises:
        InputError: If there is not one value for each setting.

    Example:
        >>> ax = parameter_effect([0.05, 0.1, 0.2], [0.3, 0.2, None], name="alpha", label="NLL", best=1)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['trial', 'preset', 'best', 'failed']
    """
    owner = "parameter_effect"
    if len(settings) != len(values):
        got = f"{len(settings)} settings and {len(values)} values"
        raise InputError(owner, "there must be one value for each setting", got, "Pass both for every trial.")
    axes, palette = canvas(owner, theme, ax, size=(3.6, 3.0))
    numeric = all(isinstance(setting, int | float) and not isinstance(setting, bool) for setting in settings)
    words = list(dict.fromkeys(map(str, settings)))
    places = [float(s) if numeric else float(words.index(str(s))) for s in settings]  # type: ignore[arg-type]  # numbers

    # The trials, the preset and the best among them, and the failed ones.
    plain = [k for k, value in enumerate(values) if value is not None and k not in (0, best)]
    axes.scatter(
        [places[k] for k in plain], [values[k] for k in plain], s=22, color=palette.lines[2], alpha=0.8, label="trial",
        linewidths=0,
    )  # fmt: skip
    if values and values[0] is not None:
        axes.scatter(
            places[:1], values[:1], s=52, marker="s", facecolors="none", edgecolors=palette.ink, linewidths=1.6,
            label="preset", zorder=3,
        )  # fmt: skip
    if best is not None:
        axes.scatter(places[best], values[best], s=90, marker="*", color=palette.over, label="best", zorder=4)
    failed = [places[k] for k, value in enumerate(values) if value is None]
    if failed:
        axes.plot(
            failed, [0.02] * len(failed), "x", color=palette.muted, label="failed", markersize=5,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip

    # The horizontal axis.
    if numeric:
        if log and min(places) > 0 and (limits is None or limits[0] > 0):
            axes.set_xscale("log")
            ticker = require("matplotlib.ticker", extra="plots")
            axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(ticker.NullFormatter())
            axes.tick_params(axis="x", which="minor", colors=palette.muted, length=2)
        for end in limits or ():
            axes.axvline(end, color=palette.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    else:
        name_ticks(axes.xaxis, range(len(words)), words)
        axes.set_xlim(-0.5, len(words) - 0.5)
    caption(axes, palette, name, label)
    if legend:
        legend_below(axes, palette)
    known = [value for value in values if value is not None and math.isfinite(value)]
    if known and min(known) == max(known):  # a single value leaves the axis without a scale
        axes.set_ylim(min(known) - (abs(min(known)) or 1) * 0.05, max(known) + (abs(max(known)) or 1) * 0.05)
    return axes
