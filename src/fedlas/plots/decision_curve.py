"""The decision curve: net benefit of acting on a model, on all samples and on none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedlas._core.check import InputError, check_kinds
from fedlas.binary.net_benefit import THRESHOLDS, net_benefit
from fedlas.plots.theme import REFERENCE, Axes, ThemeName, canvas, caption, legend
from fedlas.predictions import Predictions


@check_kinds
def decision_curve(
    models: Predictions | Mapping[str, Predictions],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    positive: int | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw net benefit over the threshold, of one model with its 95 % interval or of several on the same samples.

    A model is of use at the thresholds where its line is above both others: that of acting on all samples, and 0, that
    of acting on none.

    Args:
        models: Logits ``(N, C)`` and target ``(N,)``, or several of them by name.
        thresholds: Probabilities in ``(0, 1)``; by default 0.01, 0.02, ..., 0.99.
        positive: The class to set against the rest; None: class 1 of two.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.

    Returns:
        The Axes; its first lines are the models, then *act on all* and *act on none*.

    Raises:
        InputError: For models of different targets or none, for thresholds out of range, or for predictions of other
            than two classes without ``positive``.

    Example:
        >>> p = Predictions([[0.0, 2.0], [0.0, 1.0], [0.0, -1.0], [0.0, -2.0]], [1, 0, 1, 0])
        >>> [line.get_label() for line in decision_curve({"logistic": p}).lines]
        ['logistic', 'act on all', 'act on none']

    Source:
        Vickers and Elkin 2006 (Medical Decision Making 26).
    """
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    curves = {
        name: net_benefit(each, positive=positive, thresholds=thresholds)
        for name, each in named.items()
    }
    if not named or any(
        not np.array_equal(c.treat_all, next(iter(curves.values())).treat_all)
        for c in curves.values()
    ):
        raise InputError(
            "models must be predictions of the same samples",
            f"{len(named)} model{'s of different targets' if named else 's'}",
            "Draw those of one test set together.",
        )
    axes, palette = canvas(theme, ax, size=(4.6, 3.4))
    for number, (name, curve) in enumerate(curves.items()):
        style = {**palette.line(number), "color": palette.line(2 + number)["color"]}
        axes.plot(curve.threshold, curve.model, linewidth=1.8, label=name, zorder=3, **style)
        if len(curves) == 1:
            axes.fill_between(
                curve.threshold,
                curve.low,
                curve.high,
                color=style["color"],
                alpha=0.18,
                linewidth=0,
            )
    first = next(iter(curves.values()))
    axes.plot(
        first.threshold, first.treat_all, color=palette.muted, linewidth=1.2, label="act on all"
    )
    axes.plot(
        first.threshold, 0 * first.threshold, color=palette.ink, label="act on none", **REFERENCE
    )
    # Far below 0 nothing is decided, and acting on all falls without end.
    top = max(
        0.01, *(float(max(curve.high.max(), curve.treat_all.max())) for curve in curves.values())
    )
    axes.set(
        xlim=(float(first.threshold.min()), float(first.threshold.max())),
        ylim=(-0.35 * top, 1.1 * top),
    )
    legend(axes, palette, loc="upper right", handlelength=2.2)
    caption(axes, palette, "threshold probability", "net benefit", title=title)
    return axes
