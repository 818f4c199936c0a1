"""Tables, sentences and the page of ``fedlas monitor``."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.text import printable
from fedlas.deploy.label_reference import ALL_LABELS
from fedlas.plots.theme import (
    LIGHT,
    REFERENCE,
    draw_legend_below,
    legend_height,
    set_labels,
    set_ticks,
    styled_axes,
)
from fedlas.present.groups import MAX_ROWS, further_rows_note, truncated_name_cell
from fedlas.present.page import (
    MAX_FIGURE_WIDTH,
    creation_note,
    new_page_axes,
    render,
    to_inline_svg,
)
from fedlas.present.table import DASH, Table, make_table

if TYPE_CHECKING:
    from fedlas.deploy.monitor.look import Monitor
    from fedlas.deploy.monitor.state import StreamState
    from fedlas.deploy.monitor.watches import Watch

_LIMIT_DEVIATIONS = 3.0
"""Standard deviations of a row's mean beyond the interval on the card where its limit is drawn: one row in 700."""
_MIN_EVIDENCE = 1e-2
"""Evidence below is drawn here: how far it fell says nothing."""
_MAX_NAME_LENGTH = 14
"""Letters of a label's name in a terminal of 80 columns."""
_MAX_ALARM_LABELS = 3
"""Labels of a watch whose change is told in a sentence, and drawn."""
_FRACTION_NAMES = {3: "third", 4: "quarter"}
_LABELS_LEGEND = (
    "Strongest evidence first. Gap: prevalence minus mean probability, over samples with a known label. Evidence: of "
    "the label alone, the largest of all watches. At the alarm threshold, this label has changed; the false-alarm rate "
    "holds over all labels together."
)
_UNLED_PREFIXES = ("predicted as", "samples at probability")
"""How the names of means begin in a watch without a leading one."""


def watches_table(content: Mapping[str, Any]) -> Table:
    """Return a table with a row per watch: state, live mean, interval on the card, and evidence."""
    rows = []
    for name, watch in content["watches"].items():
        if "statistics" not in watch:
            rows.append((name, watch["why"], *[DASH] * 3))
            continue
        evidence = _format_evidence(watch["evidence"]) if watch["watched"] else DASH
        rows.append(
            (
                name,
                _watch_state(watch),
                *_live_and_card_cells(_leading_statistic(watch), name),
                evidence,
            )
        )
    return make_table(
        ("Watch", "State", "Live %", "On the card %", "Evidence"), rows, left_aligned=(0, 1)
    )


def labels_table(content: Mapping[str, Any], *, max_rows: int | None = None) -> Table | None:
    """Return a table with a row per label, the strongest evidence first, or None for single-label predictions.

    Args:
        content: Of a monitor.
        max_rows: Rows that are shown; None for all.
    """
    evidence: dict[str, float] = {}
    alarms: dict[str, bool] = {}
    means: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, watch in content["watches"].items():
        for label, each in watch.get("labels", {}).items():
            evidence[label] = max(evidence.get(label, 0.0), each["evidence"])
            alarms[label] = alarms.get(label, False) or each["alarm_after"] is not None
        for each in reversed(
            watch["statistics"] if evidence else ()
        ):  # the first of a label stands for it
            means.setdefault(each["label"], {})[name] = each
    # The mean of all labels is among the watches.
    order = sorted(
        {*evidence} - {ALL_LABELS}, key=lambda label: (-alarms[label], -evidence[label], label)
    )
    if not order:
        return None

    def mean_cells(label: str, name: str) -> tuple[str, str]:
        each = means[label].get(name)
        return (DASH, DASH) if each is None else _live_and_card_cells(each, name)

    rows = [
        (
            truncated_name_cell(label, _MAX_NAME_LENGTH),
            "ALARM" if alarms[label] else "quiet",
            *mean_cells(label, "calibration"),
            *mean_cells(label, "probability"),
            _format_evidence(evidence[label]),
        )
        for label in order[:max_rows]
    ]
    heads = ("Label", "State", "Gap %", "On the card", "Mean p %", "On the card", "Evidence")
    notes = (*further_rows_note(len(order) - len(rows), max_rows, "label"), _LABELS_LEGEND)
    return replace(
        make_table(heads, rows, title="Labels", notes=notes, left_aligned=(0, 1)), narrow=True
    )


def statistics_table(content: Mapping[str, Any]) -> Table:
    """Return a table with a row per watched mean."""
    rows = [
        (
            each["name"],
            *_live_and_card_cells(each, name),
            f"{each['samples']:,}",
            _format_evidence(each["evidence"]),
        )
        for name, watch in content["watches"].items()
        for each in watch.get("statistics", ())
    ]
    heads = ("Mean", "Live %", "On the card %", "Samples", "Evidence")
    return make_table(heads, rows, title="All watched means")


