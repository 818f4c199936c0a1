"""The reliability diagram of the positive class: its frequency against its probability."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_kinds
from fedlas.binary import integrated_calibration, logistic_recalibration, positive_bins
from fedlas.binary.positive import positive_class
from fedlas.plots.theme import (
    REFERENCE,
    Axes,
    ThemeName,
    backing,
    canvas,
    caption,
    entitle,
    legend,
    name_axis,
)
from fedlas.predictions import Predictions

_STRIP_BINS = 50


@check_kinds
def positive_reliability_diagram(
    predictions: Predictions,
    *,
    positive: int | None = None,
    num_bins: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
    replicates: int = 199,
) -> Axes:
    r"""Draw frequency over probability of the positive class: bins with intervals, and a smooth curve with its band.

    A point is a bin of equal width with Wilson's 95 % interval of its frequency. The line is the loess curve of
    :func:`~fedlas.binary.integrated_calibration` with its pointwise 95 % interval, from which ICI is the mean distance
    of the diagonal. Below the diagonal the probability is too high. The strip beneath shows how many samples have which
    probability, on a square-root scale: those of the positive class upward, the others downward.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 10 samples.
        positive: The class to set against the rest; None: class 1 of two.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        ax: Where to draw; a new figure if None. The strip is an inset below it, which needs room (constrained layout
            makes it).
        title: Above the axes, left-aligned.
        theme: Palette.
        replicates: Of the curve's interval; 0 draws none.

    Returns:
        The main Axes; ``.figure`` is its figure and ``.child_axes[0]`` the strip.

    Raises:
        InputError: If an argument is out of range, or for predictions of other than two classes without ``positive``.

    Example:
        >>> import torch
        >>> logits = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.softmax(1)[:, 1], generator=torch.Generator().manual_seed(1)).long()
        >>> ax = positive_reliability_diagram(Predictions(logits, happened), replicates=39)
        >>> ax.texts[0].get_text()
        'slope 1.16  ·  ICI 2.83 %\nn = 500'

    Source:
        Van Calster et al., "A calibration hierarchy for risk models was defined", Journal of Clinical Epidemiology 74
        (2016); Austin and Steyerberg 2019 for the curve.
    """
    data = positive_class(predictions, positive)
    bins = positive_bins(predictions, positive=positive, num_bins=num_bins)
    curve = integrated_calibration(predictions, positive=positive, replicates=replicates)

    # The diagonal, the curve with its band, and the bins.
    axes, palette = canvas(theme, ax, size=(3.6, 4.4), grid="both")
    axes.plot([0, 1], [0, 1], color=palette.ink, zorder=1, **REFERENCE)
    low, frequency, high = (
        np.clip(each, 0, 1) for each in (curve.low, curve.frequency, curve.high)
    )
    if replicates:
        axes.fill_between(
            curve.probability,
            low,
            high,
            color=palette.lines[2],
            alpha=0.18,
            linewidth=0,
            zorder=1.5,
        )
    axes.plot(curve.probability, frequency, color=palette.lines[2], linewidth=1.6, zorder=2)
    filled = bins.count > 0
    x = bins.probability[filled]
    y = bins.frequency[filled]
    size = np.sqrt(bins.count[filled] / bins.count.max())
    axes.vlines(x, bins.low[filled], bins.high[filled], color=palette.muted, linewidth=1, zorder=3)
    axes.scatter(x, y, s=9 + 40 * size**2, color=palette.ink, linewidth=0, zorder=4, clip_on=False)

    # Scales and text.
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    axes.set_box_aspect(1)
    name_axis(axes.yaxis, "frequency of the positive class", palette)
    try:
        slope = (
            f"slope {logistic_recalibration(predictions, positive=positive).slope.value:.2f}  ·  "
        )
    except InputError:  # of outcomes that can be separated, or of one outcome alone, there is none
        slope = ""
    axes.text(
        0.97, 0.04, f"{slope}ICI {100 * curve.ici.value:.3g} %\nn = {data.num_samples:,}",
        transform=axes.transAxes, ha="right", fontsize=9, fontweight="bold", color=palette.ink, bbox=backing(palette),
    )  # fmt: skip
    if title is not None:
        entitle(axes, title, palette)

    # The strip: how many samples of each outcome have which probability.
    axes.tick_params(labelbottom=False)
    strip, _ = canvas(theme, axes.inset_axes((0, -0.2, 1, 0.15)), grid="x")
    edges = np.linspace(0, 1, _STRIP_BINS + 1)
    style: dict[str, Any] = {"align": "edge", "width": 1 / _STRIP_BINS, "linewidth": 0}
    counts = [np.histogram(data.probability[data.outcome == label], edges)[0] for label in (1, 0)]
    up = np.sqrt(counts[0])
    down = -np.sqrt(counts[1])
    strip.bar(edges[:-1], up, color=palette.over, label="positive", **style)
    strip.bar(edges[:-1], down, color=palette.under, label="other", **style)
    strip.axhline(0, color=palette.muted, linewidth=0.6)
    most = float(max(up.max(), -down.min()))
    strip.set(xlim=(0, 1), ylim=(-most, most), xticks=np.linspace(0, 1, 6), yticks=[])
    legend(axes, palette, handles=strip.containers, loc="upper left", handlelength=1.2)
    caption(strip, palette, "probability of the positive class")
    return axes
