"""Reliability diagrams of the event: observed frequency over predicted probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedlas._core.check import InputError, check_choice
from fedlas._core.kinds import check_argument_types
from fedlas.binary import (
    integrated_calibration,
    logistic_recalibration,
    positive_bins,
    spline_curve,
)
from fedlas.binary.positive import Positive, positive_class
from fedlas.plots.reliability import set_probability_axes
from fedlas.plots.theme import (
    REFERENCE,
    Axes,
    Theme,
    ThemeOption,
    set_axis_label,
    set_labels,
    set_subtitle,
    set_title,
    styled_axes,
)

if TYPE_CHECKING:
    from fedlas._core.types import BoolArray, FloatArray
    from fedlas.predictions import Predictions

RiskScale = Literal["auto", "linear", "zoom", "logit"]
Smoother = Literal["loess", "spline"]
_NUM_STRIP_BINS = 50
_TICK_STEPS = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
"""Distances between ticks: about five of them."""
_MIN_PROBABILITY = 1e-5
_MAX_TICKS = 5
_SPARSE_SHARE = 0.005
_SPARSE_COUNT = 5
"""Samples, and their share, at each end of the probabilities where a curve is dotted."""


@check_argument_types
def positive_reliability_diagram(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    num_bins: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
    replicates: int = 199,
    scale: RiskScale = "linear",
    axes_for: Sequence[Predictions] = (),
    smoother: Smoother = "loess",
) -> Axes:
    r"""Draw observed frequency over predicted probability: bins with intervals, and a smooth curve with its band.

    A point is a bin with Wilson's 95 % interval of its frequency. The line is the loess curve of
    :func:`~fedlas.binary.integrated_calibration` with its pointwise 95 % interval, from which ICI is the mean distance
    of the diagonal; it is dotted beyond all but the last few samples, and ends at the frame. Below the diagonal the
    probability is too high. The strip beneath shows how many samples have which probability, on a square-root scale:
    those of the positive class upward, the others downward.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 10 samples.
        event: Positive class, by name or index; None: the event of two classes.
        num_bins: Number of bins: of width ``1 / num_bins`` on ``[0, 1]``, or of as many samples each on other scales.
        ax: Where to draw; a new figure if None. The strip is an inset below it, which needs room (constrained layout
            makes it).
        title: Above the axes, left-aligned.
        theme: Palette.
        replicates: Number for the curve's interval; 0 draws none.
        scale: ``"linear"`` from 0 to 1; ``"zoom"`` from 0 to where nearly all probabilities are; ``"logit"``, which
            spreads small probabilities; ``"auto"``: zoom where nearly all are below 0.6, logit where half are below
            0.02.
        axes_for: Predictions whose probabilities all fit the axes, such as those before and after a calibrator, whose
            diagrams can then be compared; empty: these.
        smoother: Curve of the frequencies: ``"loess"``, or ``"spline"``, the restricted cubic spline of
            :func:`~fedlas.binary.spline_curve`. ICI is that of the loess with both.

    Returns:
        The main Axes; ``.figure`` is its figure and ``.child_axes[0]`` the strip.

    Raises:
        InputError: If an argument is out of range, or for predictions of other than two classes without ``event``.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.softmax(1)[:, 1], generator=torch.Generator().manual_seed(1)).long()
        >>> ax = positive_reliability_diagram(Predictions(logits, happened), replicates=39)
        >>> ax.texts[0].get_text()
        'slope 1.16  ·  ICI 2.83 %  ·  n = 500'

    Source:
        Van Calster et al., "A calibration hierarchy for risk models was defined", Journal of Clinical Epidemiology 74
        (2016); Austin and Steyerberg 2019 for the curve.
    """
    data = positive_class(predictions, event)
    check_choice("scale", scale, get_args(RiskScale))
    check_choice("smoother", smoother, get_args(Smoother))
    compared = [positive_class(each, event) for each in axes_for or (predictions,)]
    frame = probability_range(np.concatenate([each.probability for each in compared]), scale)
    if not frame.is_full:
        for each in axes_for or (predictions,):
            frame = frame.extend_to(_frequencies_to_show(each, event, num_bins, smoother))
    scheme = "equal-width" if frame.is_full else "equal-mass"
    bins = positive_bins(predictions, event=event, num_bins=num_bins, scheme=scheme)
    distance = integrated_calibration(predictions, event=event, replicates=replicates)
    curve: Any = distance if smoother == "loess" else spline_curve(predictions, event=event)

    # The diagonal, the curve with its band, and the bins.
    axes, palette = styled_axes(theme, ax, size=(3.6, 4.4), grid="both")
    # 0 and 1 are beyond an axis of log-odds
    ends = (frame.low, 1.0 - _MIN_PROBABILITY) if frame.logit else (0.0, 1.0)
    clip = partial(np.clip, a_min=ends[0], a_max=ends[1])
    axes.plot(
        [frame.low, frame.high], [frame.low, frame.high], color=palette.ink, zorder=1, **REFERENCE
    )
    place = curve.probability
    inside, solid = _curve_masks(curve, data, frame)
    style: dict[str, Any] = {"color": palette.lines[2], "linewidth": 1.6, "zorder": 2}
    if replicates or smoother == "spline":
        band = [clip(each[solid]) for each in (curve.low, curve.high)]
        axes.fill_between(
            place[solid], *band, color=palette.lines[2], alpha=0.18, linewidth=0, zorder=1.5
        )
    axes.plot(place[solid], curve.frequency[solid], label=smoother, **style)
    beyond = np.where(inside, curve.frequency, np.nan)
    axes.plot(place, beyond, linestyle=":", label="_beyond", **style | {"linewidth": 1.2})
    filled = (bins.count > 0) & (bins.probability <= frame.high)
    x = np.maximum(bins.probability[filled], frame.low)
    y = clip(bins.frequency[filled])
    size = np.sqrt(bins.count[filled] / bins.count.max())
    axes.vlines(
        x,
        clip(bins.low[filled]),
        clip(bins.high[filled]),
        color=palette.muted,
        linewidth=1,
        zorder=3,
    )
    axes.scatter(x, y, s=9 + 40 * size**2, color=palette.ink, linewidth=0, zorder=4, clip_on=False)

    # Scales and text.
    frame.set_axes(axes, "xy")
    axes.set_box_aspect(1)
    set_axis_label(axes.yaxis, f"frequency of the event ({smoother})", palette)
    try:
        line = logistic_recalibration(predictions, event=event)
        of = f" of {data.num_samples - line.left_out:,}" if line.left_out else ""
        slope = f"slope {line.slope.value:.2f}{of}  ·  "
    except InputError:  # of outcomes that can be separated, or of one outcome alone, there is none
        slope = ""
    set_subtitle(
        axes,
        f"{slope}ICI {100 * distance.ici.value:.2f} %  ·  n = {data.num_samples:,}",
        palette,
    )
    if title is not None:
        set_title(axes, title, palette, above_subtitle=True)

    _draw_strip(axes, palette, frame, data)
    return axes


def _curve_masks(
    curve: Any, data: Positive, frame: ProbabilityRange
) -> tuple[BoolArray, BoolArray]:
    """Return masks of the curve's points that lie in the frame, and of those that also lie where data are dense."""
    place, frequency = curve.probability, curve.frequency
    first, last = _dense_range(data)
    inside = (frequency > 0) & (frequency < 1)
    for values in (place, frequency):
        inside &= (values >= frame.low) & (values <= frame.high)
    return inside, inside & (place >= first) & (place <= last)


