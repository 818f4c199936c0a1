"""Histograms of the confidence of correct and of wrong predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import check_count
from fedlas.plots.theme import REFERENCE, ThemeName, backing, canvas, caption
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import check_measurable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confidence_histogram"]


def confidence_histogram(
    predictions: Predictions | TopLabel,
    *,
    num_bins: int = 20,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw the histograms of the confidence of right predictions (upward) and of wrong ones (downward).

    Each histogram sums to 100 %, so that a few wrong predictions are visible next to many right ones. The dashed lines
    are the mean confidences. A useful confidence separates right predictions, at the right, from wrong ones; even a
    calibrated one may not.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``. With weights, shares and means are
            weighted.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.

    Returns:
        The Axes; shares of right predictions are positive, those of wrong ones negative, in percent.

    Raises:
        InputError: If ``predictions`` are something else, or an argument is out of range.

    Example:
        >>> ax = confidence_histogram(Predictions([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 0]), num_bins=2)
        >>> [float(bar.get_height()) for bar in ax.patches]
        [0.0, 100.0, 0.0, -100.0]
    """
    owner = "confidence_histogram"
    check_count(owner, "num_bins", num_bins)
    check_measurable(owner, predictions)
    confidence, correct = predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()
    weights = np.ones_like(confidence) if predictions.weights is None else predictions.weights.numpy()
    edges = np.linspace(0, 1, num_bins + 1)
    axes, palette = canvas(owner, theme, ax, size=(4.2, 3.2), grid="y")

    # Right predictions upward, wrong ones downward, each with its mean.
    tallest = 0.0
    for kind, sign, color, hatch in ((correct, 1.0, palette.under, None), (~correct, -1.0, palette.over, "////")):
        kind &= weights > 0
        count, total = int(kind.sum()), weights[kind].sum()
        shares = 100 * np.histogram(confidence[kind], edges, weights=weights[kind])[0] / (total or 1.0)
        tallest = max(tallest, float(shares.max()))
        name = "right" if sign > 0 else "wrong"
        axes.bar(
            edges[:-1], sign * shares, 1 / num_bins, align="edge", facecolor=color, hatch=hatch, linewidth=0.6,
            edgecolor=palette.background,
        )  # fmt: skip
        mean = float(np.average(confidence[kind], weights=weights[kind])) if count else float("nan")
        said = f"{count:,} {name}" + (f", mean {100 * mean:.1f} %" if count else "")
        axes.text(
            0.02, 0.96 if sign > 0 else 0.04, said, transform=axes.transAxes, fontsize=9, color=palette.ink,
            va="top" if sign > 0 else "bottom", fontweight="bold", bbox=backing(palette),
        )  # fmt: skip
        if count:
            ends = (0.5, 0.87) if sign > 0 else (0.13, 0.5)  # up to the text
            axes.axvline(mean, *ends, color=palette.ink, **REFERENCE)
    # Both halves have the same scale, and shares without a sign.
    reach = 1.35 * max(tallest, 1.0)  # with room for the text
    axes.axhline(0, color=palette.muted, linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(-reach, reach), xticks=np.linspace(0, 1, 6))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{abs(value):g}")
    caption(axes, palette, "confidence", "share of its kind, %", title=title)
    return axes
