"""The report as one HTML file that needs nothing else: no script, no network, light and dark, screen and print."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fedlas._core.check import InputError
from fedlas._core.registry import Entry
from fedlas.lab.report.page import MOST_WIDTH, Picture, ThemeName, diagram, picture, render
from fedlas.lab.report.run_page import PAGE
from fedlas.lab.report.tables import (
    SYMBOLS,
    column,
    legend,
    missing_notes,
    noise_notes,
    plain_summary,
    run_cell,
    spread_note,
    stage_tables,
    summary_table,
)
from fedlas.lab.report.verdict import calibrated_note, findings, title, verdicts, what_was_run
from fedlas.lab.runs import provenance
from fedlas.lab.runs.summary import STAGES, FinishedRun, Summary
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY
from fedlas.losses import LOSSES
from fedlas.plots import DARK, LIGHT, new_axes, seed_values, training_curves
from fedlas.plots.theme import legend_height
from fedlas.predictions import Predictions


def html_report(summary: Summary) -> str:
    """``report.html`` of ``summary``; whatever comes from the runs is escaped."""
    diagrams, diagram_notes, seed = _diagrams(summary)
    tables = stage_tables(summary)
    return render(
        "report.html.j2",
        summary=summary,
        title=title(summary),
        statement=what_was_run(summary),
        commands=provenance.commands(summary.starts),
        findings=findings(summary),
        tables=tables,
        by_seed=_by_seed(summary),
        columns=[column for _, name, table in tables if name.startswith("before") for column in table.columns],
        spread=spread_note(summary),
        legend=[(mark or "worse", SYMBOLS[mark], text) for mark, text in legend(summary).items()],
        missing=missing_notes(summary),
        noise_notes=noise_notes(summary),
        calibrated=calibrated_note(summary),
        verdicts=verdicts(summary),
        methods=_methods(summary),
        show_n=not summary.common_seeds or len({row.n for row in tables[0][2].rows}) > 1,
        diagrams=diagrams,
        diagram_notes=diagram_notes,
        diagram_seed=seed,
        curves=_curves(summary),
        runs=[_row(run) for run in summary.runs],
        run_notes=[(run.name, note) for run in summary.runs for note in run.notes],
        link=link,
        plain=plain_summary,
        configurations=provenance.configurations(summary),
        environment=provenance.environment(summary.starts),
    )


def _by_seed(summary: Summary) -> list[Picture]:
    """What the tables say of ECE and NLL, method by method and seed by seed, where there is more than one method."""
    pictures = []
    for metric, stage in (("ece", "test"), ("ece", "test_scaled"), ("nll", "test"), ("nll", "test_scaled")):
        about, when = column(metric), f"{STAGES[stage]} temperature scaling"
        scale = 100 if about.unit else 1
        cells = {row.method: row.cells[0] for row in summary_table(summary, stage, [metric]).rows}
        values = {method: [scale * value for value in cell.values] for method, cell in cells.items()}
        floors = {
            method: scale * cell.noise.floor_value
            for method, cell in cells.items()
            if cell.noise.floor_value is not None
        }
        if sum(map(bool, values.values())) < 2:
            continue

        def draw(
            theme: ThemeName, values: Any = values, floors: Any = floors, label: str = f"{about.head}, {when}"
        ) -> Any:
            return seed_values(values, floors=floors, label=label, theme=theme)

        pictures.append(picture(draw, f"{about.title} {when}, one row per method with a dot for each seed"))
    return pictures


def _methods(summary: Summary) -> list[Entry[Any]]:
    """What is registered of the losses and of the methods on top of them."""
    made_by = dict.fromkeys(run.made_by for run in summary.runs if run.made_by in UNCERTAINTY)
    return [
        *(LOSSES[name] for name in summary.methods if name in LOSSES),
        *(UNCERTAINTY[name] for name in made_by if name),
    ]


def link(*parts: str) -> str:
    """A relative address below the report. It starts with ``./``, so no name can turn it into another scheme."""
    return "./" + quote("/".join(parts))


def _row(run: FinishedRun) -> dict[str, Any]:
    page = [("page", link(run.name, PAGE))] if (run.path / PAGE).is_file() else []
    return {
        "run": run,
        "accuracy": run_cell(run, "accuracy"),
        "nll": run_cell(run, "nll"),
        "ece": run_cell(run, "ece"),
        "ece_after": run_cell(run, "ece", "test_scaled"),
        "address": page[0][1] if page else f"{link(run.name)}/",
        "files": page + [(PurePosixPath(name).stem, link(run.name, name)) for name in run.folder.files],
    }


def _diagrams(summary: Summary) -> tuple[list[Picture], list[str], int | None]:
    """One reliability diagram per method, of the first seed all have; notes on those that cannot be drawn; the seed."""
    seed = summary.common_seeds[0] if summary.common_seeds else None
    pictures, notes = [], []
    for method in summary.methods:
        runs = [r for r in summary.runs if r.loss == method]
        run = next((r for r in runs if r.seed == seed), runs[0])
        predictions = run.folder.test_predictions()
        if isinstance(predictions, Predictions):
            name = method if run.seed == seed else f"{method}, seed {run.seed}"
            pictures.append(diagram(name, predictions, run.folder.num_bins))
        else:
            notes.append(predictions)
    return pictures, notes, seed


def _curves(summary: Summary) -> list[Picture]:
    history = provenance.history(summary)
    pictures = []
    for metric, what in (("val.ece", "ECE"), ("val.accuracy", "accuracy")):

        def draw(theme: ThemeName, metric: str = metric) -> Any:
            height = 2.7 + legend_height(list(history), MOST_WIDTH)
            axes = new_axes(LIGHT if theme == "light" else DARK, size=(MOST_WIDTH, height))
            return training_curves(history, metric=metric, ax=axes, theme=theme)

        try:
            pictures.append(picture(draw, f"Validation {what} by epoch, one line per method"))
        except InputError:
            continue  # no run logged it; the template says so when nothing at all can be drawn
    return pictures
