"""Themes (light, dark, paper) with color-blind-safe palettes, and the style of all plots."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedlas._core.check import InputError, check_choice, describe
from fedlas._core.extras import require
from fedlas._core.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.axis import Axis, XAxis, YAxis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
else:
    Axes = Any


_COLUMN_WIDTHS = {"single": 3.35, "double": 6.9}
"""Inches of a column of a journal, 85 mm, and of two, 175 mm."""


@dataclass(frozen=True)
class Theme:
    """Colors, as hex strings, and font of a theme.

    Attributes:
        background: The page behind the axes.
        ink: Text and the diagonal.
        muted: Tick labels, spines.
        grid: Grid lines.
        bar: Neutral bars (accuracy, counts).
        over: Over-confidence: confidence exceeds accuracy.
        under: Under-confidence. Differs from ``over`` in lightness too, and the plots hatch them differently.
        lines: One color per method; pair with :data:`DASHES` so that no two look alike in grayscale.
        font: Family of all text, such as ``"serif"`` or ``"Times New Roman"``; empty is that of matplotlib.
        size: Points of the names of axes; ticks, notes and titles are in proportion.

    Example:
        >>> from dataclasses import replace
        >>> replace(PAPER, font="serif", size=9.0).text()
        {'fontsize': 9.0, 'parse_math': False, 'fontfamily': 'serif'}
    """

    background: str
    ink: str
    muted: str
    grid: str
    bar: str
    over: str
    under: str
    lines: tuple[str, ...]
    font: str = ""
    size: float = 9.0

    def text(self, scale: float = 1.0) -> dict[str, Any]:
        """Return font settings for text of ``scale`` times the size of axis labels."""
        family = {"fontfamily": self.font} if self.font else {}
        return {"fontsize": self.size * scale, "parse_math": False, **family}

    def line(self, index: int) -> dict[str, Any]:
        """Return color and dashes of the ``index``-th line."""
        return {
            "color": self.lines[index % len(self.lines)],
            "linestyle": DASHES[index % len(DASHES)],
        }


ThemeOption = Literal["light", "dark", "paper"] | Theme
"""How to name a theme: a palette by name, or one's own."""
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
PAPER = replace(LIGHT, muted="#33393f", size=8.0)
"""The palette of ``theme="paper"``: for print at the size of a column. ``dataclasses.replace(PAPER, font="serif")``."""
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
    "-",
    (0, (3, 1)),
    (0, (1, 2)),
)
"""Line styles; seven, coprime to the eight colors, so that 56 methods differ."""
REFERENCE: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (4, 3))}
"""Style of lines to compare with: the diagonal, zero, a mean, a threshold."""


_WITHOUT_PYPLOT = ContextVar("free figures", default=False)


def resolve_theme(name: str | Theme) -> Theme:
    """Return the theme ``"light"``, ``"dark"`` or ``"paper"``; a :class:`Theme` is returned unchanged.

    Raises:
        InputError: For another name.
    """
    palettes = {"light": LIGHT, "dark": DARK, "paper": PAPER}
    return name if isinstance(name, Theme) else palettes[check_choice("theme", name, palettes)]


def paper_axes(
    width: Literal["single", "double"] | float = "single",
    height: float | None = None,
    *,
    panels: int | None = None,
) -> Any:
    """Return Axes on a new figure of journal-column width, to draw on with ``theme="paper"``.

    Args:
        width: ``"single"`` (85 mm), ``"double"`` (175 mm), or inches.
        height: Inches; None: 1.15 of the width of a panel.
        panels: Number of Axes side by side, returned as an array; None: a single Axes.

    Raises:
        InputError: For another width.

    Example:
        >>> paper_axes("double", panels=2)[0].figure.get_size_inches().tolist()
        [6.9, 3.97]
    """
    if isinstance(width, str):
        width = _COLUMN_WIDTHS[check_choice("width", width, _COLUMN_WIDTHS)]
    size = (width, round(1.15 * width / (panels or 1), 2) if height is None else height)
    return new_axes(PAPER, size=size, panels=panels)


def new_axes(theme: Theme, *, size: tuple[float, float], panels: int | None = None) -> Any:
    """Return Axes on a new figure that is not registered with pyplot, so that it is freed with its last reference.

    The last expression of a notebook's cell shows it as a picture, whatever the backend.

    Args:
        theme: Its background.
        size: Width and height of the figure in inches.
        panels: Number of Axes side by side, returned as an array; None: a single Axes.

    Example:
        >>> new_axes(LIGHT, size=(6.0, 3.0), panels=2).shape
        (2,)
    """
    figure = _free_figure(theme, size)
    axes = figure.subplots(1, panels or 1, squeeze=False)[0]
    for ax in axes:
        ax._repr_png_ = partial(_render_png, figure)
    return axes[0] if panels is None else axes.view(_Panels)