def _dense_range(data: Positive) -> FloatArray:
    """Return the two probabilities beyond which samples are too few for the curve."""
    share = min(max(_SPARSE_SHARE, _SPARSE_COUNT / data.num_samples), 0.25)
    return np.quantile(data.probability, [share, 1.0 - share])


def _frequencies_to_show(
    predictions: Predictions, event: int | str | None, num_bins: int, smoother: Smoother
) -> FloatArray:
    """Return the frequencies of bins and curve that the axes must include."""
    curve: Any = (
        integrated_calibration(predictions, event=event, replicates=0)
        if smoother == "loess"
        else spline_curve(predictions, event=event)
    )
    first, last = _dense_range(positive_class(predictions, event))
    solid = (curve.probability >= first) & (curve.probability <= last)
    bins = positive_bins(predictions, event=event, num_bins=num_bins, scheme="equal-mass")
    values = np.concatenate([curve.frequency[solid], bins.frequency[bins.count > 0]])
    return values[(values > 0) & (values < 1)]


def _draw_strip(axes: Axes, palette: Theme, frame: ProbabilityRange, data: Positive) -> None:
    """Draw the histogram of probabilities below a diagram: events upward, others downward."""
    axes.tick_params(labelbottom=False)
    strip, _ = styled_axes(palette, axes.inset_axes((0, -0.2, 1, 0.15)), grid="x")
    edges = frame.edges(_NUM_STRIP_BINS)
    probability = np.clip(data.probability, edges[0], edges[-1])
    style: dict[str, Any] = {"align": "edge", "width": np.diff(edges), "linewidth": 0}
    up, down = (
        np.sqrt(np.histogram(probability[part], edges, weights=data.counts[part])[0])
        for part in (data.outcome == 1, data.outcome == 0)
    )
    strip.bar(edges[:-1], up, color=palette.over, label="events", **style)
    strip.bar(edges[:-1], -down, color=palette.under, label="others", **style)
    strip.axhline(0, color=palette.muted, linewidth=0.6)
    most = float(max(*up, *down))
    frame.set_axes(strip, "x")
    strip.set(ylim=(-most, most), yticks=[])
    set_labels(strip, palette, "probability (events up, others down)")


