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
from fedlas._core.text import NO_ACTION
from fedlas.lab.report.bench_tables import (
    environment_table,
    published_numbers_table,
    relative_link,
    results_table,
    runs_table,
    short_bench_table,
)
from fedlas.lab.report.cells import stage_tables, values_by_seed
from fedlas.lab.report.verdict import (
    answers,
    describe_runs,
    mark_notes,
    missing_notes,
    noise_notes,
    report_title,
    short_legend,
    spread_note,
    table_notes,
)
from fedlas.lab.results.result import Result, build_result, with_failures
from fedlas.lab.results.stages import AUTO, with_calibrators
from fedlas.lab.runs.bench_folder import RESULTS_FILE
from fedlas.lab.runs.collection import collect_runs
from fedlas.lab.runs.intervals import with_estimates
from fedlas.lab.runs.summary import Summary
from fedlas.lab.studies.uncertainty import UNCERTAINTY
from fedlas.losses import LOSSES
from fedlas.plots import seed_values, training_curves
from fedlas.plots.theme import legend_height, without_pyplot
from fedlas.predictions import Predictions
from fedlas.present.page import (
    MAX_FIGURE_WIDTH,
    creation_note,
    new_page_axes,
    reliability_svg,
    render,
    to_inline_svg,
)
from fedlas.present.table import (
    bullet_list,
    code_block,
    escape_markdown,
    markdown_table,
    metric_column,
    strip_markup,
    table_to_csv,
)
from fedlas.stats.estimates import REPLICATES