def new_panels(theme: Theme, count: int, *, columns: int, size: tuple[float, float]) -> list[Axes]:
    """Return ``count`` Axes in rows of ``columns`` on a new figure.

    Args:
        theme: Its background.
        count: Of the Axes.
        columns: Axes in a row.
        size: Width and height of each in inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    whole = (columns * size[0], rows * size[1])
    axes = _new_figure(theme, whole).subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes[count:]:
        ax.remove()
    return list(axes[:count])


class _Panels(np.ndarray):
    """Array of Axes that a notebook displays as a picture."""

    def _repr_png_(self) -> bytes:
        return _render_png(self.flat[0].figure)


def _render_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def styled_axes(
    theme: str | Theme,
    ax: Axes | None,
    *,
    size: tuple[float, float] = (4.4, 3.4),
    grid: str = "both",
) -> tuple[Any, Theme]:
    """Return styled Axes to draw on (``ax``, or new ones if None) and the theme.

    Where pyplot is in use, the other Axes is its current one if nothing is drawn there, else one on a new figure of
    pyplot. Elsewhere it is on a figure that is freed with its last reference.

    Args:
        theme: Name of the palette, or the palette.
        ax: The Axes of the caller, if any.
        size: Size of a new figure, in inches.
        grid: Axis with grid lines: ``"x"``, ``"y"`` or ``"both"``.

    Raises:
        InputError: For an unknown theme, or another ``ax``.
    """
    palette = resolve_theme(theme)
    axes: Any = _default_axes(palette, size) if ax is None else ax
    if not hasattr(axes, "set_facecolor"):
        raise InputError(
            "ax must be matplotlib Axes", describe(ax), "Pass Axes, or None for a new figure."
        )
    style_axes(axes, palette)
    axes.grid(axis=grid, color=palette.grid, linewidth=0.8)
    return axes, palette


def _default_axes(theme: Theme, size: tuple[float, float]) -> Any:
    """Return Axes for a caller that passes none: pyplot's if pyplot is in use, else Axes on a new figure."""
    pyplot = _pyplot_in_use()
    if pyplot is None:
        return new_axes(theme, size=size)
    if pyplot.get_fignums():
        current = pyplot.gcf()
        if not current.axes:
            if current.get_layout_engine() is None:
                current.set_layout_engine("constrained")
            return current.gca()
        if not current.gca().has_data():
            return current.gca()
    return _new_figure(theme, size).subplots()


def _new_figure(theme: Theme, size: tuple[float, float]) -> Any:
    """Return a new figure, registered with pyplot if pyplot is in use."""
    pyplot = _pyplot_in_use()
    if pyplot is None:
        return _free_figure(theme, size)
    return pyplot.figure(figsize=size, layout="constrained", facecolor=theme.background)


def _free_figure(theme: Theme, size: tuple[float, float]) -> Any:
    """Return a new figure that is not registered with pyplot."""
    kind = require("matplotlib.figure", extra="tables").Figure
    return kind(figsize=size, layout="constrained", facecolor=theme.background)


@contextmanager
def without_pyplot() -> Iterator[None]:
    """Create figures without pyplot within the context."""
    token = _WITHOUT_PYPLOT.set(True)
    try:
        yield
    finally:
        _WITHOUT_PYPLOT.reset(token)


def _pyplot_in_use() -> Any:
    """Return pyplot if the program has imported it or runs in a notebook, else None."""
    if _WITHOUT_PYPLOT.get():
        return None
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if hasattr(shell, "kernel"):
        return require("matplotlib.pyplot", extra="tables")
    return sys.modules.get("matplotlib.pyplot")


def set_labels(
    ax: Axes, theme: Theme, x: str, y: str | None = None, *, title: str | None = None
) -> None:
    """Set the axis labels of ``ax``, and its title unless None."""
    set_axis_label(ax.xaxis, x, theme)
    if y is not None:
        set_axis_label(ax.yaxis, y, theme)
    if title is not None:
        set_title(ax, title, theme)


def set_subtitle(ax: Axes, text: str, theme: Theme) -> None:
    """Write a line between the title and the plot."""
    ax.text(
        0,
        1.015,
        printable(text),
        transform=ax.transAxes,
        color=theme.muted,
        **theme.text(8 / 9),
    )


