"""Reliability diagrams of the predicted class: accuracy over confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedlas._core.check import check_choice, check_count
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas.metrics import reliability_bins
from fedlas.plots.smooth_curve import calibration_curve, consistency_band
from fedlas.plots.theme import (
    REFERENCE,
    Axes,
    Theme,
    ThemeOption,
    draw_legend_below,
    set_axis_label,
    set_labels,
    set_subtitle,
    set_title,
    styled_axes,
)
from fedlas.predictions import Predictions, PredictionTable, TopLabel
from fedlas.predictions.any_predictions import require_top_label
from fedlas.resample.effective import effective_sample_size
from fedlas.stats.proportion import wilson_interval

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray

Estimator = Literal["bins", "smooth", "isotonic"]
Scale = Literal["linear", "logit"]
_LOGIT_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_MIN_PROBABILITY = 1e-6
_GAP_WIDTH = 4.0
"""Points of width of a gap; other marks follow from it."""


@check_argument_types
def reliability_diagram(
    predictions: Predictions | TopLabel | PredictionTable,
    *,
    num_bins: int = 15,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
    legend: bool = True,
    band: bool = False,
    shares: bool = True,
    estimator: Estimator = "bins",
    scale: Scale = "linear",
) -> Axes:
    """Draw accuracy over confidence, in equal-width bins, as a smooth curve or as an isotonic curve.

    A point is a bin: its mean confidence and its accuracy, with an area that grows with its samples. The colored bar
    from the diagonal to the point is the gap, below it where the classifier claims more than it achieves
    (over-confident), above it where it claims less; the thin line is Wilson's 95 % interval of the accuracy. ECE is
    the mean length of the gaps with the shares of the samples as weights.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``. With weights, shares and accuracies are
            weighted, and intervals are those of the effective number of samples, which the text names.
        num_bins: Number of bins of width ``1 / num_bins`` on ``[0, 1]``.
        ax: Where to draw; a new figure if None. The strip is an inset below it, which needs room (constrained layout
            makes it).
        title: Above the axes, left-aligned.
        theme: Palette.
        legend: Whether to name the two kinds of gap.
        band: Whether to draw the 95 % consistency band, see :func:`~fedlas.plots.consistency_band`: the range of each
            bin's accuracy if the model were calibrated.
        shares: Whether a strip beneath shows the share of the samples in each bin.
        estimator: ``"bins"``; or ``"smooth"`` or ``"isotonic"``, a curve with its 95 % band, see
            :func:`~fedlas.plots.calibration_curve`. A curve has no bins whose number and edges one could choose.
        scale: ``"logit"`` spreads confidences near 0 and 1, where those of good models crowd.

    Returns:
        The main Axes; ``.figure`` is its figure and ``.child_axes[0]`` the strip, if there is one.

    Raises:
        InputError: If ``predictions`` are something else, or an argument is out of range.

    Example:
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], [0, 0, 0])
        >>> ax = reliability_diagram(p, num_bins=5, title="three samples")
        >>> ax.get_title(loc="left"), ax.texts[0].get_text()
        ('three samples', 'Top-label ECE 29.92 %  ·  n = 3')

    Source:
        DeGroot and Fienberg 1983; Niculescu-Mizil and Caruana 2005; Guo et al. 2017 (arXiv 1706.04599) for the gap;
        Bröcker and Smith 2007 for the band; Wilson 1927 for the interval.
    """
    check_count("num_bins", num_bins)
    check_choice("estimator", estimator, get_args(Estimator))
    check_choice("scale", scale, get_args(Scale))
    predictions = require_top_label(predictions)
    bins = reliability_bins(predictions, num_bins=num_bins)
    count, confidence, accuracy = bins.count, bins.confidence, bins.accuracy
    share = count / count.sum()
    filled = count > 0
    x = confidence[filled]
    y = accuracy[filled]
    ece = float(share[filled] @ np.abs(x - y))

    # The diagonal and, on it, the band, the interval of each accuracy, the gaps and the points.
    axes, palette = styled_axes(theme, ax, size=(3.6, 4.6 if shares else 4.1), grid="both")
    # the ends of a logit axis are infinite
    inside = (0.0, 1.0) if scale == "linear" else (_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    x = np.clip(x, *inside)
    y = np.clip(y, *inside)
    axes.plot(inside, inside, color=palette.ink, zorder=1, **REFERENCE)
    if estimator != "bins":
        curve = calibration_curve(predictions, estimator)
        parts = [curve.confidence, curve.accuracy, curve.low, curve.high]
        place, height, low, high = np.clip(parts, *inside)
        axes.plot(place, height, color=palette.over, linewidth=1.8, zorder=3)
        _fill_band(axes, palette, place, low, high)
    elif band:
        expected = consistency_band(predictions, num_bins=num_bins)
        ends = np.clip([expected.low[filled], expected.high[filled]], *inside)
        _fill_band(axes, palette, x, *ends)
    if estimator == "bins":
        ends = np.clip(
            wilson_interval(y, bins.effective_count[filled], confidence_level=0.95), *inside
        )
        axes.vlines(x, *ends, color=palette.muted, linewidth=1, zorder=2)
        _draw_gaps(axes, palette, x, y, np.sqrt(share[filled] / share.max()))

    # Scales and text.
    set_probability_axes(axes, scale, x)
    axes.set_box_aspect(1)
    set_axis_label(axes.yaxis, "accuracy", palette)
    effective_text = (
        ""
        if predictions.weights is None
        else f", worth {effective_sample_size(predictions.tensors().weights):,.0f}"
    )
    is_binary = isinstance(predictions, Predictions) and predictions.num_classes == 2
    error = "Top-label ECE" if is_binary else "ECE"
    set_subtitle(
        axes,
        f"{error} {100 * ece:.2f} %  ·  n = {predictions.num_samples:,}{effective_text}",
        palette,
    )
    if title is not None:
        set_title(axes, title, palette, above_subtitle=True)
    if not shares:
        set_axis_label(axes.xaxis, "confidence", palette)
        _draw_color_legend(axes, palette, show=legend and estimator == "bins")
        return axes

    # The strip: the share of the samples in each bin.
    axes.tick_params(labelbottom=False)
    strip, _ = styled_axes(theme, axes.inset_axes((0, -0.2, 1, 0.15)), grid="y")
    bar = {"align": "edge", "color": palette.bar, "linewidth": 0.6, "edgecolor": palette.background}
    strip.bar(bins.edges[:-1], share, np.diff(bins.edges), **bar)
    set_probability_axes(strip, scale, x, "x")
    top = float(share.max())
    strip.set(ylim=(0, 1.05 * top), yticks=[0, top], yticklabels=["0", f"{top:.2g}"])
    set_labels(strip, palette, "confidence", "share")
    _draw_color_legend(strip, palette, show=legend and estimator == "bins")
    return axes


def _fill_band(
    axes: Axes, palette: Theme, x: FloatArray, low: FloatArray, high: FloatArray
) -> None:
    """Fill the band over ``x`` between two curves."""
    axes.fill_between(x, low, high, color=palette.muted, alpha=0.22, linewidth=0, zorder=0.9)


def _draw_gaps(axes: Axes, palette: Theme, x: FloatArray, y: FloatArray, size: FloatArray) -> None:
    """Draw the gap and the point of each bin, thinner for bins with few samples."""
    look: dict[str, Any] = {"color": np.where(x > y, palette.over, palette.under)}
    width = _GAP_WIDTH * (0.3 + 0.7 * size)
    axes.vlines(x, np.minimum(x, y), np.maximum(x, y), linewidth=width, zorder=3, **look)
    axes.scatter(x, y, s=9 + 40 * size**2, linewidth=0, zorder=4, clip_on=False, **look)


def set_probability_axes(axes: Axes, scale: Scale, confidence: Any, axis_names: str = "xy") -> None:
    """Set scale, limits and ticks of the axes of a diagram.

    Args:
        axes: The Axes.
        scale: ``"linear"`` from 0 to 1; ``"logit"`` a little beyond the range of the confidences.
        confidence: Confidences that the axes must include.
        axis_names: Names of the axes.
    """
    least = np.min(confidence)
    most = np.max(confidence)
    for axis in axis_names:
        if scale == "linear":
            axes.set(**{f"{axis}lim": (0, 1), f"{axis}ticks": np.linspace(0, 1, 6)})
            continue
        ends = [least / (2 - least), 1 - (1 - most) / (1 + most)]  # half the odds, twice the odds
        low, high = np.clip(ends, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        ticks = [p for p in _LOGIT_TICKS if low <= p <= high]
        getattr(axes, f"set_{axis}scale")("logit")
        axes.set(
            **{
                f"{axis}lim": (low, high),
                f"{axis}ticks": ticks,
                f"{axis}ticklabels": [f"{p:g}" for p in ticks],
            }
        )
        axes.minorticks_off()


def _draw_color_legend(axes: Axes, palette: Theme, *, show: bool) -> None:
    """Draw a legend of the two colors below the axes."""
    if not show:
        return
    patch = require("matplotlib.patches", extra="tables").Patch
    handles = [
        patch(facecolor=palette.over, edgecolor=palette.background, label="over-confident"),
        patch(facecolor=palette.under, edgecolor=palette.background, label="under-confident"),
    ]
    draw_legend_below(axes, palette, handles=handles, handlelength=1.6, handleheight=1.0)
