"""Figure of pre-specified differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlas.plots import new_axes, seed_values
from fedlas.plots.theme import LIGHT, draw_legend_outside
from fedlas.present.table import metric_column
from fedlas.stats import Difference


def differences_figure(differences_by_metric: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw paired differences seed by seed: one panel per metric, one row per pair.

    Args:
        differences_by_metric: For each metric the differences, the same pairs in the same order.
    """
    rows = max(map(len, differences_by_metric.values()))
    size = (1.1 + 2.6 * len(differences_by_metric), 1.1 + 0.26 * rows)
    axes = new_axes(LIGHT, size=size, panels=len(differences_by_metric))
    for ax, (metric, differences) in zip(axes, differences_by_metric.items(), strict=True):
        about = metric_column(metric)
        scale = 100 if about.unit else 1
        values = {" - ".join(d.names): [scale * gap for gap in d.gaps] for d in differences}
        label = f"{about.title}{' (points)' * bool(about.unit)}, A - B"
        seed_values(values, label=label, zero=True, ax=ax, legend=False)
        ax.tick_params(axis="y", labelleft=ax is axes[0])
    draw_legend_outside(axes[0], LIGHT, max_columns=3)
    return axes[0].figure
