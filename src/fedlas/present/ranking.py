"""All calibrators of a test set compared: ranked by NLL, with what each does to the predicted class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedlas.predictions import Predictions
from fedlas.present.noise_text import Known, Measured, cell_of_metric, legend_of, noise_in
from fedlas.present.table import Cell, Column, Table, column

RANKED = ("accuracy", "nll", "brier", "ece")
"""Metrics of the short table."""
SELECTION = "Ranked by NLL on these samples: measure the one you choose on others."
TRADES = "! lower ECE, but higher NLL than as predicted"
WITHIN = "~ ECE within noise of calibrated"


@dataclass(frozen=True)
class Place:
    """What one calibrator does, in addition to its metrics.

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


def ranking(measured: Measured, stages: Mapping[str, Predictions]) -> list[Place]:
    """Return the places of all stages, the lowest NLL first; equal ones keep their order.

    Args:
        measured: Metrics by stage, then by registry name.
        stages: Predictions by stage; the first is ``"as predicted"``.
    """
    first = next(iter(measured))
    before, predicted = measured[first], stages[first].predicted
    places = [
        Place(
            stage,
            float((stages[stage].predicted != predicted).double().mean()),
            values["ece"] < before["ece"] and values["nll"] > before["nll"],
        )
        for stage, values in measured.items()
    ]
    return sorted(places, key=lambda place: measured[place.stage]["nll"])


def ranking_table(
    measured: Measured,
    stages: Mapping[str, Predictions],
    *,
    title: str,
    noise: Known | None = None,
    metrics: Sequence[str] = RANKED,
) -> Table:
    """Return a row a calibrator, the lowest NLL first.

    Args:
        measured: As in :func:`ranking`.
        stages: As there.
        title: Above the table.
        noise: Intervals and noise floors by stage, then by registry name.
        metrics: Registry names of the columns; those that were not measured have none.
    """
    columns = [column(name) for name in metrics if name in next(iter(measured.values()))]
    known, rows = noise or {}, []
    for place in ranking(measured, stages):
        cells = []
        for about in columns:
            noise_text = noise_in(known.get(place.stage, {}), about)
            cell = cell_of_metric(about, measured[place.stage][about.metric], noise_text)
            cells.append(
                replace(cell, extra=f"({noise_text.floor})") if about.metric == "ece" and noise_text.floor else cell
            )
        changed = Cell(f"{100 * place.changed:.2f}" if place.changed else "kept", number=place.changed)
        rows.append((Cell(place.name, extra="!" if place.lower_ece_higher_nll else ""), *cells, changed))
    if any(known.values()):
        columns = [replace(c, unit="% (floor)") if c.metric == "ece" else c for c in columns]
    about_class = Column("new class", "%", about="Share of the samples whose predicted class changes.")
    heads = (Column("calibrator", words=True), *columns, about_class)
    return Table(heads, tuple(rows), title, legend_of(known))


def signs(measured: Measured, stages: Mapping[str, Predictions], noise: Known) -> str:
    """Return the meaning of the signs of the short table, on one line; nothing without signs."""
    meanings = [WITHIN] * any(map(bool, noise.values()))
    meanings += [TRADES] * any(place.lower_ece_higher_nll for place in ranking(measured, stages))
    return ". ".join([*meanings, ""]).strip()


def lead(measured: Measured, noise: Known) -> str:
    """Return the lowest NLL, and how many calibration errors are within noise, on one line."""
    best = min(measured, key=lambda stage: measured[stage]["nll"])
    text = f"NLL: {best} is lowest, {column('nll').format(measured[best]['nll'])}."
    tested = [noise_in(noise_text, column("ece")) for noise_text in noise.values() if noise_text]
    within = sum(noise_text.calibrated for noise_text in tested)
    return f"{text} ECE within noise: {within} of {len(tested)}." if tested else text
