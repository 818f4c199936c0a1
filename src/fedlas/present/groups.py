"""Tables and sentences on groups of samples, and on the predictions that a confidence threshold accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from fedlas.present.metric_tables import metric_noise, slopes_left_out_note, top_label_ece
from fedlas.present.positive_class import format_interval
from fedlas.present.table import DASH, Cell, Column, Table, make_table, metric_column
from fedlas.stats import ALPHA
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import format_p, format_p_digits

if TYPE_CHECKING:
    from fedlas.binary import GroupMeasures
    from fedlas.stats import GroupEstimate

V = TypeVar("V")
ByGroup = Mapping[Any, "GroupEstimate"]
EventsByGroup = Mapping[Any, "GroupMeasures"]
MAX_ROWS = 10
"""Groups that a terminal shows by default."""
MAX_ROWS_ON_PAGE = 1000
"""Groups that a page shows, and a terminal with all details; JSON has all."""
_MAX_NAME_LENGTH = 18
_LEGEND = (
    "Worst first, by ECE less floor. conf.: mean confidence. Floor: mean ECE of a calibrated model with these "
    "confidences, the higher the fewer samples. p: of the test that the group is calibrated, Holm-corrected."
)


_EVENT_LEGEND = (
    "Strongest evidence first. O/E: observed over expected events; above 1 the probabilities are too low. p: of as "
    "many events, given the probabilities, Holm-corrected. Slope: below 1 they are too extreme."
)
_POOLED_LEGEND = (
    "Pooled: shrunk toward the mean of all groups, the more the larger the group's standard error "
    "(random effects)."
)


def event_groups_table(
    by_group: EventsByGroup, *, title: str, max_rows: int | None = None
) -> Table:
    """Return a table with a row per group: expected and observed events, their ratio, and the slope.

    Args:
        by_group: From :func:`fedlas.binary.group_measures`: the strongest evidence first.
        title: Above the table.
        max_rows: Groups that are shown; None for all.
    """
    level = next(iter(by_group.values())).ratio.confidence_level
    heads = (
        "group",
        "n",
        "events",
        "exp. %",
        "obs. %",
        "O/E",
        f"{100 * level:g} % interval",
        "slope",
        "p",
    )
    table = rows_table(
        by_group, _event_row, heads, title=title, max_rows=max_rows, legend=_EVENT_LEGEND
    )
    left_out = slopes_left_out_note(each.slope for each in by_group.values())
    return replace(table, notes=(*table.notes, *left_out))


def _event_row(name: str, group: GroupMeasures) -> tuple[Cell, ...]:
    form = Column("", places=2).format
    percent = Column("", "%", places=4).format
    ratio = group.ratio
    slope = group.slope
    return (
        truncated_name_cell(name),
        Cell(f"{group.num_samples:,}", number=group.num_samples),
        Cell(f"{group.events:,}", number=group.events),
        Cell(percent(group.expected), number=group.expected),
        Cell(percent(group.observed), number=group.observed),
        Cell(form(ratio.value), number=ratio.value),
        Cell(format_interval(ratio, form)),
        Cell(DASH)
        if slope is None
        else Cell(form(slope.value), tip=format_interval(slope, form), number=slope.value),
        Cell(DASH if group.p is None else format_p_digits(group.p), number=group.p),
    )


def further_rows_note(more: int, max_rows: int | None, noun: str = "group") -> list[str]:
    """Return a note on where to find the rows that are not shown, or an empty list if all are shown."""
    where = "details=True, or --details" if max_rows == MAX_ROWS else "json(), or --json"
    return [f"{more:,} further {noun}{'s' * (more > 1)}: {where}."] if more else []


def pooled_table(by_group: EventsByGroup, *, title: str, max_rows: int | None = None) -> Table:
    """Return a table with the slope of each group, and the partially pooled slope and calibration-in-the-large."""
    form = Column("", places=2).format

    def estimate_cell(estimate: Estimate | None) -> Cell:
        if estimate is None:
            return Cell(DASH)
        return Cell(
            form(estimate.value), extra=format_interval(estimate, form), number=estimate.value
        )

    rows = [
        (
            truncated_name_cell(str(name)),
            *map(estimate_cell, (each.slope, each.pooled_slope, each.pooled_shift)),
        )
        for name, each in islice(by_group.items(), max_rows)
    ]
    heads = (
        Column("group", words=True),
        *map(Column, ("slope", "pooled slope", "pooled in the large")),
    )
    left_out = slopes_left_out_note(each.slope for each in by_group.values())
    return Table(heads, tuple(rows), title, (_POOLED_LEGEND, *left_out))


def rows_table(
    by_name: Mapping[Any, V],
    to_row: Callable[[str, V], tuple[Cell, ...]],
    heads: Sequence[str],
    *,
    title: str,
    max_rows: int | None,
    legend: str,
    noun: str = "group",
) -> Table:
    """Return a narrow table with a row per group, or label, and a note on where to find those that are not shown.

    Args:
        by_name: What is known of each, by name.
        to_row: The cells of a name and what is known of it.
        heads: Titles of the columns: of the name, and of numbers.
        title: Above the table.
        max_rows: Rows that are shown; None for all.
        legend: Below the table.
        noun: What a row is about.
    """
    rows = [to_row(str(name), each) for name, each in islice(by_name.items(), max_rows)]
    notes = (*further_rows_note(len(by_name) - len(rows), max_rows, noun), legend)
    columns = tuple(Column(head, words=not place) for place, head in enumerate(heads))
    return Table(columns, tuple(rows), title, notes, narrow=True)


def truncated_name_cell(name: str, max_length: int = _MAX_NAME_LENGTH) -> Cell:
    """Return a cell with a name truncated to fit a terminal; its tooltip has the full name."""
    shown = name if len(name) <= max_length else f"{name[: max_length - 1].rstrip()}…"
    return Cell(shown, tip=name if shown != name else "")


def worst_event_group_sentence(by_group: EventsByGroup, event: str) -> str:
    """Return a sentence on the group with the strongest evidence of miscalibration, and its significance."""
    name, worst = next(iter(by_group.items()))
    form = Column("", places=2).format
    percent = Column("", "%", places=4).format
    tested = sum(each.p is not None for each in by_group.values())
    slopes = _slopes_sentence(by_group)
    if worst.p is None:
        return f"Groups: none was tested, because each has a single cluster.{slopes}"
    p = format_p(worst.p, None)
    evidence = (
        f"expects {event} in {percent(worst.expected)} % and {percent(worst.observed)} % occur: O/E "
        f"{form(worst.ratio.value)} {format_interval(worst.ratio, form)}, {p} after Holm's correction for "
        f"{tested} groups"
    )
    if worst.p > ALPHA:
        none = (
            "in none are the events shown to differ"
            if slopes
            else "none is shown to be miscalibrated"
        )
        return f"Groups: {none}; the most evidence is against {name!r}: {evidence}.{slopes}"
    way = "under" if worst.ratio.value > 1 else "over"
    further = _further_miscalibrated_sentence(by_group)
    return f"Groups: {name!r} is {way}-predicted most clearly: {evidence}.{further}{slopes}"


def _slopes_sentence(by_group: EventsByGroup) -> str:
    """Return a sentence on the groups whose slope is not 1 after Holm's correction, or an empty string."""
    from fedlas.stats import holm

    tested = {
        name: (slope, slope.p)
        for name, each in by_group.items()
        if (slope := each.slope) is not None and slope.p is not None
    }
    corrected = dict(zip(tested, holm([p for _, p in tested.values()]), strict=True))
    far = sorted((p, place) for place, p in enumerate(corrected.values()) if p <= ALPHA)
    if not far:
        return ""
    p, place = far[0]
    name = list(tested)[place]
    slope = tested[name][0]
    form = Column("", places=2).format
    more = f"; {len(far) - 1} more {'are' if len(far) > 2 else 'is'} not 1" if len(far) > 1 else ""
    return (
        f" The slope of {name!r} is {form(slope.value)} {format_interval(slope, form)}, {format_p(p, None)} after "
        f"Holm's correction for {len(tested)} slopes{more}."
    )


