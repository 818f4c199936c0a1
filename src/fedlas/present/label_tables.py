"""Tables and sentences on the labels of multi-label predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedlas.binary import LabelGroupMeasures, LabelMeasures, LabelTable
from fedlas.present.groups import rows_table, truncated_name_cell
from fedlas.present.metric_tables import left_out_text, slopes_left_out_note
from fedlas.present.positive_class import estimate_to_dict, format_interval
from fedlas.present.table import DASH, Cell, Column, Table, metric_column
from fedlas.present.verdict import Evidence, Verdict
from fedlas.stats import ALPHA
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import format_p, format_p_digits

_MAX_NAME_LENGTH = 14
"""Letters of a label's name in a terminal of 80 columns."""
_LEGEND = (
    "Strongest evidence first. has: share of the samples that have the label. O/E: observed over expected; above 1 the "
    "probabilities are too low. Slope: below 1 they are too extreme. ECE: of the label's probability; [low, high]: "
    "{level:g} % intervals. p: of as many samples with the label and of a slope of 1, Holm-corrected for all labels."
)


def format_metric(name: str, value: float, *, unit: bool = False) -> str:
    """Return a metric's value as text, with the digits of its table column."""
    about = metric_column(name)
    return f"{about.format(value)}{f' {about.unit}' if unit and about.unit else ''}"


def label_measures_to_dict(measures: object) -> dict[str, Any]:
    """Return the measures of a label, or of a group, as a dict for JSON, without missing values."""
    return {
        key: estimate_to_dict(value)
        if isinstance(value, Estimate)
        else label_measures_to_dict(value)
        if isinstance(value, LabelMeasures)
        else value
        for key, value in vars(measures).items()
        if value is not None
    }


def label_verdict(table: LabelTable) -> Verdict:
    """Return the verdict on the calibration of all labels, by their tests with Holm's correction."""
    tested = [(name, each, each.p) for name, each in table.items() if each.p is not None]
    bad = [name for name, _, p in tested if p <= ALPHA]
    p = min((p for _, _, p in tested), default=None)
    tests = {name: Evidence(name, p) for name, _, p in tested}
    count = f"{len(tested):,} label{'s' * (len(tested) != 1)}"
    if p is None:
        return Verdict("Labels: none can be tested.", tests)
    name, worst, _ = tested[0]
    evidence = _format_evidence(name, worst)
    if not bad:
        text = f"Calibrated, as far as these samples show: none of {count} is shown to be miscalibrated; the most "
        return Verdict(f"{text}evidence is against {evidence}.", tests, joint_p=p)
    also = f"Miscalibrated: {len(bad):,} of {count}; most clearly {evidence}."
    return Verdict(also, tests, direction="miscalibrated labels", joint_p=p)


def _format_evidence(name: str, measures: LabelMeasures) -> str:
    form = Column("", places=2).format
    percent = Column("", "%", places=4).format
    slope = measures.slope
    line_text = (
        "" if slope is None else f", slope {form(slope.value)} {format_interval(slope, form)}"
    )
    if slope is not None and slope.left_out:
        line_text += f" without {left_out_text(slope.left_out)}"
    return (
        f"{name!r}: {percent(measures.expected)} % expected, {percent(measures.prevalence.value)} % have it (O/E "
        f"{form(measures.ratio.value)} {format_interval(measures.ratio, form)}{line_text}, "
        f"{format_p(measures.p or 0.0, None)} after Holm's correction)"
    )


def labels_table(
    table: LabelTable, level: float, *, title: str, max_rows: int | None = None
) -> Table:
    """Return a table with a row per label: prevalence, O/E, slope, ECE and AUROC with intervals.

    Args:
        table: From :func:`fedlas.binary.label_measures`: the strongest evidence first.
        level: Level of the intervals.
        title: Above the table.
        max_rows: Labels that are shown; None for all.
    """
    heads = ("label", "has %", "O/E", "slope", "ECE %", "AUROC", "p")
    legend = _LEGEND.format(level=100 * level)
    shown = rows_table(
        table, _label_row, heads, title=title, max_rows=max_rows, legend=legend, noun="label"
    )
    left_out = slopes_left_out_note(each.slope for each in table.values())
    shown = replace(shown, notes=(*shown.notes, *left_out))
    if not table.unknown:
        return shown
    names = f"{', '.join(table.unknown[:6])}{'...' * (len(table.unknown) > 6)}"
    return replace(shown, notes=(*shown.notes, f"Unknown in all samples: {names}."))