@dataclass(frozen=True)
class ProbabilityRange:
    """Range and scale of the probability axes of a diagram."""

    low: float
    high: float
    logit: bool = False

    @property
    def is_full(self) -> bool:
        """Whether all probabilities are shown, on a linear scale."""
        return (self.low, self.high, self.logit) == (0.0, 1.0, False)

    def extend_to(self, frequency: FloatArray) -> ProbabilityRange:
        """Return the range extended to include the frequencies."""
        least, most = (float(f(frequency, initial=self.high)) for f in (np.min, np.max))
        if self.logit:
            low = self.low if least >= self.low else max(least / 1.2, _MIN_PROBABILITY)
            high = self.high if most <= self.high else min(1.2 * most, 1 - _MIN_PROBABILITY)
            return replace(self, low=low, high=high)
        half = _TICK_STEPS[int(np.searchsorted(_TICK_STEPS, most / 5))] / 2
        high = self.high if most <= self.high else float(min(1.0, half * np.ceil(most / half)))
        return replace(self, high=high)

    def edges(self, bins: int) -> FloatArray:
        """Return the edges of ``bins`` equal-width bins on the axis."""
        if not self.logit:
            return np.linspace(self.low, self.high, bins + 1)
        low = float(np.log(self.low / (1 - self.low)))
        high = float(np.log(self.high / (1 - self.high)))
        return np.asarray(1.0 / (1.0 + np.exp(-np.linspace(low, high, bins + 1))))

    def set_axes(self, axes: Axes, axis_names: str) -> None:
        """Set scale, limits and ticks of the named axes (``"x"``, ``"y"`` or both)."""
        if self.logit:
            set_probability_axes(axes, "logit", [self.low, self.high], axis_names)
            for axis in axis_names:
                ticks = getattr(axes, f"get_{axis}ticks")()
                labels = [f"{100 * tick:g} %" for tick in ticks]
                if len(labels) > _MAX_TICKS:
                    labels[1::2] = [""] * (len(labels) // 2)
                axes.set(**{f"{axis}ticklabels": labels})
            return
        step = _TICK_STEPS[int(np.searchsorted(_TICK_STEPS, self.high / 5))]
        ticks = np.arange(0.0, self.high * (1 + 1e-9), step)
        labels = [f"{100 * tick:g} %" for tick in ticks]
        for axis in axis_names:
            axes.set(
                **{
                    f"{axis}lim": (self.low, self.high),
                    f"{axis}ticks": ticks,
                    f"{axis}ticklabels": labels,
                }
            )


def probability_range(probability: FloatArray, scale: RiskScale) -> ProbabilityRange:
    """Return the range of probabilities to show for ``scale``."""
    middle, most = np.quantile(probability, [0.5, 0.995])
    if scale == "auto":
        scale = "logit" if middle < 0.02 else "zoom" if most < 0.6 else "linear"
    if scale == "linear":
        return ProbabilityRange(0.0, 1.0)
    if scale == "zoom":
        step = _TICK_STEPS[int(np.searchsorted(_TICK_STEPS, most / 5))]
        return ProbabilityRange(0.0, float(min(1.0, step * np.ceil(most / step))))
    low, high = np.quantile(probability, [0.005, 0.999])
    return ProbabilityRange(
        float(np.clip(low, _MIN_PROBABILITY, 0.5)),
        float(np.clip(high, 0.5 * (1 + _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)),
        logit=True,
    )
