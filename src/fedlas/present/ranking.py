"""Ranking of calibrators by NLL on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedlas.present.metric_tables import (
    Estimates,
    Measured,
    estimates_legend,
    metric_cell,
    metric_noise,
)
from fedlas.present.table import Cell, Column, Table, metric_column

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

RANKED_METRICS = ("accuracy", "nll", "brier", "ece")
"""Metrics of the short table."""
SELECTION_NOTE = "Ranked by NLL on these samples: evaluate the one you choose on others."
TRADE_OFF_NOTE = "! lower ECE, but higher NLL than as predicted"
ECE_WITHIN_NOISE_NOTE = "~ ECE within noise of calibrated"


@dataclass(frozen=True)
class Rank:
    """Position of a stage in the ranking, and how its calibrator changes the predictions.

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
    """Return all stages ordered by NLL, the lowest first.

    Args:
        measured: Metrics by stage, then by registry name.
        stages: Predictions by stage; the first is ``"as predicted"``.
    """
    first = next(iter(measured))
    before = measured[first]
    predicted = stages[first].tensors().predicted
    ranks = [
        Rank(
            stage,
            float((stages[stage].tensors().predicted != predicted).double().mean()),
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
    metrics: Sequence[str] = RANKED_METRICS,
) -> Table:
    """Return a table with a row per calibrator, the lowest NLL first.

    Args:
        measured: As in :func:`rank_stages`.
        stages: As in :func:`rank_stages`.
        title: Above the table.
        estimates: Intervals and noise floors by stage, then by registry name.
        metrics: Registry names of the columns; those that were not measured have none.
    """
    columns = [metric_column(name) for name in metrics if name in next(iter(measured.values()))]
    estimates = estimates or {}
    rows = []
    for rank in rank_stages(measured, stages):
        cells = []
        for about in columns:
            noise = metric_noise(estimates.get(rank.stage, {}), about)
            cell = metric_cell(about, measured[rank.stage][about.metric], noise)
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
    return Table(heads, tuple(rows), title, estimates_legend(estimates))


def sign_legend(measured: Measured, stages: Mapping[str, Predictions], estimates: Estimates) -> str:
    """Return the legend of the signs in the short table on one line; empty if there are no signs."""
    meanings = [ECE_WITHIN_NOISE_NOTE] * any(map(bool, estimates.values()))
    meanings += [TRADE_OFF_NOTE] * any(
        rank.lower_ece_higher_nll for rank in rank_stages(measured, stages)
    )
    return ". ".join([*meanings, ""]).strip()


def lowest_nll_sentence(measured: Measured, estimates: Estimates) -> str:
    """Return a sentence on the stage with the lowest NLL and on how many ECEs are within noise."""
    best = min(measured, key=lambda stage: measured[stage]["nll"])
    text = f"NLL: {best} is lowest, {metric_column('nll').format(measured[best]['nll'])}."
    tested = [
        metric_noise(by_name, metric_column("ece")) for by_name in estimates.values() if by_name
    ]
    within = sum(noise.calibrated for noise in tested)
    return f"{text} ECE within noise: {within} of {len(tested)}." if tested else text
