"""The reliability diagram: accuracy against confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import check_count
from fedlas._core.extras import require
from fedlas.metrics import reliability_bins
from fedlas.metrics.scan import check_predictions
from fedlas.plots.consistency import ConsistencyBand, consistency_band
from fedlas.plots.theme import REFERENCE, Theme, ThemeName, backing, canvas, caption, entitle, name_axis
from fedlas.plots.theme import legend as draw_legend
from fedlas.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["reliability_diagram"]

_FEW = 10
"""Bins with fewer samples are drawn faint, since their accuracy is uncertain."""
_OVER_HATCH, _UNDER_HATCH = "////", "\\\\\\\\"


def reliability_diagram(
    predictions: Predictions,
    *,
    num_bins: int = 15,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
    legend: bool = True,
    band: bool = False,
) -> Axes:
    r"""Draw accuracy against confidence in equal-width bins, the gap between the two, and each bin's share of samples.

    Gray bars are accuracy. The hatched part is the gap to the bin's mean confidence: ``///`` where confidence exceeds
    accuracy (over-confident), ``\\\`` where it is below. Bins of fewer than 10 samples are faint. The strip below
    shows the share of the samples in each bin; ECE is the mean gap weighted by those shares.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        ax: Where to draw; a new figure if None. The strip is an inset below it, which needs room (constrained layout
            makes it).
        title: Above the axes, left-aligned.
        theme: Palette.
        legend: Whether to name the two kinds of gap.
        band: Whether to draw the 95 % consistency band, see :func:`~fedlas.plots.consistency_band`: the range of each
            bin's accuracy if the model were calibrated.

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
    check_count(owner, "num_bins", num_bins)
    check_predictions(owner, predictions)
    bins = reliability_bins(predictions, num_bins=num_bins)
    edges, count, confidence, accuracy = (
        value.detach().cpu().double().numpy() for value in (bins.edges, bins.count, bins.confidence, bins.accuracy)
    )
    filled = count > 0
    share = count / count.sum()
    gap = np.where(filled, confidence - accuracy, 0.0)
    ece = float(share @ np.abs(gap))

    # Accuracy and gap of each bin, the band, and the diagonal.
    axes, palette = canvas(owner, theme, ax, size=(3.6, 4.6), grid="y")
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
    axes.plot([0, 1], [0, 1], color=palette.ink, zorder=3, **REFERENCE)

    # Scales and text.
    axes.set(xlim=(0, 1), ylim=(0, 1), yticks=np.linspace(0, 1, 6))
    axes.set_box_aspect(1)
    axes.tick_params(labelbottom=False)
    name_axis(axes.yaxis, "accuracy", palette)
    axes.text(
        0.04, 0.955, f"ECE {100 * ece:.3g} %  ·  n = {predictions.num_samples:,}", transform=axes.transAxes, va="top",
        fontsize=9, fontweight="bold", color=palette.ink, bbox=backing(palette),
    )  # fmt: skip
    if title is not None:
        entitle(axes, title, palette)
    if legend:
        _explain(axes, palette)

    # The strip: the share of the samples in each bin.
    strip, _ = canvas(owner, theme, axes.inset_axes((0, -0.24, 1, 0.2)), grid="y")
    strip.bar(left, share, width, align="edge", color=palette.bar, linewidth=0.6, edgecolor=palette.background)
    strip.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=[0, 0.5, 1])
    caption(strip, palette, "confidence", "share")
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
    size: dict[str, Any] = {"handlelength": 1.6, "handleheight": 1.0}
    draw_legend(axes, palette, handles=handles, loc="upper left", bbox_to_anchor=(0.01, 0.92), **size)