def groups_to_dict(by_group: Mapping[Any, GroupEstimate | GroupMeasures]) -> dict[str, Any]:
    """Return the measures of each group as a dict for JSON, without missing values."""
    return {str(name): _group_to_dict(each) for name, each in by_group.items()}


def _group_to_dict(group: GroupMeasures | GroupEstimate) -> dict[str, Any]:
    return {
        key: value.to_dict() if isinstance(value, Estimate) else value
        for key, value in vars(group).items()
        if value is not None
    }


def groups_table(
    by_group: ByGroup, *, title: str, all_samples: GroupEstimate, max_rows: int | None = None
) -> Table:
    """Return a table with a row for all samples and a row per group.

    Args:
        by_group: From :func:`fedlas.stats.group_estimates`: the worst first.
        title: Above the table.
        all_samples: The same numbers of all samples together.
        max_rows: Groups that are shown; None for all.
    """
    to_row = partial(_group_row, num_tests=_count_tests(by_group))
    heads = ("group", "samples", "accuracy %", "conf. %", "ECE %", "floor", "p")
    table = rows_table(by_group, to_row, heads, title=title, max_rows=max_rows, legend=_LEGEND)
    first = _group_row("all samples", all_samples, num_tests=1)
    return replace(table, rows=(first, *table.rows), narrow=False)


