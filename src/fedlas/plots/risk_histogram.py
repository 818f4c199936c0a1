"""Distribution of the event's probability, by outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from fedlas._core.check import check_choice, check_count
from fedlas._core.kinds import check_argument_types
from fedlas.binary.positive import positive_class
from fedlas.plots.positive_class import RiskScale, probability_range
from fedlas.plots.theme import (
    Axes,
    ThemeOption,
    set_axis_label,
    set_labels,
    set_subtitle,
    set_title,
    styled_axes,
)

if TYPE_CHECKING:
    from fedlas.predictions import Predictions


@check_argument_types
def risk_distribution(
    predictions: Predictions,
    *,
    event: int | str | None = None,
    num_bins: int = 40,
    scale: RiskScale = "auto",
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeOption = "light",
) -> Axes:
    """Draw histograms of the event's probability for samples with and without the event.

    Both histograms add up to 100 %, so that a rare event is as large as all others. A line marks each median.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)`` with both outcomes.
        event: Positive class, by name or index; None: the event of two classes.
        num_bins: Bins of equal width on the axis.
        scale: ``"linear"``, ``"zoom"``, ``"logit"`` or ``"auto"``, as in
            :func:`~fedlas.plots.positive_reliability_diagram`.
        ax: Where to draw; a new figure if None.
        title: Above the axes, left-aligned.
        theme: Palette.

    Returns:
        The Axes.

    Raises:
        InputError: If only one outcome occurs, an argument is out of range, or for predictions of other than two
            classes without ``event``.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.softmax(1)[:, 1], generator=torch.Generator().manual_seed(1)).long()
        >>> risk_distribution(Predictions(logits, happened)).texts[0].get_text()
        'median 70 % of events, 32 % of others'

    Source:
        Steyerberg et al., "Assessing the performance of prediction models", Epidemiology 21 (2010), for box plots of
        the same; Collins et al., TRIPOD+AI, BMJ 385 (2024).
    """
    check_count("num_bins", num_bins)
    check_choice("scale", scale, get_args(RiskScale))
    data = positive_class(predictions, event, both_outcomes=True)
    shown = probability_range(data.probability, scale)
    axes, palette = styled_axes(theme, ax, size=(3.6, 3.2), grid="y")
    edges = shown.edges(num_bins)
    probability = np.clip(data.probability, edges[0], edges[-1])
    medians = []
    for outcome, color, label in ((1, palette.over, "events"), (0, palette.under, "others")):
        rows = data.outcome == outcome
        weights = data.counts[rows]
        heights = np.histogram(probability[rows], edges, weights=100 * weights / weights.sum())[0]
        style: dict[str, Any] = {"color": color, "linewidth": 1.4, "label": label}
        axes.stairs(heights, edges, fill=True, alpha=0.25, color=color, linewidth=0)
        axes.stairs(heights, edges, **style)
        order = np.argsort(data.probability[rows])
        half = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
        medians.append(float(data.probability[rows][order][half]))
        axes.axvline(np.clip(medians[-1], edges[0], edges[-1]), color=color, linewidth=1)
    shown.set_axes(axes, "x")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small", labelcolor=palette.ink)
    set_axis_label(axes.yaxis, "% of the samples of each outcome", palette)
    set_labels(axes, palette, "probability of the event")
    texts = [
        f"{100 * median:.3g} %" if median < 0.1 else f"{100 * median:.0f} %" for median in medians
    ]
    set_subtitle(axes, f"median {texts[0]} of events, {texts[1]} of others", palette)
    if title is not None:
        set_title(axes, title, palette, above_subtitle=True)
    return axes
