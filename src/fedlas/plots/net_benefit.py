"""Decision curves: net benefit of a model, of acting on all samples and of acting on none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.kinds import check_argument_types
from fedlas.binary.decision_curve import net_benefit
from fedlas.binary.positive import positive_class
from fedlas.plots.theme import REFERENCE, Axes, ThemeOption, draw_legend, set_labels, styled_axes

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

_COLOR_ORDER = (2, 1, 4)
"""Blue, orange and green: the first two differ for color-blind readers, too."""


@check_argument_types
def decision_curve(
    models: Predictions | Mapping[str, Predictions],
    *,
    thresholds: Sequence[float] | Literal["data"] | None = None,
    marks: Sequence[float] = (),
    event: int | str | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw net benefit over the threshold: one model with its 95 % interval, or several models on the same samples.

    A model is of use at the thresholds where its line is above both others: that of acting on all samples, and 0, that
    of acting on none.

    Args:
        models: Logits ``(N, C)`` and target ``(N,)``, or several of them by name.
        thresholds: Probabilities in ``(0, 1)``. None: a hundred up to three times the share of events. ``"data"``: a
            hundred up to where nearly all probabilities are, and net benefit per 1,000 samples.
        marks: Thresholds to mark with a vertical line.
        event: Positive class, by name or index; None: the event of two classes.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.

    Returns:
        The Axes; its first lines are the models, then *act on all* and *act on none*.

    Raises:
        InputError: For models of different targets or none, for thresholds out of range, or for predictions of other
            than two classes without ``event``.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, -1.0], [0.0, -2.0]], [1, 0, 1, 0])
        >>> [line.get_label() for line in decision_curve({"logistic": p}).lines]
        ['logistic', 'act on all', 'act on none']

    Source:
        Vickers and Elkin 2006 (Medical Decision Making 26).
    """
    by_name = dict(models) if isinstance(models, Mapping) else {"model": models}
    covers_data = isinstance(thresholds, str)
    limits = (
        _default_thresholds(by_name, event, cover_data=covers_data)
        if thresholds is None or isinstance(thresholds, str)
        else thresholds
    )
    unit = 1000.0 if covers_data else 1.0
    curves = {
        name: net_benefit(each, event=event, thresholds=limits) for name, each in by_name.items()
    }
    if not by_name or any(
        not np.array_equal(c.treat_all, next(iter(curves.values())).treat_all)
        for c in curves.values()
    ):
        raise InputError(
            "models must be one or more predictions on the same samples",
            f"{len(by_name)} models{' with different targets' if by_name else ''}",
            "Pass predictions on one test set.",
        )
    axes, palette = styled_axes(theme, ax, size=(4.6, 3.4))
    for number, (name, curve) in enumerate(curves.items()):
        style = {**palette.line(number), "color": palette.line(_COLOR_ORDER[number % 3])["color"]}
        axes.plot(curve.threshold, unit * curve.model, linewidth=1.8, label=name, zorder=3, **style)
        if len(curves) == 1:
            low = unit * curve.low
            high = unit * curve.high
            axes.fill_between(
                curve.threshold, low, high, color=style["color"], alpha=0.18, linewidth=0
            )
    first = next(iter(curves.values()))
    axes.plot(
        first.threshold,
        unit * first.treat_all,
        color=palette.muted,
        linewidth=1.2,
        label="act on all",
    )
    axes.plot(
        first.threshold, 0 * first.threshold, color=palette.ink, label="act on none", **REFERENCE
    )
    # Far below 0 nothing is decided, and acting on all falls without end.
    for mark in marks:
        axes.axvline(mark, color=palette.muted, linewidth=0.8, linestyle=":")
    highest = [float(max(curve.high.max(), curve.treat_all.max())) for curve in curves.values()]
    top = unit * max(1e-6 if covers_data else 0.01, *highest)
    axes.set(
        xlim=(float(first.threshold.min()), float(first.threshold.max())),
        ylim=(-0.35 * top, 1.1 * top),
    )
    draw_legend(axes, palette, loc="upper right", handlelength=2.2)
    label = "net benefit per 1,000" if covers_data else "net benefit"
    set_labels(axes, palette, "threshold probability", label, title=title)
    if covers_data:
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= first.threshold.max()]
        axes.set(xticks=ticks, xticklabels=[f"{100 * tick:g} %" for tick in ticks])
    return axes


def _default_thresholds(
    models: Mapping[str, Predictions], event: int | str | None, *, cover_data: bool
) -> list[float]:
    """Return 100 thresholds up to three times the prevalence; with ``cover_data``, to at least the 99.5 % quantile."""
    most = 0.01
    for each in models.values():
        data = positive_class(each, event)
        most = max(most, 3.0 * data.mean(data.outcome))
        if cover_data:
            most = max(most, float(np.quantile(data.probability, 0.995)))
    return [min(most, 0.99) * step / 100 for step in range(1, 101)]
