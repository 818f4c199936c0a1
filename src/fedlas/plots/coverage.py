"""Risk-coverage curves: error rate of the most confident predictions over their share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedlas._core.kinds import check_argument_types
from fedlas.metrics.selective import aurc, e_aurc
from fedlas.plots.theme import Axes, ThemeOption, draw_legend, set_labels, styled_axes, text_box
from fedlas.predictions.any_predictions import require_top_label

if TYPE_CHECKING:
    from fedlas.predictions import Predictions, TopLabel

_MAX_POINTS = 400
"""More points would only make the file larger."""


def risk_coverage(
    predictions: Predictions | TopLabel,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage and risk: the error rate of the ``k`` most confident of ``N`` samples, for every ``k``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        ``coverage (N,)``, ``k / N`` for ``k = 1 .. N``, and ``risk (N,)`` in ``[0, 1]``, whose mean is AURC. Samples
        of equal confidence have their expected risk over all orders. With weights both are shares of weight, samples
        of weight 0 are left out, and the area is AURC up to the steps between samples.

    Raises:
        InputError: If ``predictions`` are something else.

    Example:
        >>> from fedlas import Predictions
        >>> coverage, risk = risk_coverage(Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 1, 0]))
        >>> risk.round(2).tolist()
        [0.0, 0.5, 0.33]

    Source:
        El-Yaniv & Wiener 2010 (JMLR 11); Geifman et al. 2019 (https://arxiv.org/abs/1805.08206).
    """
    predictions = require_top_label(predictions)
    confidence = predictions.confidence.astype(np.float64)
    wrong = 1.0 - predictions.correct.astype(np.float64)
    if predictions.weights is not None:
        return _weighted_risk_coverage(confidence, wrong, predictions.weights)
    _, group, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    # expected error of a sample among those of equal confidence
    share = np.bincount(group, wrong) / count
    samples = np.arange(1, len(wrong) + 1)
    return samples / len(wrong), np.cumsum(np.repeat(share, count)) / samples


def _weighted_risk_coverage(
    confidence: NDArray[np.float64], wrong: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    confidence, wrong, weights = (each[weights > 0] for each in (confidence, wrong, weights))
    _, group = np.unique(-confidence, return_inverse=True)
    share = np.bincount(group, wrong * weights) / np.bincount(group, weights)
    order = np.argsort(group, kind="stable")
    upto = np.cumsum(weights[order])
    return upto / upto[-1], np.cumsum((share[group] * weights)[order]) / upto


@check_argument_types
def risk_coverage_curve(
    predictions: Predictions | TopLabel,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw risk over coverage, with the curves of a random and of an oracle confidence.

    *Random* is the error rate, the risk of an uninformative confidence at every coverage; *oracle* ranks every error
    last. Its area is the least possible with that many errors, and E-AURC is the area between it and the curve.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.

    Returns:
        The Axes, both axes in percent; its lines are the curve, random and oracle.

    Raises:
        InputError: If ``predictions`` are something else, or for an unknown theme.

    Example:
        >>> from fedlas import Predictions
        >>> ax = risk_coverage_curve(Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 1, 0]))
        >>> ax.texts[0].get_text(), [line.get_label() for line in ax.lines]
        ('AURC 27.8 %  ·  E-AURC 16.7 %', ['model', 'random', 'oracle'])

    Source:
        Geifman et al. 2019, "Bias-reduced uncertainty estimation for deep neural classifiers"
        (https://arxiv.org/abs/1805.08206).
    """
    coverage, risk = risk_coverage(predictions)
    samples = len(risk)
    oracle = np.maximum(0.0, 1.0 - (1.0 - risk[-1]) / coverage)
    axes, palette = styled_axes(theme, ax, size=(4.2, 3.2))

    # The three curves, at no more points than can be seen.
    few = np.unique(np.linspace(0, samples - 1, min(samples, _MAX_POINTS)).round().astype(int))
    x = 100 * coverage[few]
    model = 100 * risk[few]
    best = 100 * oracle[few]
    axes.fill_between(x, best, model, color=palette.lines[2], alpha=0.13, linewidth=0)
    axes.plot(x, model, color=palette.lines[2], linewidth=1.8, label="model")
    axes.plot(
        [0, 100],
        [100 * risk[-1]] * 2,
        color=palette.muted,
        linewidth=1.2,
        linestyle=(0, (1.5, 1.2)),
        label="random",
    )
    axes.plot(x, best, color=palette.ink, linewidth=1.2, linestyle=(0, (5, 1.5)), label="oracle")
    # The risk of the first few samples is extreme by chance, and must not set the scale.
    steady = model[x >= 5] if (x >= 5).any() else model
    axes.set(xlim=(0, 100), ylim=(0, 1.4 * max(100 * risk[-1], float(steady.max()), 0.4)))
    area, excess = aurc(predictions), e_aurc(predictions)
    axes.text(
        0.03, 0.96, f"AURC {100 * area:.3g} %  ·  E-AURC {100 * excess:.3g} %", transform=axes.transAxes, va="top",
        fontweight="bold", color=palette.ink, bbox=text_box(palette), **palette.text(),
    )  # fmt: skip
    draw_legend(
        axes, palette, loc="upper left", bbox_to_anchor=(0.01, 0.9), ncols=3, handlelength=2.2
    )
    set_labels(axes, palette, "coverage, %", "risk (errors), %", title=title)
    return axes
