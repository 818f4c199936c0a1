"""The page of ``fedlas monitor``: what each watch found, and its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedlas.deploy.monitor import text
from fedlas.deploy.monitor.look import Findings
from fedlas.deploy.monitor.watches import Watch
from fedlas.plots.theme import LIGHT, REFERENCE, canvas, caption, legend_below, legend_height, name_ticks
from fedlas.present.page import MOST_WIDTH, axes, figure, render
from fedlas.present.table import Column, Table, table_of

_LIMIT = 3.0
"""Standard deviations of a row's mean beyond the interval on the card where its limit is drawn: one row in 700."""
_LEAST = 1e-2
"""Evidence below is drawn here: how far it fell says nothing."""


def watches_table(content: Mapping[str, Any]) -> Table:
    """A row a watch: the live mean, the card's interval, the evidence and the state."""
    heads = [Column(head, words=head == "State") for head in text.HEADS]
    return table_of([Column(text.HEADS[0], words=True), *heads[1:]], text.rows(content))


def statistics_table(content: Mapping[str, Any]) -> Table:
    """A row a watched mean."""
    rows = [
        (
            each["name"],
            *text.cells(each, signed=name == "calibration"),
            f"{each['samples']:,}",
            text.power(each["evidence"]),
        )
        for name, found in content["watches"].items()
        for each in found.get("statistics", ())
    ]
    return table_of(
        ("Mean of", "Live %", "On the card %", "Samples", "Evidence"), rows, title="Everything that is watched"
    )


def monitor_page(found: Findings) -> str:
    """The page as HTML, with nothing outside it."""
    content, seen = found.content, found.seen
    return render(
        "monitor.html.j2",
        title=f"Monitor: {content['card']}",
        alarm=content["alarm"],
        verdict=text.verdict(content),
        reasons=text.reasons(content),
        statement=f"{text.summary(content)}; {content['looks']:,} {'look' if content['looks'] == 1 else 'looks'}.",
        table=watches_table(content),
        notes=text.explanations(content),
        pictures=[_means(found, watch) for watch in seen.watches.values() if watch.test.samples],
        width=seen.width,
        evidence=_evidence(found),
        everything=statistics_table(content),
    )


def _ends(found: Findings) -> Any:
    """The sample at which each row of the histories ends."""
    seen = found.seen
    rows = -(-seen.samples // seen.width)
    return np.minimum((np.arange(rows) + 1) * seen.width, seen.samples)


def _means(found: Findings, watch: Watch) -> Any:
    """The watch's leading mean row by row, between what the card leaves and the limits of chance."""
    shown = text.leading(watch.name, found.content["watches"][watch.name])
    number = watch.statistics.index(shown["name"])
    history = found.seen.histories[watch.name]
    drawn, _ = canvas("monitor", "light", axes(2.9, 2.2))
    count, total = history.count[:, number], history.total[:, number]
    # Rows without such samples, as without labels, are gaps.
    count = np.where(count > 0, count, np.nan)
    ends, means = _ends(found), total / count
    # Few samples scatter widely, so the limits of a row widen as its samples get fewer.
    reach = _LIMIT * watch.spread[number] / np.sqrt(count)
    low = np.maximum(watch.test.low[number] - reach, watch.test.least[number])
    high = np.minimum(watch.test.high[number] + reach, watch.test.most[number])
    inside, outside = (means >= low) & (means <= high), (means < low) | (means > high)
    for limit in (low, high):
        steps = 100 * np.concatenate([limit[:1], limit])
        drawn.plot([0, *ends], steps, color=LIGHT.muted, linewidth=0.9, linestyle=(0, (4, 3)), drawstyle="steps-pre")
    drawn.axhspan(100 * watch.test.low[number], 100 * watch.test.high[number], color=LIGHT.grid, zorder=0)
    drawn.plot(ends, 100 * means, color=LIGHT.muted, linewidth=0.8)
    drawn.plot(ends[inside], 100 * means[inside], "o", color=LIGHT.ink, markersize=3.2)
    drawn.plot(ends[outside], 100 * means[outside], "D", color=LIGHT.over, markersize=4)
    alarm = found.seen.alarms.get(watch.name)
    if alarm is not None:
        drawn.axvline(alarm, color=LIGHT.over, linewidth=1.2)
    state = text.state(found.content["watches"][watch.name])
    caption(drawn, LIGHT, "live samples", f"{shown['name']} %", title=f"{watch.name}: {state}")
    drawn.set_xlim(0, found.seen.samples)
    drawn.locator_params(nbins=4)
    return figure(drawn, f"{shown['name']} over live samples, {state}")


def _evidence(found: Findings) -> Any:
    """Evidence of all watches row by row, and where it is an alarm."""
    watches = found.seen.watches
    drawn, _ = canvas("monitor", "light", axes(height=2.7 + legend_height(list(watches), MOST_WIDTH)))
    threshold = next(watch.test.threshold for watch in watches.values())
    top = threshold * 30
    for number, (name, watch) in enumerate(watches.items()):
        if watch.test.samples:
            evidence = np.clip([1.0, *found.seen.histories[name].evidence], _LEAST, top)
            drawn.plot([0, *_ends(found)], evidence, label=name, linewidth=1.6, **LIGHT.line(number))
    drawn.axhline(threshold, color=LIGHT.over, **REFERENCE)
    drawn.set_yscale("log")
    drawn.set_ylim(_LEAST, top)
    # As numbers: the exponents of powers would be too small to read.
    ticks = [10.0**power for power in range(-2, int(np.log10(top)) + 1)]
    name_ticks(drawn.yaxis, ticks, [f"{tick:,g}" for tick in ticks])
    drawn.minorticks_off()
    drawn.set_xlim(0, found.seen.samples)
    caption(drawn, LIGHT, "live samples", "evidence", title=f"Alarm from {threshold:g} on")
    legend_below(drawn, LIGHT)
    return figure(drawn, "Evidence of each watch over live samples")
