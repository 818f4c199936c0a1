"""The report as one HTML file that needs nothing else: no script, no network, light and dark, screen and print."""

from __future__ import annotations

from typing import Any

from fedlas._core.check import InputError
from fedlas._core.registry import Entry
from fedlas.lab.report.after_auto import AUTO
from fedlas.lab.report.bench_tables import environment_table, link, runs_table, short_table
from fedlas.lab.report.model import ReportModel
from fedlas.lab.report.notes import marks_notes, missing_notes, noise_notes, short_legend, spread_note
from fedlas.lab.report.published import published_table
from fedlas.lab.report.verdict import answers, title, what_was_run
from fedlas.lab.runs.summary import Summary
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY
from fedlas.losses import LOSSES
from fedlas.plots import seed_values, training_curves
from fedlas.plots.theme import legend_height
from fedlas.predictions import Predictions
from fedlas.present.page import MOST_WIDTH, axes, diagram, figure, render
from fedlas.present.table import column, plain_summary

_CALIBRATORS = {"test_calibrated": "temperature scaling", AUTO: "auto"}


def html_report(model: ReportModel) -> str:
    """``report.html``; everything that comes from the runs is escaped."""
    summary = model.summary
    diagrams, diagram_notes, seed = _diagrams(model)
    first = model.tables[0][1]
    return render(
        "report.html.j2",
        room="fedlas.lab.report",
        summary=summary,
        title=title(summary),
        statement=what_was_run(summary),
        commands=summary.commands,
        answers=answers(model),
        by_seed=[picture for metric in ("ece", "nll") if (picture := _by_seed(model, metric)) is not None],
        after=[picture for metric in ("ece", "nll") if (picture := _by_seed(model, metric, model.after)) is not None],
        calibrator=_CALIBRATORS[model.after],
        short=short_table(model, aurc=True),
        short_notes=short_legend(model),
        tables=[table for _, table in model.tables],
        notes=[spread_note(model), *marks_notes(model), *noise_notes(model)],
        missing=missing_notes(model),
        published=published_table(summary),
        columns=[(c.title, c.about or "not a registered metric, shown as recorded") for c in first.columns if c.metric],
        methods=_methods(summary),
        diagrams=diagrams,
        diagram_notes=diagram_notes,
        diagram_seed=seed,
        curves=_curves(model),
        runs=runs_table(summary),
        run_notes=[f"{run.name}: {note}" for run in summary.runs for note in run.notes],
        link=link,
        plain=plain_summary,
        configurations=summary.configurations,
        environment=environment_table(summary.environment),
    )


def _by_seed(model: ReportModel, metric: str, stage: str = "test") -> Any:
    """A metric, method by method and seed by seed, with intervals and noise floors; None where there is nothing."""
    about = column(metric)
    scale = 100 if about.unit else 1
    values = {method: [scale * value for value in model.values(method, metric, stage)] for method in model.methods}
    if not any(values.values()):
        return None
    noise = {method: model.noise(method, about, stage) for method, found in values.items() if found}
    floors = {method: scale * found.floor_value for method, found in noise.items() if found.floor_value is not None}
    when = "before calibration" if stage == "test" else f"after {_CALIBRATORS[stage]}"
    drawn = seed_values(values, floors=floors, label=f"{about.head}, {when}")
    return figure(drawn, f"{about.title} {when}, one row per method with a dot for each seed")


def _methods(summary: Summary) -> list[Entry[Any]]:
    """What is registered of the losses and of the methods on top of them."""
    made_by = dict.fromkeys(run.made_by for run in summary.runs if run.made_by in UNCERTAINTY)
    return [
        *(LOSSES[name] for name in summary.methods if name in LOSSES),
        *(UNCERTAINTY[name] for name in made_by if name),
    ]


def _diagrams(model: ReportModel) -> tuple[list[Any], list[str], int | None]:
    """One reliability diagram per method, of the first seed all have; notes on those that cannot be drawn; the seed."""
    summary = model.summary
    seed = summary.common_seeds[0] if summary.common_seeds else None
    pictures, notes = [], []
    for method in model.methods:
        runs = [r for r in summary.runs if r.loss == method]
        run = next((r for r in runs if r.seed == seed), runs[0])
        predictions = run.folder.test_predictions()
        if isinstance(predictions, Predictions):
            name = method if run.seed == seed else f"{method}, seed {run.seed}"
            pictures.append(diagram(name, predictions, run.folder.num_bins))
        else:
            notes.append(predictions)
    return pictures, notes, seed


def _curves(model: ReportModel) -> list[Any]:
    history = model.summary.history
    pictures = []
    for metric, what in (("val.ece", "ECE"), ("val.accuracy", "accuracy")):
        drawn = axes(height=2.7 + legend_height(list(history), MOST_WIDTH))
        try:
            training_curves(history, metric=metric, ax=drawn)
        except InputError:
            continue  # no run logged it; the template says so when nothing at all can be drawn
        pictures.append(figure(drawn, f"Validation {what} by epoch, one line per method"))
    return pictures
