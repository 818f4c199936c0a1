"""Groups of samples: a row each, and the worst calibrated one in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedlas.present.metric_tables import noise_in
from fedlas.present.table import DASH, Cell, Column, Table, column
from fedlas.stats import ALPHA, GroupEstimate
from fedlas.stats.estimates import Estimate
from fedlas.stats.noise_floor import p_said

ByGroup = Mapping[str, GroupEstimate]
MOST = 10
"""Groups that a terminal shows by default."""
_CUT = 18
_LEGEND = (
    "Worst first, by ECE less floor. conf.: mean confidence. Floor: mean ECE of a calibrated model with these "
    "confidences, the higher the fewer samples. p: of the test that the group is calibrated, Holm-corrected."
)


def groups_table(by_group: ByGroup, *, title: str, whole: GroupEstimate, most: int | None = None) -> Table:
    """Return a row for all samples, and one for each group.

    Args:
        by_group: From :func:`fedlas.stats.group_estimates`: the worst first.
        title: Above the table.
        whole: The same numbers of all samples together.
        most: Groups that are shown; None for all.
    """
    listed = dict(list(by_group.items())[:most])
    tested = _tested(by_group)
    rows = [_row("all samples", whole, 1), *(_row(str(name), each, tested) for name, each in listed.items())]
    more = len(by_group) - len(listed)
    notes = (*([f"{more} further groups: --details."] if more else []), _LEGEND)
    heads = ("group", "samples", "accuracy %", "conf. %", "ECE %", "floor", "p")
    columns = tuple(Column(head, words=not number) for number, head in enumerate(heads))
    return Table(columns, tuple(rows), title, notes)


def worst_group(by_group: ByGroup) -> str:
    """Return a sentence on the group whose ECE exceeds its noise floor most, and whether that is chance."""
    about = column("ece")
    name, worst = next(iter(by_group.items()))
    tested = _tested(by_group)
    if worst.ece.floor is None or worst.p is None:
        return f"Groups: {name!r} has the largest ECE, {about.format(worst.ece.value)} %; none was tested."
    evidence = (
        f"ECE {about.format(worst.ece.value)} % (floor {about.format(worst.ece.floor)} %, {_p(worst, tested)} "
        f"after Holm's correction for {tested} groups)"
    )
    if worst.p > ALPHA:
        return f"Groups: none is shown to be miscalibrated; furthest from its floor is {name!r}, {evidence}."
    also = sum(each.p is not None and each.p <= ALPHA for each in by_group.values()) - 1
    others = f" {also} more {'are' if also > 1 else 'is'} miscalibrated." if also else ""
    way = "over" if worst.confidence > worst.accuracy.value else "under"
    return f"Groups: {name!r} is calibrated worst, {way}confident, {evidence}.{others}"


def plain_groups(by_group: ByGroup) -> dict[str, Any]:
    """Return the numbers by group for JSON."""
    return {
        str(name): {
            **{key: value for key, value in asdict(each).items() if value is not None},
            "accuracy": each.accuracy.plain(),
            "ece": each.ece.plain(),
        }
        for name, each in by_group.items()
    }


def whole_of(values: Mapping[str, float], estimates: Mapping[str, Estimate], samples: int) -> GroupEstimate:
    """Return all samples as one group, from their metrics and estimates."""
    accuracy, ece = (estimates.get(name, Estimate(values[name], 0.0, 1.0)) for name in ("accuracy", "ece"))
    confidence = values["accuracy"] + values["o_ece"] - values["u_ece"]
    return GroupEstimate(samples, confidence, accuracy, ece, ece.p)


def _tested(by_group: ByGroup) -> int:
    return sum(each.p is not None for each in by_group.values())


def _p(group: GroupEstimate, tested: int) -> str:
    """Return the corrected p-value of one of ``tested`` groups; a bound if more replicates could lower it."""
    least = None if group.ece.least_p is None else min(1.0, tested * group.ece.least_p)
    return DASH if group.p is None else p_said(group.p, least)


def _row(name: str, group: GroupEstimate, tested: int) -> tuple[Cell, ...]:
    accuracy, ece = column("accuracy"), column("ece")
    details = [
        (noise_in({about.metric: each}, about).interval,) if group.ece.replicates else ()
        for about, each in ((accuracy, group.accuracy), (ece, group.ece))
    ]
    shown = name if len(name) <= _CUT else f"{name[: _CUT - 1].rstrip()}…"
    return (
        Cell(shown, tip=name if shown != name else ""),
        Cell(f"{group.num_samples:,}", number=group.num_samples),
        Cell(accuracy.format(group.accuracy.value), details=details[0], number=group.accuracy.value),
        Cell(accuracy.format(group.confidence), number=group.confidence),
        Cell(ece.format(group.ece.value), details=details[1], number=group.ece.value),
        Cell(DASH if group.ece.floor is None else ece.format(group.ece.floor), number=group.ece.floor),
        Cell(_p(group, tested).removeprefix("p ").removeprefix("= "), number=group.p),
    )
