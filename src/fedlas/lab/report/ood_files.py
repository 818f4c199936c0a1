"""Files of ``fedlas ood``: ``ood.csv`` to compute with and ``ood.html`` to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlas._core.files import write_text
from fedlas.lab.report.ood_summary import (
    SELECTION,
    OodSummary,
    column_of,
    method_tables,
    score_tables,
    statement,
    verdicts,
)
from fedlas.lab.studies.ood.measure import BEFORE
from fedlas.plots import roc_curves, score_histogram
from fedlas.plots.theme import legend_height
from fedlas.present.page import MOST_WIDTH, axes, figure, render
from fedlas.present.table import Table, csv_text, plain_summary, table_of
from fedlas.zoo.ood import DETECTION, OOD_SCORES, detection_metrics, roc_points


def write_files(folder: Path, summary: OodSummary, *, command: str) -> tuple[Path, Path]:
    """Write ``ood.csv`` and ``ood.html``; both are made before the first is written.

    Args:
        folder: Where they go.
        summary: Results of the runs.
        command: The command that made them.

    Raises:
        InputError: If the folder cannot be written to.
    """
    table, text = table_csv(summary), page(summary, command)
    return write_text(folder / "ood.csv", table), write_text(folder / "ood.html", text)


def table_csv(summary: OodSummary) -> str:
    """One row for each run, data set, score and stage; fractions in full precision, each with its interval's ends."""
    about = ["run", "loss", "seed", "in", "out", "score", "stage", "temperature"]
    rows = []
    for run in summary.runs:
        for found in run.detected:
            ends = [x for name in DETECTION for i in [found.metrics[name]] for x in (i.value, i.low, i.high)]
            temperature = None if found.stage == BEFORE else run.temperature
            rows.append(
                [run.run, run.loss, run.seed, run.data, found.data, found.score, found.stage, temperature, *ends]
            )
    return csv_text(table_of([*about, *(name + end for name in DETECTION for end in ("", "-low", "-high"))], rows))


def title(summary: OodSummary) -> str:
    """What was measured, in a line."""
    return f"OOD detection: {summary.runs[0].data} vs {', '.join(summary.data)}"


def sections(summary: OodSummary) -> list[tuple[str, Sequence[Table]]]:
    """Headings and their tables: losses against each other where there are several, then each by itself."""
    compared = [("Losses compared", method_tables(summary))] if len(summary.methods) > 1 else []
    return [*compared, ("Scores compared", score_tables(summary))]


def page(summary: OodSummary, command: str) -> str:
    """``ood.html``: one file that needs nothing else."""
    return render(
        "ood.html.j2",
        room="fedlas.lab.report",
        title=title(summary),
        command=command,
        verdicts=[*verdicts(summary), SELECTION],
        statement=statement(summary),
        sections=sections(summary),
        figures_of=[(label, _figures(summary, label)) for label in summary.data],
        metrics=[(column_of(entry.name).head, plain_summary(entry.summary)) for entry in DETECTION.entries()],
        scores=[OOD_SCORES[name] for name in summary.chosen.names],
        options={name: _options(summary, name) for name in OOD_SCORES},
        plain=plain_summary,
    )


def _options(summary: OodSummary, score: str) -> str:
    """The options of a score; one without a value is left to the score."""
    return ", ".join(f"{key} {value}" for key, value in summary.chosen.of(score).items() if value is not None)


def _figures(summary: OodSummary, label: str) -> tuple[Any, list[Any], str]:
    """ROC curves, histograms, and what they are of: the first seed's run of each loss.

    One loss is drawn with all its scores; of several, each with the first score.
    """
    firsts = [next(run for run in summary.runs if run.loss == method) for method in summary.methods]
    several = len(firsts) > 1
    shown: dict[str, tuple[Any, Any]] = {}
    for run in firsts:
        for (data, score), pair in run.scores.items():
            name = str(OOD_SCORES[score].metadata["title"])
            # Several losses share one picture, so each shows its first score; a single loss shows all of them.
            if data == label and (not several or run.loss not in shown):
                shown[run.loss if several else name] = pair
                first_score = name
    areas = {name: detection_metrics(*pair)["auroc"] for name, pair in shown.items()}
    curves = {f"{name}  {100 * areas[name]:.1f}": roc_points(*pair) for name, pair in shown.items()}

    # The legend is below the curves, so the picture grows with the lines that it takes.
    ax = axes(height=3.9 + legend_height(["chance", *curves], MOST_WIDTH))
    roc = roc_curves(curves, ax=ax, title="ROC, with AUROC in percent")
    data = summary.runs[0].data
    histograms = [
        figure(
            score_histogram(*pair, ax=axes(3.6, 2.7), title=name, legend=False),
            f"Distribution of {name} on {data} and {label}",
        )
        for name, pair in shown.items()
    ]
    what = f"{first_score} of seed {firsts[0].seed} of each loss" if several else f"{firsts[0].run}"
    alt = f"ROC curves of {', '.join(shown)}: {data} against {label}"
    return figure(roc, alt), histograms, f"{what}, before temperature"
