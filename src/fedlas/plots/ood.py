"""Plots of OOD detection: ROC curves and score histograms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedlas._core.check import InputError, as_float_array, check_count, describe
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas.plots.theme import (
    REFERENCE,
    Axes,
    ThemeOption,
    draw_legend_below,
    set_axis_label,
    set_labels,
    styled_axes,
)
from fedlas.plots.theme import draw_legend as draw_legend

_TAIL_SHARE = 0.005
"""Share of the samples at each end that the axis of a histogram may cut off."""


@check_argument_types
def roc_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
    legend: bool = True,
) -> Axes:
    """Draw ROC curves: the share of OOD samples detected over the share of in-distribution samples flagged.

    Args:
        curves: False and true positive rates, each ``(P,)`` in ``[0, 1]`` and ascending, by name; see
            :func:`fedlas.zoo.ood.roc_points`. The figure shows nothing but the names, so put the area into them.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.
        legend: Whether to name the curves, next to the axes in a figure that is wider than high, else below.

    Returns:
        The Axes, with the diagonal of chance as its first line.

    Raises:
        InputError: If there are no curves, or one is not as described.

    Example:
        >>> ax = roc_curves({"a score": ([0.0, 0.2, 1.0], [0.0, 0.9, 1.0])})
        >>> [line.get_label() for line in ax.lines]
        ['chance', 'a score']
    """
    if not curves:
        raise InputError(
            "curves must have at least one entry",
            "none",
            "Pass false and true positive rates by name.",
        )
    for name, sides in curves.items():
        if not isinstance(sides, tuple | list) or len(sides) != 2:
            raise InputError(
                f"rates of {name} must be two arrays, of false and true positives",
                describe(sides),
                "Pass what fedlas.zoo.ood.roc_points returns.",
            )
    checked = {
        name: tuple(_check_rates(name, side) for side in sides) for name, sides in curves.items()
    }
    axes, palette = styled_axes(theme, ax, size=(6.2, 4.0))
    # The curves, against chance.
    axes.plot(
        [0, 1], [0, 1], color=palette.muted, linewidth=0.9, linestyle=(0, (4, 3)), label="chance"
    )
    for i, (name, (false, true)) in enumerate(checked.items()):
        if len(false) != len(true):
            raise InputError(
                f"both rates of {name} must have the same length",
                f"{len(false)} and {len(true)}",
                "Pass what fedlas.zoo.ood.roc_points returns.",
            )
        axes.plot(false, true, linewidth=1.5, label=name, **palette.line(i))
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    axes.set_box_aspect(1)
    set_labels(
        axes, palette, "share of in-distribution flagged", "share of OOD flagged", title=title
    )
    if legend and axes.figure.get_figwidth() < axes.figure.get_figheight():
        axes.set_anchor("N")  # the square axes leave the rest of the height to the legend
        draw_legend_below(axes, palette)
    elif legend:
        draw_legend(
            axes,
            palette,
            share=8.5 / 9,
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            handlelength=2.6,
        )
    return axes


@check_argument_types
def score_histogram(
    id_score: ArrayLike,
    ood_score: ArrayLike,
    *,
    num_bins: int = 40,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
    legend: bool = True,
) -> Axes:
    """Draw histograms of a score on in-distribution and on OOD samples, each normalized to 1.

    In-distribution bars are plain gray, OOD ones a hatched outline. The dashed line is the 95 % quantile of the
    in-distribution samples: OOD samples to its left are not detected.

    Args:
        id_score: ``(N,)``, finite, higher = more OOD.
        ood_score: ``(M,)``, the same.
        num_bins: Bins between the 0.5 % and 99.5 % quantiles of all samples; the outer bins count the rest.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.
        legend: Whether to name the two histograms.

    Returns:
        The Axes.

    Raises:
        InputError: If scores are not one-dimensional and finite, or an argument is out of range.

    Example:
        >>> ax = score_histogram([0.0, 0.1, 0.2], [0.2, 0.9], num_bins=5, title="MSP")
        >>> ax.get_title(loc="left"), len(ax.patches)
        ('MSP', 10)
    """
    check_count("num_bins", num_bins)
    id_values, ood_values = (
        _check_scores(*named) for named in (("id_score", id_score), ("ood_score", ood_score))
    )
    # A few far scores would press all others into one bin: they are drawn at the ends.
    low, high = np.quantile(np.concatenate((id_values, ood_values)), (_TAIL_SHARE, 1 - _TAIL_SHARE))
    if not high > low:
        low = low - 0.5
        high = high + 0.5
    edges = np.linspace(low, high, num_bins + 1)
    axes, palette = styled_axes(theme, ax, size=(3.6, 2.7), grid="y")
    shares = [
        np.histogram(values.clip(low, high), edges)[0] / len(values)
        for values in (id_values, ood_values)
    ]
    width = np.diff(edges)
    axes.bar(
        edges[:-1], shares[0], width, align="edge", color=palette.bar, edgecolor=palette.background, linewidth=0.4,
        label="in-distribution",
    )  # fmt: skip
    axes.bar(
        edges[:-1], shares[1], width, align="edge", facecolor="none", edgecolor=palette.over, linewidth=0.7,
        hatch="//", label="OOD",
    )  # fmt: skip
    # Where 95 % of the in-distribution samples are accepted.
    threshold = np.quantile(id_values, 0.95, method="inverted_cdf")
    axes.axvline(min(max(threshold, low), high), color=palette.ink, **REFERENCE)
    axes.xaxis.set_major_locator(require("matplotlib.ticker", extra="tables").MaxNLocator(nbins=5))
    set_labels(axes, palette, "", "share of samples", title=title)
    # To the left: matplotlib writes the common offset of scores that differ little at the right.
    set_axis_label(axes.xaxis, "score (higher = more OOD)", palette, loc="left")
    if legend:
        draw_legend(axes, palette, loc="best")
    return axes


def _check_rates(name: str, given: ArrayLike) -> Any:
    rates = as_float_array(given)
    if (
        rates.ndim != 1
        or len(rates) < 2
        or not ((rates >= 0) & (rates <= 1)).all()
        or (np.diff(rates) < 0).any()
    ):
        raise InputError(
            f"rates of {name} must be at least 2 numbers in [0, 1], in ascending order",
            describe(rates),
            "Pass what fedlas.zoo.ood.roc_points returns.",
        )
    return rates


def _check_scores(name: str, given: ArrayLike) -> Any:
    values = as_float_array(given)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(
            f"{name} must have shape (N,), N at least 1, and be finite",
            describe(values),
            "Drop NaN and infinite scores.",
        )
    return values
