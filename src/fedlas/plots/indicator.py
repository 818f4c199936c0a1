"""Plots of the feature-norm indicator and of the smoothing strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, as_float_array, check_number, describe
from fedlas.plots.theme import Axes, ThemeOption, draw_legend, set_labels, styled_axes

if TYPE_CHECKING:
    from torch import Tensor

_MAX_POINTS = 3000
"""Right predictions of a scatter plot; more overlap, and make the file large."""


def score_scatter(
    score: Tensor,
    confidence: Tensor,
    correct: Tensor,
    *,
    ax: Axes | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw confidence over score per sample: right predictions as dots, wrong ones as crosses on top.

    Args:
        score: ``Z (N,)``.
        confidence: ``(N,)`` in ``[0, 1]``.
        correct: ``(N,)`` bool.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Returns:
        The Axes. If more than 3,000 predictions are right, 1 in k is drawn, as the legend states; wrong ones are all
        drawn.

    Raises:
        InputError: If the three are not ``(N,)``.

    Example:
        >>> import torch
        >>> score, confidence = torch.tensor([-1.0, 1.0]), torch.tensor([0.6, 0.9])
        >>> score_scatter(score, confidence, torch.tensor([False, True])).get_ylabel()
        'confidence (%)'
    """
    z, p, is_right = _check_columns(score, confidence, correct)
    axes, palette = styled_axes(theme, ax)
    # Wrong predictions are few and all drawn; of the right ones a part.
    right = np.flatnonzero(is_right)
    wrong = np.flatnonzero(is_right == 0)
    step = max(1, -(-len(right) // _MAX_POINTS))
    few = f", 1 in {step} shown" if step > 1 else ""
    shown = right[::step]
    # Points are rasterized inside the vector graphic: thousands of paths would make a page slow.
    axes.scatter(
        z[shown], 100 * p[shown], s=7, color=palette.under, alpha=0.45, linewidth=0, rasterized=True,
        label=f"right ({len(right):,}{few})",
    )  # fmt: skip
    axes.scatter(
        z[wrong], 100 * p[wrong], s=16, color=palette.over, marker="x", linewidth=0.9, rasterized=True,
        label=f"wrong ({len(wrong):,})",
    )  # fmt: skip
    set_labels(axes, palette, "indicator Z", "confidence (%)")
    draw_legend(axes, palette, loc="best")
    return axes


def score_bins(
    score: Sequence[float],
    confidence: Sequence[float],
    accuracy: Sequence[float],
    standard_error: Sequence[float],
    *,
    ax: Axes | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw the signed gap, confidence minus accuracy, per bin of ascending score, with 95 % error bars.

    Args:
        score: Mean score of each group.
        confidence: Mean confidence.
        accuracy: Share of right predictions.
        standard_error: Standard error of the gap.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Returns:
        The Axes, in percentage points: above zero over-confident, below under-confident.

    Example:
        >>> score_bins([-1.0, 1.0], confidence=[0.7, 0.9], accuracy=[0.6, 0.9], standard_error=[0.1, 0.1]).get_ylabel()
        'confidence - accuracy (points)'
    """
    z, p, share, error = _check_columns(score, confidence, accuracy, standard_error)
    axes, palette = styled_axes(theme, ax, grid="y")
    gap = 100 * (p - share)
    bars = 196 * error
    place = np.arange(1, len(gap) + 1)
    axes.axhline(0, color=palette.ink, linewidth=0.9)
    axes.bar(place, gap, width=0.78, color=[palette.over if g > 0 else palette.under for g in gap])
    axes.errorbar(
        place, gap, yerr=bars, fmt="none", ecolor=palette.ink, elinewidth=0.9, capsize=2.5
    )
    axes.set_xticks(place, [f"{each:.1f}" for each in z])
    set_labels(
        axes,
        palette,
        "mean Z of the group (equally many samples each)",
        "confidence - accuracy (points)",
    )
    return axes


def strength_histogram(
    alpha_i: Tensor,
    correct: Tensor,
    *,
    alpha: float,
    ax: Axes | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw histograms of the strengths ``alpha_i`` of right and wrong predictions, each normalized to 100 %.

    Args:
        alpha_i: ``(N,)`` in ``[0, 2 alpha]``.
        correct: ``(N,)`` bool.
        alpha: Strength at the mean norm, drawn as a line.
        ax: Where to draw; a new figure if None.
        theme: Palette.

    Raises:
        InputError: If the two are not ``(N,)``.

    Example:
        >>> import torch
        >>> alpha_i = torch.tensor([0.02, 0.05, 0.08])
        >>> strength_histogram(alpha_i, torch.tensor([True, True, False]), alpha=0.05).get_xlabel()
        'strength alpha_i'
    """
    strength, is_right = _check_columns(alpha_i, correct)
    alpha = check_number("alpha", alpha, low=0, low_open=True)
    axes, palette = styled_axes(theme, ax)
    edges = np.linspace(0, 2 * alpha, 25)
    groups = (
        ("right", is_right > 0, palette.under, 0.75),
        ("wrong", is_right == 0, palette.over, 1.0),
    )
    for name, members, color, opacity in groups:
        values = np.clip(strength[members], edges[0], edges[-1])
        if len(values):
            weights = np.full(len(values), 100 / len(values))
            filled = (
                {"histtype": "stepfilled", "alpha": opacity}
                if name == "right"
                else {"histtype": "step"}
            )
            axes.hist(
                values, edges, weights=weights, color=color, linewidth=1.6, label=name, **filled
            )
    axes.axvline(
        alpha, color=palette.muted, linewidth=1, linestyle=(0, (4, 2)), label=f"alpha = {alpha:g}"
    )
    set_labels(axes, palette, "strength alpha_i", "share of the samples (%)")
    draw_legend(axes, palette, loc="best")
    return axes


def _check_columns(*values: Any) -> list[NDArray[np.float64]]:
    """Return the values as float64 arrays; raise InputError unless all are ``(N,)`` of one length."""
    columns = [as_float_array(value) for value in values]
    if any(each.ndim != 1 or each.shape != columns[0].shape for each in columns) or not len(
        columns[0]
    ):
        got = ", ".join(map(describe, values))
        raise InputError(
            "all arguments must have one shape (N,), N at least 1",
            got,
            "Pass one number per sample.",
        )
    return columns
