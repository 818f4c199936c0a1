"""Report of a bench folder: ``report.html`` to read, ``report.md`` to paste, ``results.csv`` to compute with.

The page needs nothing else: no script, no network, light and dark, screen and print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_text
from fedlas._core.registry import Entry
from fedlas.lab.report.bench_tables import (
    environment_table,
    link,
    published_table,
    results_table,
    runs_table,
    short_bench_table,
)
from fedlas.lab.report.cells import by_seed, tables
from fedlas.lab.report.verdict import (
    all_notes,
    answers,
    marks_notes,
    missing_notes,
    noise_notes,
    short_legend,
    spread_note,
    title,
    what_was_run,
)
from fedlas.lab.results.result import Result, result_from, with_failures
from fedlas.lab.results.stages import AUTO, with_calibrators
from fedlas.lab.runs.bench_folder import RESULTS
from fedlas.lab.runs.collection import collect
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import Summary
from fedlas.lab.studies.uncertainty import UNCERTAINTY
from fedlas.losses import LOSSES
from fedlas.plots import seed_values, training_curves
from fedlas.plots.theme import free_figures, legend_height
from fedlas.predictions import Predictions
from fedlas.present.page import MOST_WIDTH, axes, diagram, figure, made_by, render
from fedlas.present.table import (
    bullets,
    code_block,
    column,
    csv_text,
    markdown,
    plain,
    plain_summary,
)
from fedlas.stats.estimates import REPLICATES

_CALIBRATORS = {"test_calibrated": "temperature scaling", AUTO: "auto"}


@dataclass(frozen=True)
class Report:
    """Paths of the three report files, and the result that they show."""

    markdown: Path
    html: Path
    csv: Path
    model: Result


def read_report(
    folder: str | Path, *, replicates: int = REPLICATES, failures: Mapping[str, str] | None = None
) -> Result:
    """Return the result of a bench folder, for :func:`write_report`.

    Args:
        folder: A bench folder, see :func:`collect`.
        replicates: Replicates of intervals and noise floors; 0 computes none and shows those saved in the run folders.
        failures: As for :func:`~fedlas.lab.results.result.with_failures`.

    Raises:
        InputError: If nothing in it has finished, or there are too few replicates.
    """
    summary = with_failures(collect(folder), failures or {})
    summary = with_estimates(summary, replicates=replicates)
    return result_from(with_calibrators(summary, [AUTO], required=False))


def write_report(model: Result, *, heading: str = "") -> Report:
    """Write ``report.md``, ``report.html`` and ``results.csv`` into the bench folder of a result.

    Each file is replaced atomically, and all three are made before the first is written. The same runs give the same
    bytes, but for the date of the page.

    Args:
        model: From :func:`read_report`.
        heading: Title of the page; empty for one that names the recipe.

    Raises:
        InputError: If the folder cannot be written to.
    """
    summary = model.summary
    texts = {
        "report.md": markdown_report(model),
        "report.html": html_report(model, heading=heading),
        RESULTS: csv_text(results_table(summary)),
    }
    markdown, html, results = (
        write_text(summary.folder / name, text) for name, text in texts.items()
    )
    return Report(markdown, html, results, model)


def markdown_report(model: Result) -> str:
    """Return the text of ``report.md``; names from the runs are escaped."""
    summary = model.summary
    parts = [f"# {plain(title(summary))}", plain(what_was_run(summary))]
    if commands := summary.commands:
        parts.append(code_block(commands))
    parts += [
        bullets(f"{answer.question}: {answer.text}" for answer in answers(model)),
        markdown(short_bench_table(model, aurc=True)),
    ]
    for _, table in tables(model):
        parts += [f"## {table.title}", markdown(table)]
    parts.append(bullets(all_notes(model)))
    if published := published_table(summary):
        parts += [f"## {published.title}", markdown(published)]
    runs = runs_table(summary)
    parts += ["## Runs", markdown(runs.where(range(len(runs.columns) - 1)))]
    if notes := [f"{run.name}: {note}" for run in summary.runs for note in run.notes]:
        parts.append(bullets(notes))
    for heading, problems in (("Failed", summary.failed), ("Not readable", summary.unreadable)):
        if problems:
            parts += [f"## {heading}", bullets(f"{p.name}: {p.reason}" for p in problems)]
    if summary.unfinished:
        parts += ["## Unfinished", bullets(summary.unfinished)]
    if environment := summary.environment:
        parts += ["## Environment", markdown(environment_table(environment))]
    return "\n\n".join(parts) + "\n"


def html_report(model: Result, *, heading: str = "") -> str:
    """Return the text of ``report.html``; text from the runs is escaped. An empty heading names the recipe."""
    summary = model.summary
    diagrams, diagram_notes, seed = _diagrams(model)
    first = tables(model)[0][1]
    return render(
        "report.html.j2",
        room="fedlas.lab.report",
        summary=summary,
        title=heading or title(summary),
        made=made_by(),
        statement=what_was_run(summary),
        commands=summary.commands,
        answers=answers(model),
        by_seed=_by_seed(model, "test"),
        after=_by_seed(model, model.after),
        calibrator=_CALIBRATORS[model.after],
        short=short_bench_table(model, aurc=True),
        short_notes=short_legend(model),
        tables=[table for _, table in tables(model)],
        notes=[spread_note(model), *marks_notes(model), *noise_notes(model)],
        missing=missing_notes(model),
        published=published_table(summary),
        columns=[
            (c.title, c.about or "not a registered metric, shown as recorded")
            for c in first.columns
            if c.metric
        ],
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


@free_figures()
def _by_seed(model: Result, stage: str) -> list[Any]:
    """Draw ECE and NLL per method and seed, with noise floors; skip a metric without values."""
    pictures = []
    when = "before calibration" if stage == "test" else f"after {_CALIBRATORS[stage]}"
    for about in (column("ece"), column("nll")):
        values, floors = by_seed(model, about, stage)
        if any(values.values()):
            ax = seed_values(values, floors=floors, label=f"{about.head}, {when}")
            pictures.append(
                figure(ax, f"{about.title} {when}, one row per method with a dot for each seed")
            )
    return pictures


def _methods(summary: Summary) -> list[Entry[Any]]:
    """Return the registry entries of the losses and uncertainty methods of the runs."""
    made_by = dict.fromkeys(run.made_by for run in summary.runs if run.made_by in UNCERTAINTY)
    return [
        *(LOSSES[name] for name in summary.methods if name in LOSSES),
        *(UNCERTAINTY[name] for name in made_by if name),
    ]


def _diagrams(model: Result) -> tuple[list[Any], list[str], int | None]:
    """Return a reliability diagram per method at the first common seed, notes on missing ones, and the seed."""
    summary = model.summary
    seed = summary.common_seeds[0] if summary.common_seeds else None
    pictures = []
    notes = []
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


def _curves(model: Result) -> list[Any]:
    """Draw validation ECE and accuracy by epoch, one line per method."""
    history = model.summary.history
    pictures = []
    for metric, what in (("val.ece", "ECE"), ("val.accuracy", "accuracy")):
        ax = axes(height=2.7 + legend_height(list(history), MOST_WIDTH))
        try:
            training_curves(history, metric=metric, ax=ax)
        except InputError:
            continue  # no run logged it; the template says so when nothing at all can be drawn
        pictures.append(figure(ax, f"Validation {what} by epoch, one line per method"))
    return pictures