def set_title(ax: Axes, title: str, theme: Theme, *, above_subtitle: bool = False) -> None:
    """Set the title of ``ax``, left-aligned and wrapped to the figure's width."""
    figure: Any = ax.figure
    letters = int(figure.get_figwidth() * 72 / 7.8) - 6  # the axes begin a little to the right
    text = textwrap.fill(printable(str(title)), max(letters, 8))
    style = {"color": theme.ink, "fontweight": "bold", **theme.text(11 / 9)}
    ax.set_title(text, loc="left", pad=16 if above_subtitle else 6, **style)


def set_axis_label(axis: XAxis | YAxis, text: str, theme: Theme, *, loc: str = "center") -> None:
    """Set the label of ``axis``, without mathtext."""
    label = getattr(axis.axes, f"set_{axis.axis_name}label")
    label(printable(text), color=theme.ink, loc=loc, **theme.text())


def set_ticks(axis: Axis, positions: Any, labels: Sequence[str], **style: Any) -> None:
    """Set the ticks of ``axis`` and their labels, without mathtext."""
    # loss@calibrator takes two lines, else the axes of long names are too narrow for their numbers
    lines = [printable(name).replace("@", "\n@") for name in labels]
    axis.set_ticks(positions, lines, parse_math=False, **style)


def escape_legend_labels(legend: Legend) -> None:
    """Disable mathtext in the labels of a legend and escape control characters."""
    for text in legend.get_texts():
        text.set(text=printable(text.get_text()), parse_math=False)


def text_box(theme: Theme) -> dict[str, Any]:
    """Return settings for the ``bbox`` of a text, which keep it legible in front of bars and lines."""
    return {"facecolor": theme.background, "edgecolor": "none", "alpha": 0.8, "pad": 1.5}


def legend_height(names: Sequence[str], width: float) -> float:
    """Return the height in inches that :func:`draw_legend_below` adds to a figure with a single Axes.

    Args:
        names: The entries of the legend.
        width: Width of the figure in inches.
    """
    # share of an axes in its figure before layout
    lines = -(-len(names) // _legend_columns(names, 0.775 * width))
    return 0.19 * lines


def _legend_columns(names: Sequence[str], width: float) -> int:
    entry = (46 + 5.4 * max(map(len, names))) / 72  # inches of a line, a gap and a name
    # it may reach below the tick labels
    return max(1, min(len(names), 4, int(1.1 * width / entry)))


def draw_legend(ax: Axes, theme: Theme, *, share: float = 8 / 9, **placement: Any) -> None:
    """Draw a frameless legend in the theme's colors; ``placement`` goes to matplotlib."""
    font = {"size": theme.size * share, **({"family": theme.font} if theme.font else {})}
    escape_legend_labels(ax.legend(frameon=False, prop=font, labelcolor=theme.ink, **placement))


def draw_legend_below(ax: Axes, theme: Theme, **marks: Any) -> None:
    """Draw a legend below ``ax``, in as many columns as fit, at most four.

    Args:
        ax: Its figure's layout must make room, as that of :func:`new_axes` does.
        theme: Color of the names.
        **marks: ``handles`` with labels; by default the handles of ``ax``.
    """
    translation = require("matplotlib.transforms", extra="tables").ScaledTranslation
    names = [each.get_label() for each in marks["handles"]] if marks else None
    names = names or ax.get_legend_handles_labels()[1]
    figure: Any = ax.figure
    width = ax.get_position().width * figure.get_figwidth()
    # In points, not in shares of the height: tick labels and axis label take two lines below an axes of any height.
    below = ax.transAxes + translation(0, -34 / 72, figure.dpi_scale_trans)
    draw_legend(
        ax, theme, share=8.5 / 9, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below,
        ncols=_legend_columns(names, width), **{"handlelength": 2.6, **marks},
    )  # fmt: skip


def draw_legend_outside(ax: Axes, theme: Theme, *, max_columns: int) -> None:
    """Draw a legend at the bottom of a figure.

    Args:
        ax: One Axes of the figure, with the marks of all.
        theme: Color of the names.
        max_columns: Largest number of columns.
    """
    marks = ax.get_legend_handles_labels()
    style: dict[str, Any] = {
        "frameon": False,
        "fontsize": 8.5 / 9 * theme.size,
        "labelcolor": theme.ink,
    }
    escape_legend_labels(
        ax.figure.legend(*marks, loc="outside lower center", ncols=max_columns, **style)
    )


def style_axes(ax: Axes, theme: Theme) -> None:
    """Set background, spines and tick colors of ``ax`` to the theme's."""
    ax.set_facecolor(theme.background)
    family: dict[str, Any] = {"labelfontfamily": theme.font} if theme.font else {}
    ax.tick_params(colors=theme.muted, labelsize=8 / 9 * theme.size, length=3, **family)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.muted)
        spine.set_linewidth(0.8)
    ax.set_axisbelow(True)
