"""The page of ``fedlas monitor --history``: all periods of a stream, drift, and recalibrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedlas.deploy.monitor.columns import Drift
from fedlas.deploy.monitor.history import drifts
from fedlas.deploy.monitor.period import Period
from fedlas.plots.theme import LIGHT, REFERENCE, Axes, canvas, caption
from fedlas.present.page import axes, figure, made_by, render
from fedlas.present.table import DASH, Table, table_of

_TICKS = 12
"""Most periods that are named below a figure."""
_MOST_COLUMNS = 24
"""Most columns that are drawn: each takes a 20th of a second, and nobody looks at a thousand."""


def history_page(periods: Sequence[Period]) -> str:
    """Return the history of a monitored stream as a self-contained HTML page."""
    moved = drifts(periods)
    pictures = [
        _means(periods, name)
        for name in ("calibration", "accuracy", "events", "prevalence", "confidence", "probability")
        if any(name in row.means for row in periods)
    ]
    columns = _columns(periods, moved)
    pictures += [_column(periods, name) for name in columns[:_MOST_COLUMNS]]
    return render(
        "history.html.j2",
        title=f"{periods[-1].card}: {len(periods)} periods",
        made=made_by(""),
        verdict=_verdict(periods, moved),
        statement=f"{sum(row.samples for row in periods):,} samples, "
        f"{sum(row.labeled for row in periods):,} with labels.",
        table=_table(periods, moved),
        pictures=pictures,
        left_out=max(0, len(columns) - _MOST_COLUMNS),
    )


def _verdict(periods: Sequence[Period], moved: Sequence[Drift]) -> list[str]:
    """Return sentences on alarms and drift in the last period, and on when the model was recalibrated."""
    latest = periods[-1]
    lines = []
    if latest.alarms:
        lines.append(f"ALARM in {latest.period}: {', '.join(latest.alarms)} changed.")
    drift = [str(each) for each in moved if each.period == latest.period]
    if drift:
        lines.append(f"DRIFT in {latest.period}: {', '.join(drift)}.")
    if not lines:
        lines.append(f"Quiet in {latest.period}: no alarm and no column drift.")
    again = [periods[at].period for at in _again(periods)]
    lines.append(f"Recalibrated: {', '.join(again) or 'never'}.")
    return lines


def _again(periods: Sequence[Period]) -> list[int]:
    """Return the indices of the periods with another card than the period before."""
    return [at for at in range(1, len(periods)) if periods[at].digest != periods[at - 1].digest]


def _columns(periods: Sequence[Period], moved: Sequence[Drift]) -> list[str]:
    """Return the names of the numeric columns, the most recently drifted first."""
    names = [name for row in periods for name, each in row.columns.items() if "mean" in each]
    numbers = dict.fromkeys(names)
    drifted = [drift.column for drift in reversed(moved) if drift.column in numbers]
    return [*dict.fromkeys([*drifted, *numbers])]


def _table(periods: Sequence[Period], moved: Sequence[Drift]) -> Table:
    """Return a table with a row per period, the newest first."""
    rows = []
    again = _again(periods)
    for at, row in reversed(list(enumerate(periods))):
        gap = row.means.get("calibration")
        shown = DASH
        if gap:
            shown = " to ".join(f"{100 * end:+.2f}" for end in (gap.low, gap.high))
        drift = "; ".join(str(each) for each in moved if each.period == row.period)
        rows.append(
            (
                row.period,
                f"{row.samples:,}",
                shown,
                ", ".join(row.alarms) or "none",
                drift or "none",
                "again" if at in again else row.made if at == 0 else "",
            )
        )
    heads = ("Period", "Samples", "Outcome minus score %", "Alarms", "Drift", "Calibrated")
    return table_of(heads, rows, text=(0, 2, 3, 4, 5))


def _ticks(ax: Axes, periods: Sequence[Period]) -> None:
    for at in _again(periods):
        ax.axvline(at - 0.5, color=LIGHT.ink, linewidth=0.9, linestyle=(0, (1, 2)))
    step = -(-len(periods) // _TICKS)
    places = range(0, len(periods), step)
    ax.set_xticks(places, [periods[at].period[-12:] for at in places], rotation=45, ha="right")
    ax.set_xlim(-0.6, len(periods) - 0.4)


def _means(periods: Sequence[Period], name: str) -> Any:
    """Draw the leading mean of a watch per period with its interval, and the mean on the card."""
    shown = [(at, row.means[name]) for at, row in enumerate(periods) if name in row.means]
    ax, _ = canvas("light", axes(2.9, 2.6))
    places = [at for at, _ in shown]
    mean, low, high, card = (
        100 * np.array([getattr(each, end) for _, each in shown])
        for end in ("mean", "low", "high", "card")
    )
    ax.errorbar(
        places, mean, yerr=[mean - low, high - mean], fmt="o", color=LIGHT.ink, markersize=3.5,
        elinewidth=1.0,
    )  # fmt: skip
    ax.step(places, card, where="mid", **{**REFERENCE, "color": LIGHT.muted})
    _ticks(ax, periods)
    caption(ax, LIGHT, "", title=name)
    ax.set_ylabel(f"{shown[0][1].name} %", color=LIGHT.ink, fontsize=9, parse_math=False)
    return figure(ax, f"{name} by period, with 95 % intervals")


def _column(periods: Sequence[Period], name: str) -> Any:
    """Draw the mean of a column per period, with a band of one standard deviation."""
    shown = [
        (at, row.columns[name])
        for at, row in enumerate(periods)
        if "mean" in row.columns.get(name, {})
    ]
    ax, _ = canvas("light", axes(2.9, 2.6))
    places = [at for at, _ in shown]
    mean, spread = (np.array([each[part] for _, each in shown]) for part in ("mean", "sd"))
    ax.fill_between(places, mean - spread, mean + spread, color=LIGHT.grid, linewidth=0)
    ax.plot(places, mean, "o-", color=LIGHT.ink, markersize=3.5, linewidth=1.0)
    _ticks(ax, periods)
    caption(ax, LIGHT, "", title=name)
    ax.set_ylabel("mean ± sd", color=LIGHT.ink, fontsize=9)
    return figure(ax, f"mean of {name} by period")
