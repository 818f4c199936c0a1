"""Figures of the feature-norm indicator and of the smoothing strengths that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.plots.theme import Axes, Theme, ThemeName, canvas, caption, legend

_MOST_POINTS = 3000
"""Right predictions of a scatter plot; more overlap, and make the file large."""


def score_scatter(
    score: Tensor,
    confidence: Tensor,
    correct: Tensor,
    *,
    ax: Axes | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw each sample's confidence over its score: right predictions as dots, wrong ones as crosses on top.

    Args:
        score: ``Z (N,)``.
        confidence: ``(N,)`` in ``[0, 1]``.
        correct: ``(N,)`` bool.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Returns:
        The Axes. Of more than 3,000 right predictions 1 in k is drawn, as the legend states; wrong ones are all drawn.

    Raises:
        InputError: If the three are not ``(N,)``.
    """
    axes, palette = _axes("score_scatter", (score, confidence, correct), ax, theme)
    # Wrong predictions are few and all drawn; of the right ones a part.
    right, wrong = torch.nonzero(correct)[:, 0], torch.nonzero(~correct)[:, 0]
    step = max(1, -(-len(right) // _MOST_POINTS))
    few = f", 1 in {step} shown" if step > 1 else ""
    shown = right[::step]
    # Points are rasterized inside the vector graphic: thousands of paths would make a page slow.
    axes.scatter(
        score[shown], 100 * confidence[shown], s=7, color=palette.under, alpha=0.45, linewidth=0, rasterized=True,
        label=f"right ({len(right):,}{few})",
    )  # fmt: skip
    axes.scatter(
        score[wrong], 100 * confidence[wrong], s=16, color=palette.over, marker="x", linewidth=0.9, rasterized=True,
        label=f"wrong ({len(wrong):,})",
    )  # fmt: skip
    caption(axes, palette, "indicator Z", "confidence (%)")
    legend(axes, palette, loc="best")
    return axes


def score_bins(
    score: Sequence[float],
    confidence: Sequence[float],
    accuracy: Sequence[float],
    standard_error: Sequence[float],
    *,
    ax: Axes | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw the signed gap, confidence minus accuracy, of groups of samples with rising score, with 95 % error bars.

    Args:
        score: Mean score of each group.
        confidence: Mean confidence.
        accuracy: Share of right predictions.
        standard_error: Standard error of the gap.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Returns:
        The Axes, in percentage points: above zero over-confident, below under-confident.
    """
    axes, palette = canvas("score_bins", theme, ax, grid="y")
    gap = 100 * (np.asarray(confidence) - np.asarray(accuracy))
    bars = 196 * np.asarray(standard_error)
    place = np.arange(1, len(gap) + 1)
    axes.axhline(0, color=palette.ink, linewidth=0.9)
    axes.bar(place, gap, width=0.78, color=[palette.over if g > 0 else palette.under for g in gap])
    axes.errorbar(place, gap, yerr=bars, fmt="none", ecolor=palette.ink, elinewidth=0.9, capsize=2.5)
    axes.set_xticks(place, [f"{z:.1f}" for z in score])
    caption(axes, palette, "mean Z of the group (equally many samples each)", "confidence - accuracy (points)")
    return axes


def strength_histogram(
    alpha_i: Tensor, correct: Tensor, *, alpha: float, ax: Axes | None = None, theme: ThemeName = "light"
) -> Axes:
    """Draw the histograms of the strengths ``alpha_i`` of right and of wrong predictions, each summing to 100 %.

    Args:
        alpha_i: ``(N,)`` in ``[0, 2 alpha]``.
        correct: ``(N,)`` bool.
        alpha: Strength at the mean norm, drawn as a line.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Raises:
        InputError: If the two are not ``(N,)``.
    """
    axes, palette = _axes("strength_histogram", (alpha_i, correct), ax, theme)
    edges = np.linspace(0, 2 * alpha, 25)
    groups = (("right", correct, palette.under, 0.75), ("wrong", ~correct, palette.over, 1.0))
    for name, members, color, opacity in groups:
        values = np.clip(alpha_i[members].double().numpy(), edges[0], edges[-1])
        if len(values):
            weights = np.full(len(values), 100 / len(values))
            filled = {"histtype": "stepfilled", "alpha": opacity} if name == "right" else {"histtype": "step"}
            axes.hist(values, edges, weights=weights, color=color, linewidth=1.6, label=name, **filled)
    axes.axvline(alpha, color=palette.muted, linewidth=1, linestyle=(0, (4, 2)), label=f"alpha = {alpha:g}")
    caption(axes, palette, "strength alpha_i", "share of the samples (%)")
    legend(axes, palette, loc="best")
    return axes


def _axes(owner: str, values: Sequence[Tensor], ax: Axes | None, theme: ThemeName) -> tuple[Any, Theme]:
    first = values[0]
    if any(value.ndim != 1 or value.shape != first.shape for value in values) or not len(first):
        raise InputError(
            owner, "every argument must be (N,)", ", ".join(map(describe, values)), "Pass one number a sample."
        )
    return canvas(owner, theme, ax)
