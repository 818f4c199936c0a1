"""What ``fedlas ood`` leaves: ``ood.json`` and ``ood.csv`` to compute with, ``ood.md`` and ``ood.html`` to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from fedlas.present.table import Table, bullets, code_block, csv_text, plain, plain_summary, table_of
from fedlas.present.table import markdown as markdown_table
from fedlas.zoo.ood import DETECTION, OOD_SCORES, detection_metrics, roc_points

FORMAT = "fedlas.ood/1"


@dataclass(frozen=True)
class Written:
    """Paths of the four files."""

    json: Path
    csv: Path
    markdown: Path
    html: Path


def write_files(folder: Path, summary: OodSummary, *, command: str) -> Written:
    """Write all four, each atomically; all are made before the first is written.

    Args:
        folder: Where they go.
        summary: What was measured.
        command: What made them.

    Raises:
        InputError: If the folder cannot be written to.
    """
    texts = {
        "ood.json": json.dumps(contents(summary, command), indent=1, allow_nan=False) + "\n",
        "ood.csv": table_csv(summary),
        "ood.md": markdown(summary, command),
        "ood.html": page(summary, command),
    }
    return Written(*(write_text(folder / name, text) for name, text in texts.items()))


def contents(summary: OodSummary, command: str) -> dict[str, Any]:
    """``ood.json``: fractions in full precision, one entry for each run, data set, score and stage."""
    return {
        "format": FORMAT,
        "command": command,
        "level": 0.95,
        "replicates": summary.replicates,
        "metrics": {e.name: {"positive": e.metadata["positive"], "is": e.summary} for e in DETECTION.entries()},
        "scores": {name: {"options": summary.chosen.of(name)} for name in summary.chosen.names},
        "runs": [
            {
                "run": run.run,
                "loss": run.loss,
                "seed": run.seed,
                "data": run.data,
                "temperature": run.temperature,
                "test_images": run.num_test,
                "others": {label: {"images": n, "notes": list(run.notes[label])} for label, n in run.sets.items()},
                "not_run": dict(run.not_run),
                "rule_shifts": [{"data": label or run.data, **asdict(found)} for label, found in run.shifts.items()],
                "results": [
                    {
                        "data": found.data,
                        "score": found.score,
                        "stage": found.stage,
                        **{
                            name: {"value": interval.value, "low": interval.low, "high": interval.high}
                            for name, interval in found.metrics.items()
                        },
                    }
                    for found in run.detected
                ],
            }
            for run in summary.runs
        ],
        "skipped": list(summary.skipped),
    }


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


def markdown(summary: OodSummary, command: str) -> str:
    """``ood.md``."""
    parts = [f"# {plain(title(summary))}", code_block([command]), bullets([*verdicts(summary), SELECTION])]
    for heading, tables in sections(summary):
        parts.append(f"## {plain(heading)}")
        for table in tables:
            parts += [f"### {plain(table.title)}", markdown_table(table)]
    return "\n\n".join([*parts, bullets(statement(summary))]) + "\n"


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
