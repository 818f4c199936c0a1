"""Figure of pre-specified differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlas.plots import new_axes, seed_values
from fedlas.plots.theme import LIGHT, legend_outside
from fedlas.present.table import column
from fedlas.stats import Difference


def differences_figure(by_metric: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw paired differences seed by seed: one panel per metric, one row per pair.

    Args:
        by_metric: For each metric the differences, the same pairs in the same order.
    """
    rows = max(map(len, by_metric.values()))
    size = (1.1 + 2.6 * len(by_metric), 1.1 + 0.26 * rows)
    axes = new_axes(LIGHT, size=size, panels=len(by_metric))
    for ax, (metric, differences) in zip(axes, by_metric.items(), strict=True):
        about = column(metric)
        scale = 100 if about.unit else 1
        values = {" - ".join(d.names): [scale * gap for gap in d.gaps] for d in differences}
        label = f"{about.title}{' (points)' * bool(about.unit)}, A - B"
        seed_values(values, label=label, zero=True, ax=ax, legend=False)
        ax.tick_params(axis="y", labelleft=ax is axes[0])
    legend_outside(axes[0], LIGHT, most=3)
    return axes[0].figure
