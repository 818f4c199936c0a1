"""What ``fedlas ood`` leaves: ``ood.json`` and ``ood.csv`` to compute with, ``ood.md`` and ``ood.html`` to read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.files import write_text
from fedlas.lab.report.markdown import code_block, grid, plain
from fedlas.lab.report.ood_summary import OodSummary, Table, head_of, method_tables, score_tables, statement
from fedlas.lab.report.page import MOST_WIDTH, Picture, ThemeName, picture, render
from fedlas.lab.report.tables import plain_summary
from fedlas.lab.studies.ood.measure import BEFORE
from fedlas.ood import DETECTION, OOD_SCORES, detection_metrics, roc_points
from fedlas.plots import DARK, LIGHT, new_axes, roc_curves, score_histogram
from fedlas.plots.theme import legend_height

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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*about, *(name + end for name in DETECTION for end in ("", "-low", "-high"))])
    for run in summary.runs:
        for found in run.detected:
            ends = [x for name in DETECTION for i in [found.metrics[name]] for x in (i.value, i.low, i.high)]
            temperature = None if found.stage == BEFORE else run.temperature
            known = [run.run, run.loss, run.seed, run.data, found.data, found.score, found.stage, temperature]
            writer.writerow([*known, *ends])
    return text.getvalue()


def markdown(summary: OodSummary, command: str) -> str:
    """``ood.md``."""
    parts = [f"# {plain(title(summary))}", code_block([command])]
    for heading, tables in sections(summary):
        parts.append(f"## {plain(heading)}")
        for table in tables:
            rows = [[plain(name), *(plain(cell.text.rstrip()) for cell in cells)] for name, cells in table.rows]
            parts += [f"### {plain(table.heading)}", grid([plain(head) for head in table.heads], rows, left=1)]
    parts.append("\n".join(f"- {plain(line)}" for line in statement(summary)))
    return "\n\n".join(parts) + "\n"


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
        title=title(summary),
        command=command,
        statement=statement(summary),
        sections=sections(summary),
        figures=[(label, _figures(summary, label)) for label in summary.data],
        metrics=[(head_of(entry.name), entry.summary) for entry in DETECTION.entries()],
        scores=[OOD_SCORES[name] for name in summary.chosen.names],
        options={name: _options(summary, name) for name in OOD_SCORES},
        plain=plain_summary,
    )


def _options(summary: OodSummary, score: str) -> str:
    """The options of a score; one without a value is left to the score."""
    return ", ".join(f"{key} {value}" for key, value in summary.chosen.of(score).items() if value is not None)


def _figures(summary: OodSummary, label: str) -> tuple[Picture, list[Picture], str]:
    """ROC curves, histograms, and what they are of: the first seed's run of each loss.

    One loss is drawn with all its scores; of several, each with the first score.
    """
    firsts = [next(run for run in summary.runs if run.loss == method) for method in summary.methods]
    several = len(firsts) > 1
    shown: dict[str, tuple[Any, Any]] = {}
    for run in firsts:
        for (data, score), pair in run.scores.items():
            name = str(OOD_SCORES[score].metadata["title"])
            if data == label and (not several or run.loss not in shown):
                shown[run.loss if several else name] = pair
                first_score = name
    areas = {name: detection_metrics(*pair)["auroc"] for name, pair in shown.items()}
    curves = {f"{name}  {100 * areas[name]:.1f}": roc_points(*pair) for name, pair in shown.items()}

    def draw_roc(theme: ThemeName) -> Any:
        axes = new_axes(
            LIGHT if theme == "light" else DARK, size=(MOST_WIDTH, 3.9 + legend_height(["chance", *curves], MOST_WIDTH))
        )
        return roc_curves(curves, ax=axes, title="ROC, with AUROC in percent", theme=theme)

    def histogram(name: str, pair: tuple[Any, Any]) -> Picture:
        def draw(theme: ThemeName) -> Any:
            axes = new_axes(LIGHT if theme == "light" else DARK, size=(3.6, 2.7))
            return score_histogram(*pair, ax=axes, title=name, theme=theme, legend=False)

        return picture(draw, f"Distribution of {name} on {summary.runs[0].data} and {label}")

    what = f"{first_score} of seed {firsts[0].seed} of each loss" if several else f"{firsts[0].run}"
    roc = picture(draw_roc, f"ROC curves of {', '.join(shown)}: {summary.runs[0].data} against {label}")
    return roc, [histogram(name, pair) for name, pair in shown.items()], f"{what}, before temperature"