def worst_group_sentence(by_group: ByGroup) -> str:
    """Return a sentence on the group whose ECE exceeds its noise floor most, and its significance."""
    about = metric_column("ece")
    name, worst = next(iter(by_group.items()))
    tested = _count_tests(by_group)
    if worst.ece.floor is None or worst.p is None:
        return f"Groups: {name!r} has the largest ECE, {about.format(worst.ece.value)} %; none was tested."
    evidence = (
        f"ECE {about.format(worst.ece.value)} % (floor {about.format(worst.ece.floor)} %, "
        f"{_format_group_p(worst, tested)} after Holm's correction for {tested} groups)"
    )
    if worst.p > ALPHA:
        return f"Groups: none is shown to be miscalibrated; furthest from its floor is {name!r}, {evidence}."
    way = "over" if worst.confidence > worst.accuracy.value else "under"
    further = _further_miscalibrated_sentence(by_group)
    return f"Groups: {name!r} is calibrated worst, {way}confident, {evidence}.{further}"


def all_samples_estimate(
    values: Mapping[str, float], estimates: Mapping[str, Estimate], samples: int
) -> GroupEstimate:
    """Return the estimate of all samples as one group, from the metrics of all samples."""
    from fedlas.stats import GroupEstimate

    accuracy, ece = (
        estimates.get(name, Estimate(values[name], 0.0, 1.0))
        for name in ("accuracy", top_label_ece(values))
    )
    confidence = values["accuracy"] + values["o_ece"] - values["u_ece"]
    return GroupEstimate(samples, confidence, accuracy, ece, ece.p)


def _further_miscalibrated_sentence(by_group: ByGroup | EventsByGroup) -> str:
    """Return a sentence on how many more groups are miscalibrated, or an empty string if none are."""
    count = sum(each.p is not None and each.p <= ALPHA for each in by_group.values()) - 1
    return f" {count} more {'are' if count > 1 else 'is'} miscalibrated." if count else ""


