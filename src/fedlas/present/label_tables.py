"""A line for each of several labels a sample, and sentences on all of them."""

from __future__ import annotations

from itertools import islice
from typing import Any

from fedlas.binary import LabelMeasures, LabelTable
from fedlas.present.groups import columns_behind_names, further_rows, short_name
from fedlas.present.positive_class import interval_text, plain_measures
from fedlas.present.table import DASH, Cell, Column, Table, column
from fedlas.present.verdict import Evidence, Verdict
from fedlas.stats import ALPHA
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import p_said, p_text

_CUT = 14
"""Letters of a label's name in a terminal of 80 columns."""
_LEGEND = (
    "Strongest evidence first. has: share of the samples that have the label. O/E: observed over expected; above 1 the "
    "probabilities are too low. Slope: below 1 they are too extreme. ECE: of the label's probability; [low, high]: "
    "{level:g} % intervals. p: of as many samples with the label and of a slope of 1, Holm-corrected for all labels."
)


def metric_text(name: str, value: float, *, unit: bool = False) -> str:
    """Return the value of a metric as its column shows it."""
    about = column(name)
    return f"{about.format(value)}{f' {about.unit}' if unit and about.unit else ''}"


def plain_measures_of(line: LabelMeasures) -> dict[str, Any]:
    """Return the numbers of a label for JSON; those that are not known are left out."""
    return {
        key: plain_measures({"": {"": value}})[""][""] if isinstance(value, Estimate) else value
        for key, value in vars(line).items()
        if value is not None
    }


def verdict_on_labels(table: LabelTable) -> Verdict:
    """Return whether labels are calibrated, by Holm's correction over all of them."""
    tested = [(name, each, each.p) for name, each in table.items() if each.p is not None]
    bad = [name for name, _, p in tested if p <= ALPHA]
    p = min((p for _, _, p in tested), default=None)
    tests = {name: Evidence(name, p) for name, _, p in tested}
    count = f"{len(tested):,} label{'s' * (len(tested) != 1)}"
    if p is None:
        return Verdict("Labels: none can be tested.", tests)
    name, worst, _ = tested[0]
    evidence = _evidence(name, worst)
    if not bad:
        text = f"Calibrated, as far as these samples show: none of {count} is shown to be miscalibrated; the most "
        return Verdict(f"{text}evidence is against {evidence}.", tests, joint_p=p)
    also = f"Miscalibrated: {len(bad):,} of {count}; most clearly {evidence}."
    return Verdict(also, tests, direction="miscalibrated labels", joint_p=p)


def _evidence(name: str, line: LabelMeasures) -> str:
    form = Column("", places=2).format
    percent = Column("", "%", places=4).format
    slope = line.slope
    line_text = "" if slope is None else f", slope {form(slope.value)} {interval_text(slope, form)}"
    return (
        f"{name!r}: {percent(line.expected)} % expected, {percent(line.prevalence.value)} % have it (O/E "
        f"{form(line.ratio.value)} {interval_text(line.ratio, form)}{line_text}, "
        f"{p_said(line.p or 0.0, None)} after Holm's correction)"
    )


def labels_table(table: LabelTable, level: float, *, title: str, most: int | None = None) -> Table:
    """Return a row for each label: share, O/E, slope, ECE and AUROC with intervals.

    Args:
        table: From :func:`fedlas.binary.label_measures`: the strongest evidence first.
        level: Level of the intervals.
        title: Above the table.
        most: Labels that are shown; None for all.
    """
    shown = dict(islice(table.items(), most))
    heads = ("label", "has %", "O/E", "slope", "ECE %", "AUROC", "p")
    rows = [_label_row(name, each) for name, each in shown.items()]
    notes = [
        *further_rows(len(table) - len(shown), most, "label"),
        _LEGEND.format(level=100 * level),
    ]
    if table.unknown:
        notes.append(
            f"No sample tells {', '.join(table.unknown[:6])}{'...' * (len(table.unknown) > 6)}."
        )
    return Table(columns_behind_names(heads), tuple(rows), title, tuple(notes), narrow=True)


def _label_row(name: str, line: LabelMeasures) -> tuple[Cell, ...]:
    ratio = Column("", places=2).format
    share = Column("", "%", places=3).format
    error = Column("", "%", places=4).format
    area = Column("", places=3).format

    def cell(estimate: Estimate | None, form: Any, *, beside: bool = False) -> Cell:
        if estimate is None:
            return Cell(DASH)
        interval = interval_text(estimate, form)
        return Cell(
            form(estimate.value),
            extra=interval if beside else "",
            details=() if beside or not interval else (interval,),
            tip=interval,
            number=estimate.value,
        )

    return (
        short_name(name, _CUT),
        cell(line.prevalence, share),
        cell(line.ratio, ratio, beside=True),
        cell(line.slope, ratio, beside=True),
        cell(line.ece, error),
        cell(line.auroc, area),
        Cell(DASH if line.p is None else p_text(line.p), number=line.p),
    )
