"""The page of ``fedlas monitor --history``: all periods of a stream, drift, and recalibrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas.deploy.monitor.history import find_period_drift
from fedlas.plots.theme import LIGHT, REFERENCE, Axes, set_labels, styled_axes
from fedlas.present.page import creation_note, new_page_axes, render, to_inline_svg
from fedlas.present.table import DASH, Table, make_table

if TYPE_CHECKING:
    from fedlas.deploy.monitor.columns import ColumnDrift
    from fedlas.deploy.monitor.period import Period

_MAX_TICKS = 12
"""Most periods that are named below a figure."""
_MAX_COLUMNS = 24
"""Most columns that are drawn: each takes a 20th of a second, and nobody looks at a thousand."""


def history_page(periods: Sequence[Period]) -> str:
    """Return the history of a monitored stream as a self-contained HTML page."""
    drifts_found = find_period_drift(periods)
    pictures = [
        _draw_watch_means(periods, name)
        for name in ("calibration", "accuracy", "events", "prevalence", "confidence", "probability")
        if any(name in row.means for row in periods)
    ]
    columns = _numeric_columns(periods, drifts_found)
    pictures += [_draw_column_means(periods, name) for name in columns[:_MAX_COLUMNS]]
    return render(
        "history.html.j2",
        title=f"{periods[-1].card}: {len(periods)} periods",
        made=creation_note(""),
        verdict=_verdict_sentences(periods, drifts_found),
        statement=f"{sum(row.samples for row in periods):,} samples, "
        f"{sum(row.labeled for row in periods):,} with labels.",
        table=_periods_table(periods, drifts_found),
        pictures=pictures,
        left_out=max(0, len(columns) - _MAX_COLUMNS),
    )


def _verdict_sentences(periods: Sequence[Period], drifts_found: Sequence[ColumnDrift]) -> list[str]:
    """Return sentences on alarms and drift in the last period, and on when the model was recalibrated."""
    latest = periods[-1]
    lines = []
    if latest.alarms:
        lines.append(f"ALARM in {latest.period}: {', '.join(latest.alarms)} changed.")
    drift = [str(each) for each in drifts_found if each.period == latest.period]
    if drift:
        lines.append(f"DRIFT in {latest.period}: {', '.join(drift)}.")
    if not lines:
        lines.append(f"Quiet in {latest.period}: no alarm and no column drift.")
    again = [periods[at].period for at in _recalibration_indices(periods)]
    lines.append(f"Recalibrated: {', '.join(again) or 'never'}.")
    return lines


def _recalibration_indices(periods: Sequence[Period]) -> list[int]:
    """Return the indices of the periods with another card than the period before."""
    return [at for at in range(1, len(periods)) if periods[at].digest != periods[at - 1].digest]


def _numeric_columns(periods: Sequence[Period], drifts_found: Sequence[ColumnDrift]) -> list[str]:
    """Return the names of the numeric columns, the most recently drifted first."""
    names = [name for row in periods for name, each in row.columns.items() if "mean" in each]
    numbers = dict.fromkeys(names)
    drifted = [drift.column for drift in reversed(drifts_found) if drift.column in numbers]
    return [*dict.fromkeys([*drifted, *numbers])]


def _periods_table(periods: Sequence[Period], drifts_found: Sequence[ColumnDrift]) -> Table:
    """Return a table with a row per period, the newest first."""
    rows = []
    recalibrated = _recalibration_indices(periods)
    for at, row in reversed(list(enumerate(periods))):
        gap = row.means.get("calibration")
        shown = DASH
        if gap:
            shown = " to ".join(f"{100 * end:+.2f}" for end in (gap.low, gap.high))
        drift = "; ".join(str(each) for each in drifts_found if each.period == row.period)
        rows.append(
            (
                row.period,
                f"{row.samples:,}",
                shown,
                ", ".join(row.alarms) or "none",
                drift or "none",
                "again" if at in recalibrated else row.made if at == 0 else "",
            )
        )
    heads = ("Period", "Samples", "Outcome minus score %", "Alarms", "Drift", "Calibrated")
    return make_table(heads, rows, left_aligned=(0, 2, 3, 4, 5))


def _set_period_ticks(ax: Axes, periods: Sequence[Period]) -> None:
    for at in _recalibration_indices(periods):
        ax.axvline(at - 0.5, color=LIGHT.ink, linewidth=0.9, linestyle=(0, (1, 2)))
    step = -(-len(periods) // _MAX_TICKS)
    places = range(0, len(periods), step)
    ax.set_xticks(places, [periods[at].period[-12:] for at in places], rotation=45, ha="right")
    ax.set_xlim(-0.6, len(periods) - 0.4)


def _draw_watch_means(periods: Sequence[Period], name: str) -> Any:
    """Draw the leading mean of a watch per period with its interval, and the mean on the card."""
    shown = [(at, row.means[name]) for at, row in enumerate(periods) if name in row.means]
    ax, _ = styled_axes("light", new_page_axes(2.9, 2.6))
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
    _set_period_ticks(ax, periods)
    set_labels(ax, LIGHT, "", title=name)
    ax.set_ylabel(f"{shown[0][1].name} %", color=LIGHT.ink, fontsize=9, parse_math=False)
    return to_inline_svg(ax, f"{name} by period, with 95 % intervals")


def _draw_column_means(periods: Sequence[Period], name: str) -> Any:
    """Draw the mean of a column per period, with a band of one standard deviation."""
    shown = [
        (at, row.columns[name])
        for at, row in enumerate(periods)
        if "mean" in row.columns.get(name, {})
    ]
    ax, _ = styled_axes("light", new_page_axes(2.9, 2.6))
    places = [at for at, _ in shown]
    mean, spread = (np.array([each[part] for _, each in shown]) for part in ("mean", "sd"))
    ax.fill_between(places, mean - spread, mean + spread, color=LIGHT.grid, linewidth=0)
    ax.plot(places, mean, "o-", color=LIGHT.ink, markersize=3.5, linewidth=1.0)
    _set_period_ticks(ax, periods)
    set_labels(ax, LIGHT, "", title=name)
    ax.set_ylabel("mean ± sd", color=LIGHT.ink, fontsize=9)
    return to_inline_svg(ax, f"mean of {name} by period")