def _count_tests(by_group: ByGroup) -> int:
    """Return the number of tests that Holm's correction counts; with very many groups, also those not run."""
    from fedlas.stats.estimates_by_group import MAX_TESTED

    tested = sum(each.p is not None for each in by_group.values())
    if tested < MAX_TESTED:
        return tested
    return sum(each.num_samples > 1 for each in by_group.values())


def _format_group_p(group: GroupEstimate, num_tests: int) -> str:
    """Return the corrected p-value of a group as text; an upper bound if more replicates could lower it."""
    least = None if group.ece.least_p is None else min(1.0, num_tests * group.ece.least_p)
    return DASH if group.p is None else format_p(group.p, least)


def _group_row(name: str, group: GroupEstimate, num_tests: int) -> tuple[Cell, ...]:
    accuracy = metric_column("accuracy")
    ece = metric_column("ece")
    details = [
        (metric_noise({about.metric: each}, about).interval,) if group.ece.replicates else ()
        for about, each in ((accuracy, group.accuracy), (ece, group.ece))
    ]
    return (
        truncated_name_cell(name),
        Cell(f"{group.num_samples:,}", number=group.num_samples),
        Cell(
            accuracy.format(group.accuracy.value), details=details[0], number=group.accuracy.value
        ),
        Cell(accuracy.format(group.confidence), number=group.confidence),
        Cell(ece.format(group.ece.value), details=details[1], number=group.ece.value),
        Cell(
            DASH if group.ece.floor is None else ece.format(group.ece.floor), number=group.ece.floor
        ),
        Cell(
            _format_group_p(group, num_tests).removeprefix("p ").removeprefix("= "), number=group.p
        ),
    )


def thresholds_table(selective: Mapping[str, Any]) -> Table:
    """Return a table with a row per target risk: the threshold, and its risk and coverage on the test samples."""
    heads = ("Target risk %", "Threshold", "Accepted on validation %", "Wrong", "Accepted on test %", "Risk on test %",
             "At most %")  # fmt: skip
    rows = []
    needed = []
    for row in selective["thresholds"]:
        risk = f"{100 * row['risk']:g}"
        if row["threshold"] is None:
            rows.append([risk, "none", *[DASH] * 5])
            needed.append(f"{risk} % needs {row['needed']:,}")
            continue
        val = row["val"]
        test = row["test"]
        share = DASH if test["risk"] is None else f"{100 * test['risk']:.2f}"
        on_val = [f"{100 * val['coverage']:.1f}", f"{val['wrong']:,} of {val['accepted']:,}"]
        on_test = [f"{100 * test['coverage']:.1f}", share, f"{100 * test['upper']:.2f}"]
        accept = "accept all" if _accepts_all(row) else f"{row['threshold']:.4f}"
        rows.append([risk, accept, *on_val, *on_test])
    few = f"none: no threshold reaches this risk. Even without an error, {', '.join(needed)} accepted samples."
    notes = [few] if needed else []
    return make_table(heads, rows, title="What may be accepted", notes=notes)


def _accepts_all(row: Mapping[str, Any]) -> bool:
    return bool(row["val"]["coverage"] == 1 == row["test"]["coverage"])


def acceptance_sentence(selective: Mapping[str, Any]) -> str:
    """Return a sentence on the confidence threshold for the lowest target risk that can be reached."""
    rows = selective["thresholds"]
    row = next((each for each in rows if each["threshold"] is not None), None)
    if row is None:
        risk = max((each["risk"] for each in rows), default=0.0)
        return f"No threshold reaches a {100 * risk:g} % error rate on this data."
    test = row["test"]
    wrong = "" if test["risk"] is None else f", {100 * test['risk']:.2f} % of them wrong"
    which = (
        "all predictions"
        if _accepts_all(row)
        else f"predictions with a confidence of at least {row['threshold']:.4f}"
    )
    accepted = f"{100 * test['coverage']:.1f} % of the test part{wrong}"
    return f"For an error rate of {100 * row['risk']:g} %, accept {which}: {accepted}."