_CALIBRATOR_BY_STAGE = {"test_calibrated": "temperature scaling", AUTO: "auto"}


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
        folder: A bench folder, see :func:`collect_runs`.
        replicates: Replicates of intervals and noise floors; 0 computes none and shows those saved in the run folders.
        failures: As for :func:`~fedlas.lab.results.result.with_failures`.

    Raises:
        InputError: If nothing in it has finished, or there are too few replicates.
    """
    summary = with_failures(collect_runs(folder), failures or {})
    summary = with_estimates(summary, replicates=replicates)
    return build_result(with_calibrators(summary, [AUTO], required=False))


def write_report(result: Result, *, heading: str = "") -> Report:
    """Write ``report.md``, ``report.html`` and ``results.csv`` into the bench folder of a result.

    Each file is replaced atomically, and all three are made before the first is written. The same runs give the same
    bytes, but for the date of the page.

    Args:
        result: From :func:`read_report`.
        heading: Title of the page; empty for one that names the recipe.

    Raises:
        InputError: If the folder cannot be written to.
    """
    summary = result.summary
    texts = {
        "report.md": markdown_report(result),
        "report.html": html_report(result, heading=heading),
        RESULTS_FILE: table_to_csv(results_table(summary)),
    }
    markdown, html, results = (
        write_text(summary.folder / name, text) for name, text in texts.items()
    )
    return Report(markdown, html, results, result)


def markdown_report(result: Result) -> str:
    """Return the text of ``report.md``; names from the runs are escaped."""
    summary = result.summary
    parts = [f"# {escape_markdown(report_title(summary))}", escape_markdown(describe_runs(summary))]
    if commands := summary.commands:
        parts.append(code_block(commands))
    parts += [
        bullet_list(f"{answer.question}: {answer.text}" for answer in answers(result)),
        markdown_table(short_bench_table(result, aurc=True)),
    ]
    for _, table in stage_tables(result):
        parts += [f"## {table.title}", markdown_table(table)]
    parts.append(bullet_list(table_notes(result)))
    if published := published_numbers_table(summary):
        parts += [f"## {published.title}", markdown_table(published)]
    runs = runs_table(summary)
    parts += ["## Runs", markdown_table(runs.where(range(len(runs.columns) - 1)))]
    if notes := [f"{run.name}: {note}" for run in summary.runs for note in run.notes]:
        parts.append(bullet_list(notes))
    for heading, problems in (("Failed", summary.failed), ("Not readable", summary.unreadable)):
        if problems:
            parts += [f"## {heading}", bullet_list(f"{p.name}: {p.reason}" for p in problems)]
    if summary.unfinished:
        parts += ["## Unfinished", bullet_list(summary.unfinished)]
    if environment := summary.environment:
        parts += ["## Environment", markdown_table(environment_table(environment))]
    return "\n\n".join(parts) + "\n"


def html_report(result: Result, *, heading: str = "") -> str:
    """Return the text of ``report.html``; text from the runs is escaped. An empty heading names the recipe."""
    summary = result.summary
    diagrams, diagram_notes, seed = _reliability_diagrams(result)
    first = stage_tables(result)[0][1]
    run_notes = [f"{run.name}: {note}" for run in summary.runs for note in run.notes]
    return render(
        "report.html.j2",
        package="fedlas.lab.report",
        summary=summary,
        title=heading or report_title(summary),
        made=creation_note(),
        statement=describe_runs(summary),
        commands=summary.commands,
        answers=answers(result),
        by_seed=_seed_figures(result, "test"),
        after=_seed_figures(result, result.after),
        calibrator=_CALIBRATOR_BY_STAGE[result.after],
        short=short_bench_table(result, aurc=True),
        short_notes=short_legend(result),
        tables=[table for _, table in stage_tables(result)],
        notes=[spread_note(result), *mark_notes(result), *noise_notes(result)],
        missing=missing_notes(result),
        published=published_numbers_table(summary),
        columns=[
            (c.title, c.about or "not a registered metric, shown as recorded")
            for c in first.columns
            if c.metric
        ],
        methods=_method_entries(summary),
        diagrams=diagrams,
        diagram_notes=diagram_notes,
        diagram_seed=seed,
        curves=_validation_curves(result),
        runs=runs_table(summary),
        run_notes=[note for note in run_notes if not note.endswith(NO_ACTION)],
        run_remarks=[note for note in run_notes if note.endswith(NO_ACTION)],
        link=relative_link,
        plain=strip_markup,
        configurations=summary.configurations,
        environment=environment_table(summary.environment),
    )


@without_pyplot()
def _seed_figures(result: Result, stage: str) -> list[Any]:
    """Draw ECE and NLL per method and seed, with noise floors; skip a metric without values."""
    pictures = []
    when = "before calibration" if stage == "test" else f"after {_CALIBRATOR_BY_STAGE[stage]}"
    for about in (metric_column("ece"), metric_column("nll")):
        values, floors = values_by_seed(result, about, stage)
        if any(values.values()):
            ax = seed_values(values, floors=floors, label=f"{about.head}, {when}")
            pictures.append(
                to_inline_svg(
                    ax, f"{about.title} {when}, one row per method with a dot for each seed"
                )
            )
    return pictures


def _method_entries(summary: Summary) -> list[Entry[Any]]:
    """Return the registry entries of the losses and uncertainty methods of the runs."""
    made_by = dict.fromkeys(run.made_by for run in summary.runs if run.made_by in UNCERTAINTY)
    return [
        *(LOSSES[name] for name in summary.methods if name in LOSSES),
        *(UNCERTAINTY[name] for name in made_by if name),
    ]


def _reliability_diagrams(result: Result) -> tuple[list[Any], list[str], int | None]:
    """Return a reliability diagram per method at the first common seed, notes on missing ones, and the seed."""
    summary = result.summary
    seed = summary.common_seeds[0] if summary.common_seeds else None
    pictures = []
    notes = []
    for method in result.methods:
        runs = [r for r in summary.runs if r.loss == method]
        run = next((r for r in runs if r.seed == seed), runs[0])
        predictions = run.folder.test_predictions_or_reason()
        if isinstance(predictions, Predictions):
            name = method if run.seed == seed else f"{method}, seed {run.seed}"
            pictures.append(reliability_svg(name, predictions, run.folder.num_bins))
        else:
            notes.append(predictions)
    return pictures, notes, seed


def _validation_curves(result: Result) -> list[Any]:
    """Draw validation ECE and accuracy by epoch, one line per method."""
    history = result.summary.history
    pictures = []
    for metric, what in (("val.ece", "ECE"), ("val.accuracy", "accuracy")):
        ax = new_page_axes(height=2.7 + legend_height(list(history), MAX_FIGURE_WIDTH))
        try:
            training_curves(history, metric=metric, ax=ax)
        except InputError:
            continue  # no run logged it; the template says so when nothing at all can be drawn
        pictures.append(to_inline_svg(ax, f"Validation {what} by epoch, one line per method"))
    return pictures