def monitor_verdict(monitor: Monitor, drifts: Sequence[str]) -> str:
    """Return one sentence on the alarms of a monitor and on drifts of columns, such as "age moved by +2.0 sd"."""
    if not drifts:
        return monitor.verdict
    drift = f"DRIFT of a column: {', '.join(drifts)}"
    if monitor.status:
        return f"{monitor.verdict.removesuffix('.')}; {drift}."
    return f"{drift}; {monitor.verdict.removeprefix('No alarm: ')}"


def alarm_sentences(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence per watch in alarm: the mean that changed, its live value and the value on the card."""
    lines = []
    for name in content["alarms"]:
        for worst, after in _changed_means(content["watches"][name]):
            live, chance = _live_and_card_cells(worst, name)
            card = f"{_format_percent(worst['card'], name)} % on the card (interval {chance} %)"
            where = f"{_capitalize_first(worst['name'])}: {live} % now, {card}"
            lines.append(f"{where}; alarm after sample {after:,}.")
    return lines


def _changed_means(watch: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], int]]:
    """Return the changed means of a watch in alarm, each with the sample at which the alarm was raised."""
    labels = watch.get("labels", {})
    after = {
        name: each["alarm_after"]
        for name, each in labels.items()
        if each["alarm_after"] is not None
    }
    groups = [
        ([each for each in watch["statistics"] if each["label"] == name], after[name])
        for name in sorted(after, key=lambda name: (name == ALL_LABELS, after[name]))[
            :_MAX_ALARM_LABELS
        ]
        if name != ALL_LABELS or len(after) == 1
    ]
    return [
        (max(means, key=lambda each: each["evidence"]), sample)
        for means, sample in groups or [(watch["statistics"], watch["alarm_after"])]
    ]


def explanatory_notes(content: Mapping[str, Any]) -> list[str]:
    """Return notes that explain the columns and the false-alarm rate."""
    watches = {name: watch for name, watch in content["watches"].items() if "statistics" in watch}
    shown = "; ".join(
        f"{name}: {_leading_statistic(watch)['name']}" for name, watch in watches.items()
    )
    threshold = next(watch["threshold"] for watch in watches.values())
    outside = [
        name
        for name, watch in watches.items()
        if watch["watched"]
        and not watch["alarm"]
        and _is_outside_interval(_leading_statistic(watch))
    ]
    scatter = f"Quiet, though outside: {', '.join(outside)}. So few live samples can lie outside by chance."
    return [
        *([scatter] if outside else []),
        f"Live %: {shown}. On the card: interval of this mean, from the card's test samples. Alarm at evidence "
        f"{threshold:g}.",
        f"False alarms: at most {100 * content['false_alarm']:g} % over the whole stream, at any number of "
        f"looks; a {_FRACTION_NAMES[len(content['watches'])]} of it per watch.",
    ]


def monitor_page(
    monitor: Monitor, *, title: str = "", period: str = "", drifts: Sequence[str] = ()
) -> str:
    """Return the page of a monitor as self-contained HTML; ``period`` is the period of the live samples.

    ``drifts`` say which columns have drifted, as in :func:`monitor_verdict`.
    """
    content = monitor.content
    stream = monitor._stream
    watched = [watch for watch in stream.watches.values() if watch.test.samples]
    looks = f"{content['looks']:,} look{'' if content['looks'] == 1 else 's'}"
    return render(
        "monitor.html.j2",
        title=title or f"Monitor of {content['card']}",
        made=creation_note(period),
        verdict=[monitor_verdict(monitor, drifts), *alarm_sentences(content)],
        statement=f"{monitor.summary} {looks}.",
        table=watches_table(content),
        labels=labels_table(content),
        most=MAX_ROWS,
        notes=explanatory_notes(content),
        pictures=[
            _draw_mean(stream, content, watch, shown)
            for watch in watched
            for shown in _means_to_draw(content["watches"][watch.name])
        ],
        width=stream.width,
        evidence=_draw_evidence(stream),
        everything=statistics_table(content),
    )


def _leading_statistic(watch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the statistic shown for a watch: the first, or the one with most evidence if none leads."""
    statistics: list[Mapping[str, Any]] = watch["statistics"]
    if statistics[0]["name"].startswith(_UNLED_PREFIXES):
        return max(statistics, key=lambda each: each["evidence"])
    return statistics[0]


def _is_outside_interval(statistic: Mapping[str, Any]) -> bool:
    """Return whether the live mean lies outside the interval on the card."""
    live = statistic["live"]
    return live is not None and not statistic["low"] <= live <= statistic["high"]


def _capitalize_first(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _watch_state(watch: Mapping[str, Any]) -> str:
    return "ALARM" if watch["alarm"] else "quiet" if watch["watched"] else str(watch["why"])


def _live_and_card_cells(statistic: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return the live mean and the interval on the card as text."""
    return _format_percent(statistic["live"], name), " to ".join(
        _format_percent(statistic[end], name) for end in ("low", "high")
    )


def _format_percent(share: float | None, name: str) -> str:
    """Return a share in percent, with a sign for calibration; a dash for None."""
    return DASH if share is None else f"{100 * share:{'+' if name == 'calibration' else ''}.2f}"


def _format_evidence(evidence: float) -> str:
    return (
        f"{evidence:.2g}"
        if evidence < 1e4
        else "> 10^9"
        if evidence > 1e9
        else f"10^{math.log10(evidence):.0f}"
    )


def _row_end_indices(stream: StreamState) -> Any:
    """Return the index of the last sample of each row of the histories."""
    rows = -(-stream.samples // stream.width)
    return np.minimum((np.arange(rows) + 1) * stream.width, stream.samples)


def _means_to_draw(watch: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the means of a watch to draw: the leading mean, and one per label in alarm, at most three labels."""
    leading = _leading_statistic(watch)
    worst = _changed_means(watch) if watch["alarm"] and "labels" in watch else []
    return [leading, *(each for each, _ in worst if each is not leading)]


def _draw_mean(
    stream: StreamState, content: Mapping[str, Any], watch: Watch, shown: Mapping[str, Any]
) -> Any:
    """Draw a mean of a watch over live samples, with the card's interval and the limits of chance."""
    number = watch.statistics.index(shown["name"])
    history = stream.histories[watch.name]
    ax, _ = styled_axes("light", new_page_axes(2.9, 2.2))
    count = history.count[:, number]
    total = history.total[:, number]
    # Rows without such samples, as without labels, are gaps.
    count = np.where(count > 0, count, np.nan)
    ends = _row_end_indices(stream)
    means = total / count
    # Few samples scatter widely, so the limits of a row widen as its samples get fewer.
    reach = _LIMIT_DEVIATIONS * watch.spread[number] / np.sqrt(count)
    low = np.maximum(watch.test.low[number] - reach, watch.test.least[number])
    high = np.minimum(watch.test.high[number] + reach, watch.test.most[number])
    inside = (means >= low) & (means <= high)
    outside = (means < low) | (means > high)
    for limit in (low, high):
        steps = 100 * np.concatenate([limit[:1], limit])
        ax.plot(
            [0, *ends],
            steps,
            color=LIGHT.muted,
            linewidth=0.9,
            linestyle=(0, (4, 3)),
            drawstyle="steps-pre",
        )
    ax.axhspan(
        100 * watch.test.low[number], 100 * watch.test.high[number], color=LIGHT.grid, zorder=0
    )
    ax.plot(ends, 100 * means, color=LIGHT.muted, linewidth=0.8)
    ax.plot(ends[inside], 100 * means[inside], "o", color=LIGHT.ink, markersize=3.2)
    ax.plot(ends[outside], 100 * means[outside], "D", color=LIGHT.over, markersize=4)
    if watch.name in stream.alarms:
        ax.axvline(stream.alarms[watch.name], color=LIGHT.over, linewidth=1.2)
    state = _watch_state(content["watches"][watch.name])
    of = shown.get("label", ALL_LABELS)
    what = watch.name if of == ALL_LABELS else f"{watch.name}, {of}"
    label = textwrap.fill(printable(f"{shown['name']} %"), 26)
    set_labels(ax, LIGHT, "live samples", title=f"{what}: {state}")
    ax.set_ylabel(label, color=LIGHT.ink, fontsize=9, parse_math=False, linespacing=1.5)
    ax.set_xlim(0, stream.samples)
    ax.locator_params(nbins=4)
    return to_inline_svg(ax, f"{shown['name']} over live samples, {state}")


def _draw_evidence(stream: StreamState) -> Any:
    """Draw the evidence of all watches over live samples, with the alarm threshold."""
    ax, _ = styled_axes(
        "light", new_page_axes(height=2.7 + legend_height(list(stream.watches), MAX_FIGURE_WIDTH))
    )
    threshold = next(watch.test.threshold for watch in stream.watches.values())
    top = threshold * 30
    for number, (name, watch) in enumerate(stream.watches.items()):
        if watch.test.samples:
            evidence = np.clip([1.0, *stream.histories[name].evidence], _MIN_EVIDENCE, top)
            ax.plot(
                [0, *_row_end_indices(stream)],
                evidence,
                label=name,
                linewidth=1.6,
                **LIGHT.line(number),
            )
    ax.axhline(threshold, color=LIGHT.over, **REFERENCE)
    ax.set_yscale("log")
    ax.set_ylim(_MIN_EVIDENCE, top)
    # As numbers: the exponents of powers would be too small to read.
    ticks = [10.0**power for power in range(-2, int(np.log10(top)) + 1)]
    set_ticks(ax.yaxis, ticks, [f"{tick:,g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(0, stream.samples)
    set_labels(ax, LIGHT, "live samples", "evidence", title=f"Alarm from {threshold:g} on")
    draw_legend_below(ax, LIGHT)
    return to_inline_svg(ax, "Evidence of each watch over live samples")
