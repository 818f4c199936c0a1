"""Table and sentences on differences between two models (over samples) or methods (over seeds)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from fedlas._core.text import join_words, pluralize
from fedlas.present.table import DASH, Column, Table, make_table, metric_column
from fedlas.stats import ALPHA, Difference
from fedlas.stats.noise_floor import format_p

if TYPE_CHECKING:
    from fedlas.present.comparison import Comparison
    from fedlas.stats.difference import Unit

SAMPLES_LEGEND = (
    "95 % interval: over the test samples, the same for both. p: of no difference, paired (accuracy: exact McNemar "
    "test, else bootstrap), Holm-corrected. Two models, not two methods, which only seeds can compare."
)
SEEDS_LEGEND = (
    "t: paired t-test over seeds; Holm: the same, corrected for the number of rows in the table. needed: seeds for "
    "80 % power if the difference is as large as it looks; from few seeds a rough guess."
)
SPLITS_LEGEND = (
    "t: corrected paired t-test over splits with overlapping training parts (Nadeau and Bengio, each tests a share of "
    "{share:g}); Holm: the same, corrected for the number of rows in the table."
)
_HEADERS = {
    "samples": ("A", "B", "A - B", "95 % interval", "p"),
    "seeds": ("seeds", "A", "B", "difference, 95 %", "t", "Holm", "needed"),
}
NARROW_COLUMNS = (0, 1, 4, 5, 6, 7)
"""Columns over seeds that fit a terminal: pair or metric, seeds, difference, t, Holm, needed."""


def differences_table(
    differences: Sequence[Difference],
    *,
    title: str,
    row_label: str = "metric",
    event: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """Return a table with a row per difference.

    Args:
        differences: All over samples, or all over seeds.
        title: Above the table.
        row_label: What the first column names: ``"metric"``, or ``"pair"`` of methods.
        event: Name of the class that the metrics are about, if any.
        notes: Below the table.
    """
    rows = []
    for each in differences:
        about = metric_column(each.metric, event=bool(event))
        first = about.head if row_label == "metric" else " - ".join(each.names)
        ends = (
            ""
            if each.interval is None
            else ", ".join(format_signed(about, e) for e in each.interval)
        )
        size = format_signed(about, each.difference)
        means = (about.format(each.a), about.format(each.b))
        if each.unit == "samples":
            ends = f"[{format_signed(about, each.low)}, {format_signed(about, each.high)}]"
            p = format_p(_p_value(each), None).removeprefix("p ").removeprefix("= ")
            rows.append([first, *means, size, ends, p])
            continue
        size += f" [{ends}]" * bool(ends)
        tests = (format_short_p(each.p_value), format_short_p(each.p), str(each.needed or DASH))
        rows.append([first, str(each.count), *means, size, *tests])
    heads = ("metric" if row_label == "metric" else "A - B", *_HEADERS[_common_unit(differences)])
    return make_table(heads, rows, title=title, notes=notes)


def comparison_sentences(
    differences: Iterable[Difference], names: tuple[str, str], *, event: str = ""
) -> list[str]:
    """Return sentences on which model is better in which metrics, and which metrics show no significant difference.

    Args:
        differences: One for each metric.
        names: Names of the two.
        event: Name of the class that the metrics are about, if any.
    """
    shown = list(differences)
    lines = []
    for side, first, second in (("a", *names), ("b", *reversed(names))):
        parts = [_describe_change(each, event) for each in shown if each.better == side]
        if parts:
            lines.append(f"{first} is better than {second} in {join_words(parts)}.")
    # Of a slope neither more nor less is better: what differs there is no tie.
    apart = [
        _describe_change(each, event)
        for each in shown
        if each.better is None and _p_value(each) <= ALPHA
    ]
    if apart:
        lines.append(f"They differ in {join_words(apart)}, where neither direction is better.")
    ties = [each for each in shown if each.better is None and _p_value(each) > ALPHA]
    same = [f"{_metric_title(each, event)}{_describe_uncorrected(each)}" for each in ties]
    if same and lines:
        lines.append(f"Not distinguishable: {join_words(same)}.")
    elif same:
        lines.append(f"{names[0]} and {names[1]} are not distinguishable in {join_words(same)}.")
    return lines


def _describe_uncorrected(each: Difference) -> str:
    """Return a remark on a test that rejects before Holm's correction alone, as its interval does, or nothing."""
    if each.p_value is None or each.p_value > ALPHA:
        return ""
    return f" ({format_p(each.p_value, None)} alone, {format_p(_p_value(each), None)} after Holm's correction)"


