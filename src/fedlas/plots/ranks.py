"""Critical difference diagrams: mean ranks of methods over data sets."""

from __future__ import annotations

from fedlas._core.check import InputError, describe
from fedlas._core.kinds import check_argument_types
from fedlas._core.text import printable
from fedlas.plots.theme import Axes, ThemeOption, styled_axes
from fedlas.stats.ranks import RankComparison, RankTest

_LINE_HEIGHT = 0.17
"""Inches between two lines of text."""
_BAR_HEIGHT = 0.09
"""Inches between two bars."""
_SCALE_WIDTH = 1.7
"""Inches of the scale."""


@check_argument_types
def critical_difference_diagram(
    comparison: RankComparison,
    *,
    test: RankTest = "nemenyi",
    ax: Axes | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw a critical difference diagram: mean ranks on a scale, the best at the left.

    A thick bar joins methods that are not distinguishable. The critical difference of Nemenyi's test is drawn above the
    scale.

    Args:
        comparison: From :func:`fedlas.stats.compare_ranks`.
        test: Which test decides about the bars: Nemenyi's, or Wilcoxon's over pairs with Holm's correction.
        ax: Where to draw; None: a new figure, as high as needed.
        theme: Palette.

    Returns:
        The Axes.

    Raises:
        InputError: For another comparison, or an unknown test.

    Example:
        >>> from fedlas.stats import compare_ranks
        >>> nll = {"a": [0.2, 0.3, 0.4], "b": [0.3, 0.4, 0.5], "c": [0.4, 0.5, 0.3]}
        >>> ax = critical_difference_diagram(compare_ranks(nll, higher_is_better=False))
        >>> [text.get_text() for text in ax.texts if text.get_text().startswith("a ")]
        ['a 1.33']

    Source:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006), figure 1.
    """
    value: object = comparison
    if not isinstance(value, RankComparison):
        fix = "Pass fedlas.stats.compare_ranks(values, higher_is_better=...)."
        raise InputError("comparison must be a RankComparison", describe(value), fix)
    names = list(comparison.ranks)
    groups = comparison.groups(test)
    k = len(names)
    half = (k + 1) // 2
    top = 0.42 if test == "nemenyi" else 0.2
    first = 0.16 + _BAR_HEIGHT * len(groups)
    height = first + _LINE_HEIGHT * half
    # Room for the longest name at both sides of a scale of fixed length.
    side = 0.3 + 0.067 * (5 + max(map(len, names)))
    margin = side / _SCALE_WIDTH * (k - 1)
    axes, palette = styled_axes(theme, ax, size=(_SCALE_WIDTH + 2 * side, top + height))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set(xlim=(1 - margin, k + margin), ylim=(-height, top), xticks=[], yticks=[])
    style = {"color": palette.ink, "linewidth": 1.0, "solid_capstyle": "butt"}
    text = {"color": palette.ink, "fontsize": 8, "va": "center", "parse_math": False}

    # The scale, and the critical difference above it.
    axes.plot([1, k], [0, 0], **style)
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.05], **style)
        axes.text(tick, 0.1, str(tick), **{**text, "color": palette.muted, "ha": "center"})
    if test == "nemenyi":
        size = comparison.critical_difference
        axes.plot([1, 1 + size], [0.24, 0.24], **{**style, "linewidth": 1.6})
        axes.text(1 + size / 2, 0.34, f"CD {size:.2f}", **{**text, "ha": "center"})

    # Names: the better half at the left, from the best down, the others at the right, from the worst down.
    for place, (name, rank) in enumerate(comparison.ranks.items()):
        on_left = place < half
        low = -first - _LINE_HEIGHT * (place if on_left else k - 1 - place)
        end = 1.06 - 0.06 * k if on_left else 1.06 * k - 0.06
        axes.plot([rank, rank, end], [0, low, low], **style)
        words = printable(f"{name} {rank:.2f}")
        gap = 0.02 * (k - 1) * (-1 if on_left else 1)
        axes.text(end + gap, low, words, **text, ha="right" if on_left else "left")

    # Bars below the scale.
    for number, group in enumerate(groups):
        ranks = [comparison.ranks[name] for name in group]
        low = -0.1 - _BAR_HEIGHT * number
        ends = [min(ranks) - 0.03, max(ranks) + 0.03]
        axes.plot(ends, [low, low], color=palette.lines[2], linewidth=3, solid_capstyle="butt")
    return axes
