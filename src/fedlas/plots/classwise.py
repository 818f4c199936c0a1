"""Calibration by predicted class: confidence against accuracy, class by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError, check_count, check_number
from fedlas.plots.theme import REFERENCE, ThemeName, canvas, caption, name_ticks
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ClassGap", "class_gap_plot", "class_gaps"]


@dataclass(frozen=True)
class ClassGap:
    """Confidence and accuracy of the samples with one predicted class.

    Attributes:
        label: The class.
        num_samples: Number of samples predicted as this class.
        confidence: Their mean confidence.
        accuracy: Share of them that are correct.
        low: Lower end of the interval of ``gap``.
        high: Upper end.
    """

    label: int
    num_samples: int
    confidence: float
    accuracy: float
    low: float
    high: float

    @property
    def gap(self) -> float:
        """``confidence - accuracy``: positive where the model is too confident of the class."""
        return self.confidence - self.accuracy


def class_gaps(predictions: Predictions, *, confidence_level: float = 0.95) -> list[ClassGap]:
    """The signed gap of every predicted class with an interval, the most over-confident class first.

    The interval is the mean confidence minus Wilson's interval of the accuracy. Unlike that of a bootstrap, it has a
    width even if all predictions of a class are correct; where the confidences of a class differ it is a little too
    wide.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. With weights, means are weighted, and the intervals are
            those of the effective number of samples.
        confidence_level: Confidence level of each interval in ``(0, 1)``, one class at a time.

    Raises:
        InputError: If ``predictions`` are something else, or the level is out of range.

    Example:
        >>> gaps = class_gaps(Predictions([[0.0, 9.0], [0.0, 9.0], [0.0, 0.0]], [1, 0, 0]))
        >>> [(g.label, round(g.gap, 2)) for g in gaps]
        [(1, 0.5), (0, -0.5)]

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    check_predictions("class_gaps", predictions)
    if check_number("class_gaps", "confidence_level", confidence_level, low=0.0, high=1.0, low_open=True) == 1.0:
        raise InputError(
            "class_gaps", "confidence_level must be below 1", confidence_level, "Choose a level such as 0.95."
        )
    z = NormalDist().inv_cdf(0.5 + confidence_level / 2)
    # Sums by predicted class, in one pass.
    predicted = predictions.predicted.cpu().numpy()
    weights = np.ones(len(predicted)) if predictions.weights is None else predictions.weights.numpy()
    rows, count, squares, confidence, right = (
        np.bincount(predicted, values, predictions.num_classes)
        for values in (
            weights > 0,
            weights,
            weights**2,
            weights * predictions.confidence.cpu().double().numpy(),
            weights * predictions.correct.cpu().double().numpy(),
        )
    )
    gaps = []
    for label in np.flatnonzero(rows).tolist():
        claimed, accuracy = float(confidence[label] / count[label]), float(right[label] / count[label])
        n = float(count[label] ** 2 / squares[label])  # the effective number of samples, without weights their number
        # Wilson's interval of the accuracy.
        center, half = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n)
        half *= math.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
        gaps.append(
            ClassGap(label, int(rows[label]), claimed, accuracy, claimed - center - half, claimed - center + half)
        )
    return sorted(gaps, key=lambda gap: (-gap.gap, gap.label))


def class_gap_plot(
    predictions: Predictions,
    *,
    classes: Sequence[str] | None = None,
    most: int = 40,
    ax: Axes | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
) -> Axes:
    """Draw the signed gap of each predicted class with its 95 % interval, the most over-confident at the top.

    A marker is filled if the interval of its class excludes 0; for a calibrated model that happens in about five of one
    hundred classes.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        classes: Names of the ``C`` classes; numbers if None.
        most: If there are more classes, only the extremes are drawn, with a note on how many lie between.
        ax: Where to draw; None: a new figure, as high as needed.
        title: Above the axes, left-aligned.
        theme: Palette.

    Returns:
        The Axes, gaps in percent.

    Raises:
        InputError: If ``predictions`` are something else, an argument is out of range, or there is not one name for
            each class.

    Example:
        >>> p = Predictions([[0.0, 9.0], [0.0, 9.0], [0.0, 0.0]], [1, 0, 0])
        >>> [label.get_text() for label in class_gap_plot(p, classes=["cat", "dog"]).get_yticklabels()]
        ['dog', 'cat']
    """
    owner = "class_gap_plot"
    check_count(owner, "most", most, low=2)
    gaps = class_gaps(predictions)
    names = [str(label) for label in range(predictions.num_classes)] if classes is None else list(classes)
    if len(names) != predictions.num_classes:
        raise InputError(
            owner,
            f"classes must hold {predictions.num_classes} names",
            f"{len(names)}",
            "Name all classes, in the order of the logits.",
        )

    # The extremes only, if there are too many classes, with an empty row between them.
    between = max(0, len(gaps) - most)
    shown = [*gaps[: most // 2], *gaps[len(gaps) - (most - most // 2) :]] if between else gaps
    rows = np.arange(len(shown)) + (np.arange(len(shown)) >= most // 2) * (1.0 if between else 0.0)
    axes, palette = canvas(owner, theme, ax, size=(5.6, 0.9 + 0.19 * (rows[-1] + 1)), grid="x")
    axes.axvline(0, color=palette.ink, **REFERENCE)

    # An interval and a marker for each class.
    for row, gap in zip(rows, shown, strict=True):
        beyond = gap.low > 0 or gap.high < 0
        color = (palette.over if gap.gap > 0 else palette.under) if beyond else palette.muted
        axes.plot([100 * gap.low, 100 * gap.high], [row, row], color=color, linewidth=1.6, solid_capstyle="butt")
        axes.plot(
            [100 * gap.gap], [row], marker=">" if gap.gap > 0 else "<", markersize=5.5, color=color, linestyle="none",
            markerfacecolor=color if beyond else palette.background, markeredgecolor=color,
        )  # fmt: skip
    if between:
        axes.text(
            0.5, most // 2, f"{between} more classes between", transform=axes.get_yaxis_transform(), fontsize=8,
            ha="center", va="center", color=palette.muted, style="italic",
        )  # fmt: skip
    name_ticks(axes.yaxis, rows, [names[gap.label] for gap in shown], color=palette.ink, fontsize=8)
    axes.set_ylim(rows[-1] + 0.7, -0.7)
    caption(axes, palette, "confidence - accuracy, percentage points", title=title)
    return axes