def groups_table(
    groups: Mapping[str, Comparison], metrics: Iterable[str], *, event: str = ""
) -> Table:
    """Return a table with a row per group and a column per metric, with the differences in the cells."""
    abouts = [metric_column(name, event=bool(event)) for name in metrics]
    rows = []
    for group, table in groups.items():
        cells = []
        for about in abouts:
            each = table.get(about.metric)
            cells.append(
                DASH
                if each is None
                else f"{format_signed(about, each.difference)}{_significance_mark(each)}"
            )
        rows.append((group, f"{table.samples:,}", *cells))
    notes = ["* significant at 0.05, after Holm's correction over all metrics and groups."]
    if any(isnan(each.low) for table in groups.values() for each in table.values()):
        notes.append("? not testable: a single sample, a single cluster, or no weight.")
    heads = ("group", "samples", *(about.head for about in abouts))
    return make_table(heads, rows, title="A - B in groups", notes=notes)


def _significance_mark(each: Difference) -> str:
    if isnan(each.low):
        return " ?"
    return "" if each.better is None else "*"


def difference_sentence(difference: Difference, *, event: str = "") -> str:
    """Return a sentence on whether two methods differ significantly over seeds."""
    about = metric_column(difference.metric, event=bool(event))
    size = about.format(abs(difference.difference)) + (" points" if about.unit else "")
    first, second = difference.names
    n = difference.count
    if difference.p is None:
        return f"{first} - {second}: the difference of {size} cannot be tested ({pluralize(n, 'seed')}, no spread)."
    if difference.p > ALPHA:
        needed = difference.needed
        more = "" if needed is None else f" About {needed} seeds would detect one of this size."
        return f"No significant difference in {about.title} between {first} and {second} over {n} seeds.{more}"
    way = "lower" if difference.difference < 0 else "higher"
    p = f"p = {format_short_p(difference.p)}".replace("= <", "<")
    return f"{first} has {way} {about.title} than {second}, by {size} ({p}, {n} seeds)."


def format_signed(about: Column, value: float) -> str:
    """Return a difference with its sign, as text."""
    text = about.format(abs(value))
    if isnan(value):
        return text
    return f"{'-' if value < 0 and text.strip('0.') else '+'}{text}"


def format_short_p(value: float | None) -> str:
    """Return a p-value with three decimals, or a dash for None."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def difference_notes(unit: Unit, event: str = "", test_share: float | None = None) -> list[str]:
    """Return the notes below a table of differences over samples or over seeds, which may have their own splits."""
    legend = SEEDS_LEGEND if unit == "seeds" else SAMPLES_LEGEND
    if test_share:
        legend = SPLITS_LEGEND.format(share=test_share)
    subject = f"The event is {event}; ECE and Brier score are of its probability."
    return [legend, *[subject] * bool(event)]


def _common_unit(differences: Sequence[Difference]) -> str:
    return differences[0].unit if differences else "samples"


def _p_value(each: Difference) -> float:
    """Return the corrected p-value, or 1 if there is no test."""
    return 1.0 if each.p is None else each.p


def _metric_title(each: Difference, event: str) -> str:
    title = metric_column(each.metric, event=bool(event)).title
    return f"{title} of {event}" if event and each.metric == "ece" else title


def _describe_change(each: Difference, event: str) -> str:
    about = metric_column(each.metric, event=bool(event))
    unit = " points" if about.unit else ""
    change = f"{about.format(abs(each.difference))}{unit} ({format_p(_p_value(each), None)})"
    return f"{_metric_title(each, event)} by {change}"
