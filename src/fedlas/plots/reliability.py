"""The reliability diagram: is a classifier right as often as it says?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.extras import require
from fedlas.metrics import reliability_bins
from fedlas.plots.consistency import ConsistencyBand, consistency_band
from fedlas.plots.theme import Theme, backing, dress, entitle, new_axes, theme_named
from fedlas.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 10
"""Bins with fewer samples are drawn faint: the accuracy of a handful says little."""
_OVER_HATCH, _UNDER_HATCH = "////", "\\\\\\\\"


def reliability_diagram(
    predictions: Predictions,
    *,
    num_bins: int = 15,
    ax: Axes | None = None,
    title: str | None = None,
    theme: Literal["light", "dark"] = "light",
    legend: bool = True,
    band: bool = False,
) -> Axes:
    r"""Draw accuracy against confidence in equal-width bins, the gap between the two, and each bin's share of samples.

    Grey bars are accuracy. The hatched part is the gap to the bin's mean confidence: ``///`` where the classifier
    claims more than it achieves (over-confident), ``\\\`` where it claims less. Bins of fewer than 10 samples are
    faint. The strip beneath shows which share of the samples falls into each bin; ECE is the mean gap with those shares
    as weights.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        ax: Where to draw; a new figure if None. The strip is an inset below it, so leave room there (constrained layout
            does).
        title: Above the axes, left-aligned.
        theme: Palette.
        legend: Whether to name the two kinds of gap.
        band: Whether to draw the 95 % consistency band, see :func:`~fedlas.plots.consistency_band`: where the accuracy
            of each bin would lie if the model were calibrated.

    Returns:
        The main Axes; ``.figure`` is its figure and ``.child_axes[0]`` the strip.

    Raises:
        InputError: If ``predictions`` are something else, or an argument is out of range.

    Example:
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 0])
        >>> ax = reliability_diagram(p, num_bins=5, title="three samples")
        >>> ax.get_title(loc="left"), ax.texts[0].get_text()
        ('three samples', 'ECE 29.9 %  ·  n = 3')

    Source:
        DeGroot and Fienberg 1983; Niculescu-Mizil and Caruana 2005; Guo et al. 2017 (arXiv 1706.04599) for the gap;
        Bröcker and Smith 2007 for the band.
    """
    owner = "reliability_diagram"
    palette = theme_named(owner, theme)
    check_count(owner, "num_bins", num_bins)
    if not isinstance(predictions, Predictions):
        raise InputError(
            owner, "predictions must be Predictions", describe(predictions), "Wrap them: Predictions(logits, target)."
        )
    bins = reliability_bins(predictions, num_bins=num_bins)
    edges, count, confidence, accuracy = (
        value.detach().cpu().double().numpy() for value in (bins.edges, bins.count, bins.confidence, bins.accuracy)
    )
    filled = count > 0
    share = count / count.sum()
    gap = np.where(filled, confidence - accuracy, 0.0)
    ece = float(share @ np.abs(gap))

    axes: Any = new_axes(palette, size=(3.6, 4.6)) if ax is None else ax
    dress(axes, palette)
    left, width = edges[:-1], np.diff(edges)
    faint = np.where(count < _FEW, 0.35, 1.0)
    for i in np.flatnonzero(filled):
        axes.bar(
            left[i], accuracy[i], width[i], align="edge", alpha=faint[i], linewidth=0.6, color=palette.bar,
            edgecolor=palette.background,
        )  # fmt: skip
        _draw_gap(axes, left[i], width[i], accuracy[i], gap[i], palette=palette, alpha=faint[i])
    if band:
        _draw_band(axes, consistency_band(predictions, num_bins=num_bins), edges, faint, palette)
    axes.plot([0, 1], [0, 1], color=palette.ink, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), yticks=np.linspace(0, 1, 6))
    axes.set_box_aspect(1)
    axes.grid(axis="y", color=palette.grid, linewidth=0.8)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel("accuracy", color=palette.ink, fontsize=9)
    axes.text(
        0.04, 0.955, f"ECE {100 * ece:.3g} %  ·  n = {predictions.num_samples:,}", transform=axes.transAxes, va="top",
        fontsize=9, fontweight="bold", color=palette.ink, bbox=backing(palette),
    )  # fmt: skip
    if title is not None:
        entitle(axes, title, palette)
    if legend:
        _explain(axes, palette)
    _draw_shares(axes, left, width, share, palette)
    return axes


def _draw_gap(
    axes: Any, left: float, width: float, accuracy: float, gap: float, *, palette: Theme, alpha: float
) -> None:
    over = gap > 0
    axes.bar(
        left, abs(gap), width, bottom=min(accuracy, accuracy + gap), align="edge", alpha=alpha, linewidth=0.6,
        facecolor=palette.over if over else palette.under, edgecolor=palette.background,
        hatch=_OVER_HATCH if over else _UNDER_HATCH,
    )  # fmt: skip


def _draw_band(axes: Any, band: ConsistencyBand, edges: Any, faint: Any, palette: Theme) -> None:
    for i in np.flatnonzero(np.isfinite(band.low)):
        ends = edges[i : i + 2]
        axes.fill_between(
            ends, band.low[i], band.high[i], facecolor=palette.ink, alpha=0.15 * faint[i], linewidth=0, zorder=2.5
        )
        for end in (band.low[i], band.high[i]):
            axes.plot(ends, [end, end], color=palette.ink, linewidth=1.2, alpha=faint[i], zorder=2.6)


def _explain(axes: Any, palette: Theme) -> None:
    patch = require("matplotlib.patches", extra="plots").Patch
    handles = [
        patch(facecolor=palette.over, edgecolor=palette.background, hatch=_OVER_HATCH, label="over-confident"),
        patch(facecolor=palette.under, edgecolor=palette.background, hatch=_UNDER_HATCH, label="under-confident"),
    ]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.01, 0.92), frameon=False, fontsize=8,
        labelcolor=palette.ink, handlelength=1.6, handleheight=1.0,
    )  # fmt: skip


def _draw_shares(axes: Any, left: Any, width: Any, share: Any, palette: Theme) -> None:
    strip = axes.inset_axes((0, -0.24, 1, 0.2))
    dress(strip, palette)
    strip.bar(left, share, width, align="edge", color=palette.bar, linewidth=0.6, edgecolor=palette.background)
    strip.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=[0, 0.5, 1])
    strip.grid(axis="y", color=palette.grid, linewidth=0.8)
    strip.set_ylabel("share", color=palette.ink, fontsize=9)
    strip.set_xlabel("confidence", color=palette.ink, fontsize=9)
