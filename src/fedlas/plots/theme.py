"""Two palettes, for light and dark pages, chosen to survive colour blindness and greyscale print."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedlas._core.check import check_choice
from fedlas._core.extras import require
from fedlas._core.terminal import printable


@dataclass(frozen=True)
class Theme:
    """Colours of one theme, as hex strings.

    Attributes:
        background: Page behind the axes.
        ink: Text and the diagonal.
        muted: Tick labels, spines.
        grid: Grid lines.
        bar: Neutral bars (accuracy, counts).
        over: Over-confidence: confidence exceeds accuracy.
        under: Under-confidence. Differs from ``over`` in lightness too, and the plots hatch them differently.
        lines: One colour per method; pair with :data:`DASHES` so that no two look alike in grey.
    """

    background: str
    ink: str
    muted: str
    grid: str
    bar: str
    over: str
    under: str
    lines: tuple[str, ...]


LIGHT = Theme(
    background="#ffffff",
    ink="#1b1f24",
    muted="#59636e",
    grid="#e4e7eb",
    bar="#b9c1cb",
    over="#c2410c",
    under="#5aa9dd",
    lines=("#3b4048", "#b45309", "#0369a1", "#a21caf", "#15803d", "#dc2626", "#7c6f00", "#4f46e5"),
)
"""The palette of ``theme="light"``."""
DARK = Theme(
    background="#15181d",
    ink="#e8eaed",
    muted="#9aa4af",
    grid="#2b3037",
    bar="#5b6570",
    over="#f08a4b",
    under="#2f6f9f",
    lines=("#d5d9de", "#f5a524", "#58b4f0", "#e58af2", "#5bd08a", "#ff7b72", "#d8cb4a", "#a5a0ff"),
)
"""The palette of ``theme="dark"``."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), "-", (0, (3, 1)), (0, (1, 2)))
"""Line styles of a cycle length coprime to the eight colours, so that 56 methods differ."""


def theme_named(owner: str, name: str) -> Theme:
    """The palette called ``"light"`` or ``"dark"``.

    Raises:
        InputError: For another name.
    """
    return {"light": LIGHT, "dark": DARK}[check_choice(owner, "theme", name, ("light", "dark"))]


def new_axes(theme: Theme, *, size: tuple[float, float], panels: int | None = None) -> Any:
    """An Axes on a figure of its own that no global registry knows: it is freed when the caller drops it.

    Args:
        theme: Gives the background.
        size: Width and height of the figure in inches.
        panels: So many Axes side by side, as an array, rather than one Axes.
    """
    figure = require("matplotlib.figure", extra="plots").Figure(
        figsize=size, layout="constrained", facecolor=theme.background
    )
    return figure.subplots() if panels is None else figure.subplots(1, panels, squeeze=False)[0]


def entitle(ax: Any, title: str, theme: Theme) -> None:
    """Write ``title`` above ``ax``, left-aligned, in as many lines as the width of the figure asks for."""
    letters = int(ax.figure.get_figwidth() * 72 / 7.8) - 6  # the axes begin a little to the right
    text = textwrap.fill(printable(title), max(letters, 8))
    ax.set_title(text, loc="left", color=theme.ink, fontsize=11, fontweight="bold", parse_math=False)


def name_axis(axis: Any, text: str, theme: Theme, *, loc: str = "center") -> None:
    """Write ``text`` along ``axis``, as it is written: no dollar sign begins a formula."""
    label = getattr(axis.axes, f"set_{axis.axis_name}label")
    label(printable(text), color=theme.ink, fontsize=9, loc=loc, parse_math=False)


def name_ticks(axis: Any, places: Any, names: Sequence[str], **style: Any) -> None:
    """Put ticks with names on ``axis``, as they are written."""
    axis.set_ticks(places, list(map(printable, names)), parse_math=False, **style)


def name_marks(legend: Any) -> None:
    """Show the names in ``legend`` as they are written."""
    for text in legend.get_texts():
        text.set(text=printable(text.get_text()), parse_math=False)


def backing(theme: Theme) -> dict[str, Any]:
    """What lies behind text in an axes, so that it can be read where it meets bars or lines: settings of ``bbox``."""
    return {"facecolor": theme.background, "edgecolor": "none", "alpha": 0.8, "pad": 1.5}


def legend_height(names: Sequence[str], width: float, *, most: int = 4) -> float:
    """Inches that :func:`legend_below` takes under an axes in a figure of its own, so that one can be made as high.

    Args:
        names: What will be named.
        width: Of the figure, in inches.
        most: As there.
    """
    lines = -(-len(names) // _columns(names, 0.775 * width, most))  # an axes is that part of its figure at first
    return 0.19 * lines


def _columns(names: Sequence[str], width: float, most: int) -> int:
    entry = (46 + 5.4 * max(map(len, names))) / 72  # inches of a line, a gap and a name
    return max(1, min(len(names), most, int(1.1 * width / entry)))  # it may stick out where the tick labels are


def legend_below(ax: Any, theme: Theme, *, most: int = 4) -> None:
    """Name what ``ax`` shows below it, in as many columns as its width has room for.

    Args:
        ax: Its figure's layout must make room, as that of :func:`new_axes` does.
        theme: Gives the colour of the names.
        most: Of columns.
    """
    translation = require("matplotlib.transforms", extra="plots").ScaledTranslation
    names = ax.get_legend_handles_labels()[1]
    width = ax.get_position().width * ax.figure.get_figwidth()
    # In points, not in shares of a height: below a low axes, too, are two lines, of tick labels and of the axis.
    below = ax.transAxes + translation(0, -34 / 72, ax.figure.dpi_scale_trans)
    legend = ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, frameon=False, fontsize=8.5,
        ncols=_columns(names, width, most), labelcolor=theme.ink, handlelength=2.6,
    )  # fmt: skip
    name_marks(legend)


def legend_outside(ax: Any, theme: Theme, *, most: int) -> None:
    """Name what ``ax`` shows at the foot of its figure, which must be one of :func:`new_axes`.

    Args:
        ax: Any of the figure, with the marks of all.
        theme: Gives the colour of the names.
        most: Of columns.
    """
    legend = ax.figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=most, frameon=False, fontsize=8.5,
        labelcolor=theme.ink,
    )  # fmt: skip
    name_marks(legend)


def dress(ax: Any, theme: Theme) -> None:
    """Give ``ax`` the theme's background, spines and tick colours; its data stay as they are."""
    ax.set_facecolor(theme.background)
    ax.tick_params(colors=theme.muted, labelsize=8, length=3)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.muted)
        spine.set_linewidth(0.8)
    ax.set_axisbelow(True)
