"""Comparisons on the same samples: all calibrators, ranked by NLL, and two models, who is better in what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

from fedlas._core.text import listed
from fedlas.predictions import Predictions
from fedlas.present.comparison import Comparison
from fedlas.present.metric_tables import Estimates, Measured, cell_of_metric, legend_of, noise_in
from fedlas.present.table import DASH, Cell, Column, Table, column, table_of
from fedlas.stats.noise_floor import p_said
from fedlas.stats.two_models import ModelDifference

RANKED = ("accuracy", "nll", "brier", "ece")
"""Metrics of the short table."""
SELECTION = "Ranked by NLL on these samples: measure the one you choose on others."
TRADES = "! lower ECE, but higher NLL than as predicted"
WITHIN = "~ ECE within noise of calibrated"


@dataclass(frozen=True)
class Rank:
    """Rank of a stage, with what its calibrator does to the predictions.

    Attributes:
        stage: ``"as predicted"`` or ``"after NAME"``.
        changed: Share of the samples whose predicted class it changes.
        lower_ece_higher_nll: Whether it lowers the ECE and raises the NLL: the confidence fits better on average, and
            the probabilities are worse.
    """

    stage: str
    changed: float
    lower_ece_higher_nll: bool

    @property
    def name(self) -> str:
        """Registry name of the calibrator, or ``"as predicted"``."""
        return self.stage.removeprefix("after ")


def rank_stages(measured: Measured, stages: Mapping[str, Predictions]) -> list[Rank]:
    """Rank all stages, the lowest NLL first; equal ones keep their order.

    Args:
        measured: Metrics by stage, then by registry name.
        stages: Predictions by stage; the first is ``"as predicted"``.
    """
    first = next(iter(measured))
    before = measured[first]
    predicted = stages[first].predicted
    ranks = [
        Rank(
            stage,
            float((stages[stage].predicted != predicted).double().mean()),
            values["ece"] < before["ece"] and values["nll"] > before["nll"],
        )
        for stage, values in measured.items()
    ]
    return sorted(ranks, key=lambda rank: measured[rank.stage]["nll"])


def ranking_table(
    measured: Measured,
    stages: Mapping[str, Predictions],
    *,
    title: str,
    estimates: Estimates | None = None,
    metrics: Sequence[str] = RANKED,
) -> Table:
    """Return one row for each calibrator, the lowest NLL first.

    Args:
        measured: As in :func:`ranking`.
        stages: As there.
        title: Above the table.
        estimates: Intervals and noise floors by stage, then by registry name.
        metrics: Registry names of the columns; those that were not measured have none.
    """
    columns = [column(name) for name in metrics if name in next(iter(measured.values()))]
    estimates = estimates or {}
    rows = []
    for rank in rank_stages(measured, stages):
        cells = []
        for about in columns:
            noise = noise_in(estimates.get(rank.stage, {}), about)
            cell = cell_of_metric(about, measured[rank.stage][about.metric], noise)
            cells.append(
                replace(cell, extra=f"({noise.floor})")
                if about.metric == "ece" and noise.floor
                else cell
            )
        changed = Cell(f"{100 * rank.changed:.2f}" if rank.changed else "kept", number=rank.changed)
        rows.append(
            (Cell(rank.name, extra="!" if rank.lower_ece_higher_nll else ""), *cells, changed)
        )
    if any(estimates.values()):
        columns = [replace(c, unit="% (floor)") if c.metric == "ece" else c for c in columns]
    about_class = Column(
        "new class", "%", about="Share of the samples whose predicted class changes."
    )
    heads = (Column("calibrator", words=True), *columns, about_class)
    return Table(heads, tuple(rows), title, legend_of(estimates))


def signs(measured: Measured, stages: Mapping[str, Predictions], estimates: Estimates) -> str:
    """Return the meaning of the signs of the short table, on one line; nothing without signs."""
    meanings = [WITHIN] * any(map(bool, estimates.values()))
    meanings += [TRADES] * any(rank.lower_ece_higher_nll for rank in rank_stages(measured, stages))
    return ". ".join([*meanings, ""]).strip()


def lead(measured: Measured, estimates: Estimates) -> str:
    """Return the lowest NLL, and how many calibration errors are within noise, on one line."""
    best = min(measured, key=lambda stage: measured[stage]["nll"])
    text = f"NLL: {best} is lowest, {column('nll').format(measured[best]['nll'])}."
    tested = [noise_in(by_name, column("ece")) for by_name in estimates.values() if by_name]
    within = sum(noise.calibrated for noise in tested)
    return f"{text} ECE within noise: {within} of {len(tested)}." if tested else text


CAPTION = (
    "95 % interval: over the test samples, the same for both. p: of no difference, paired (accuracy: exact McNemar "
    "test, else bootstrap), Holm-corrected. Two models, not two methods, which only seeds can compare."
)


def better_in(compared: Comparison, names: tuple[str, str]) -> list[str]:
    """Return sentences: which model is better in what, and where they are not distinguishable.

    Args:
        compared: From :func:`fedlas.compare`.
        names: Names of the two models.
    """
    lines = []
    for side, first, second in (("a", *names), ("b", *reversed(names))):
        parts = [_by(each, compared.event) for each in compared.values() if each.better == side]
        if parts:
            lines.append(f"{first} is better than {second} in {listed(parts)}.")
    same = [_title(name, compared.event) for name, each in compared.items() if each.better is None]
    if same and lines:
        lines.append(f"Not distinguishable: {listed(same)}.")
    elif same:
        lines.append(f"{names[0]} and {names[1]} are not distinguishable in {listed(same)}.")
    return lines


def differences_of_models(compared: Comparison, *, title: str) -> Table:
    """Return a row for each metric; the arguments are those of :func:`better_in`, and a title."""
    rows = []
    for each in compared.values():
        about = column(each.metric, event=bool(compared.event))
        interval = f"[{_signed(about, each.low)}, {_signed(about, each.high)}]"
        values = (
            about.format(each.a),
            about.format(each.b),
            _signed(about, each.difference),
            interval,
        )
        rows.append(
            [about.head, *values, p_said(each.p, None).removeprefix("p ").removeprefix("= ")]
        )
    heads = ("metric", "A", "B", "A - B", "95 % interval", "p")
    subject = f"The event is {compared.event}: ECE and Brier score are those of its probability."
    return table_of(heads, rows, title=title, notes=[CAPTION, *[subject] * bool(compared.event)])


def differences_of_groups(compared: Comparison) -> Table:
    """Return a row for each group with the difference in each metric; the argument is that of :func:`better_in`."""
    abouts = [column(name, event=bool(compared.event)) for name in compared]
    rows = []
    for group, table in compared.groups.items():
        cells = []
        for about in abouts:
            each = table.get(about.metric)
            cells.append(
                DASH if each is None else f"{_signed(about, each.difference)}{_mark(each)}"
            )
        rows.append((group, f"{table.samples:,}", *cells))
    notes = ["* more than chance at 0.05, after Holm's correction for all metrics of all groups."]
    if any(isnan(each.low) for table in compared.groups.values() for each in table.values()):
        notes.append("? cannot tell: a single sample, a single cluster, or no weight.")
    heads = ("group", "samples", *(about.head for about in abouts))
    return table_of(heads, rows, title="A - B in groups", notes=notes)


def _mark(each: ModelDifference) -> str:
    if isnan(each.low):
        return " ?"
    return "" if each.better is None else "*"


def _title(metric: str, event: str) -> str:
    title = column(metric, event=bool(event)).title
    return f"{title} of {event}" if event and metric == "ece" else title


def _by(each: ModelDifference, event: str) -> str:
    about = column(each.metric, event=bool(event))
    unit = " points" if about.unit else ""
    change = f"{about.format(abs(each.difference))}{unit} ({p_said(each.p, None)})"
    return f"{_title(each.metric, event)} by {change}"


def _signed(about: Column, value: float) -> str:
    text = about.format(abs(value))
    if isnan(value):
        return text
    return f"{'-' if value < 0 and text.strip('0.') else '+'}{text}"