_GROUPS_LEGEND = (
    "Strongest evidence first. O/E: observed over expected, of all labels; above 1 the probabilities are too low. "
    "ECE: macro, the mean of the labels. p: of as many labels and of the worst one, Holm-corrected for all groups."
)


def label_groups_table(
    by_group: Mapping[Any, LabelGroupMeasures], *, title: str, max_rows: int | None = None
) -> Table:
    """Return a table with a row per group: all labels together, and the worst label.

    Args:
        by_group: From :func:`fedlas.binary.label_group_measures`: the strongest evidence first.
        title: Above the table.
        max_rows: Groups that are shown; None for all.
    """
    heads = ("group", "n", "O/E", "ECE %", "worst label", "its O/E", "p")
    table = rows_table(
        by_group, _label_group_row, heads, title=title, max_rows=max_rows, legend=_GROUPS_LEGEND
    )
    columns = tuple(Column(head, words=head in ("group", "worst label")) for head in heads)
    return replace(table, columns=columns)


def _label_group_row(name: str, group: LabelGroupMeasures) -> tuple[Cell, ...]:
    ratio = Column("", places=2).format
    return (
        truncated_name_cell(name, _MAX_NAME_LENGTH),
        Cell(f"{group.num_samples:,}", number=group.num_samples),
        _estimate_cell(group.ratio, ratio, interval_inline=True),
        _estimate_cell(group.macro_ece, metric_column("ece").format),
        truncated_name_cell(group.worst_label, _MAX_NAME_LENGTH),
        _estimate_cell(group.worst.ratio, ratio),
        _p_cell(group.p),
    )


def worst_label_group_sentence(by_group: Mapping[Any, LabelGroupMeasures], stage: str) -> str:
    """Return a sentence on the group with the strongest evidence of miscalibration, and its significance."""
    name, worst = next(iter(by_group.items()))
    if worst.p is None:
        return f"Groups, {stage}: none was tested, because each has a single cluster."
    form = Column("", places=2).format
    tested = [each.p for each in by_group.values() if each.p is not None]
    bad = sum(p <= ALPHA for p in tested)
    evidence = (
        f"{name!r}: O/E {form(worst.ratio.value)} {format_interval(worst.ratio, form)} of all labels, worst label "
        f"{worst.worst_label!r} with {form(worst.worst.ratio.value)} {format_interval(worst.worst.ratio, form)}, "
        f"{format_p(worst.p, None)} after Holm's correction for {len(tested)} groups"
    )
    way = "none is shown to be miscalibrated; the most evidence is against"
    if bad:
        way = f"{bad:,} of {len(tested):,} miscalibrated; most clearly"
    return f"Groups, {stage}: {way} {evidence}."


def _label_row(name: str, measures: LabelMeasures) -> tuple[Cell, ...]:
    ratio = Column("", places=2).format
    share = Column("", "%", places=3).format
    error = Column("", "%", places=4).format
    area = Column("", places=3).format

    return (
        truncated_name_cell(name, _MAX_NAME_LENGTH),
        _estimate_cell(measures.prevalence, share),
        _estimate_cell(measures.ratio, ratio, interval_inline=True),
        _estimate_cell(measures.slope, ratio, interval_inline=True),
        _estimate_cell(measures.ece, error),
        _estimate_cell(measures.auroc, area),
        _p_cell(measures.p),
    )


def _estimate_cell(estimate: Estimate | None, form: Any, *, interval_inline: bool = False) -> Cell:
    if estimate is None:
        return Cell(DASH)
    interval = format_interval(estimate, form)
    return Cell(
        form(estimate.value),
        extra=interval if interval_inline else "",
        details=() if interval_inline or not interval else (interval,),
        tip=interval,
        number=estimate.value,
    )


def _p_cell(p: float | None) -> Cell:
    return Cell(DASH if p is None else format_p_digits(p), number=p)
