"""Table, sentence and figure of pre-specified differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from fedlas._core.text import number_of
from fedlas.lab.results.differences import Difference
from fedlas.plots import new_axes, seed_values
from fedlas.plots.theme import LIGHT, legend_outside
from fedlas.present.table import DASH, Column, Table, column, table_of
from fedlas.stats import ALPHA

CAPTION = (
    "t: paired t-test over seeds; Holm: the same, corrected for the number of pairs in the table. needed: seeds for "
    "80 % power if the difference is as large as it looks; from few seeds a rough guess."
)
_HEADS = ("A - B", "seeds", "A", "B", "difference, 95 %", "t", "Holm", "needed")
NARROW = (0, 1, 4, 5, 6, 7)
"""Columns that fit a terminal: pair, seeds, difference, t, Holm, needed."""


def differences_table(rows: Sequence[Difference], metric: str, about: str) -> Table:
    """Return a row for each pair; ``about`` follows the metric's name in the title."""
    shown = column(metric)
    title = f"{f'{shown.title} {shown.unit}'.strip()}, {about}"
    return table_of(_HEADS, [_cells(difference, shown) for difference in rows], title=title)


def sentence(difference: Difference, metric: str) -> str:
    """Say whether a difference is more than chance over seeds."""
    about = column(metric)
    size = about.format(abs(difference.mean)) + (" points" if about.unit else "")
    first, second = difference.pair
    n = len(difference.seeds)
    if difference.holm is None:
        return f"{first} - {second}: {number_of(n, 'seed')} without a spread cannot test the difference of {size}."
    if difference.holm > ALPHA:
        needed = difference.needed
        more = "" if needed is None else f" About {needed} seeds would show one of this size."
        return f"No difference in {about.title} shows between {first} and {second} over {n} seeds.{more}"
    way = "lower" if difference.mean < 0 else "higher"
    p = f"p = {short_p(difference.holm)}".replace("= <", "<")
    return (
        f"The {about.title} of {first} is {way} than that of {second} by {size} ({p}, {n} seeds)."
    )


def signed(about: Column, value: float) -> str:
    """Return a difference as text, with its sign."""
    return f"{'-' if value < 0 else '+'}{about.format(abs(value))}"


def _cells(difference: Difference, about: Column) -> list[str]:
    ends = ", ".join(signed(about, end) for end in difference.interval or ())
    return [
        " - ".join(difference.pair),
        str(len(difference.seeds)),
        *(about.format(fmean(values)) for values in difference.values),
        signed(about, difference.mean) + f" [{ends}]" * bool(ends),
        short_p(difference.t),
        short_p(difference.holm),
        str(difference.needed or DASH),
    ]


def differences_figure(by_metric: Mapping[str, Sequence[Difference]]) -> Any:
    """Draw the differences seed by seed, one panel for each metric, one row for each pair.

    Args:
        by_metric: For each metric the differences, the same pairs in the same order.
    """
    rows = max(map(len, by_metric.values()))
    size = (1.1 + 2.6 * len(by_metric), 1.1 + 0.26 * rows)
    axes = new_axes(LIGHT, size=size, panels=len(by_metric))
    for ax, (metric, differences) in zip(axes, by_metric.items(), strict=True):
        about = column(metric)
        scale = 100 if about.unit else 1
        values = {
            " - ".join(d.pair): [scale * (a - b) for a, b in zip(*d.values, strict=True)]
            for d in differences
        }
        label = f"{about.title}{' (points)' * bool(about.unit)}, A - B"
        seed_values(values, label=label, zero=True, ax=ax, legend=False)
        ax.tick_params(axis="y", labelleft=ax is axes[0])
    legend_outside(axes[0], LIGHT, most=3)
    return axes[0].figure


def short_p(value: float | None) -> str:
    """Return three decimals; a dash for None."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
