"""Report of ``fedlas runs ood``: tables and sentences for the terminal, ``ood.csv`` and ``ood.html``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.files import write_text
from fedlas._core.text import pluralize
from fedlas.lab.report.cells import method_cell
from fedlas.lab.results.detection import COMPARED_METRICS, Detection, ScoreAndStage
from fedlas.lab.results.result import FEWEST_SEEDS
from fedlas.lab.studies.ood.measure import AFTER, BEFORE
from fedlas.plots import roc_curves, score_histogram
from fedlas.plots.theme import legend_height
from fedlas.present.page import (
    MAX_FIGURE_WIDTH,
    creation_note,
    new_page_axes,
    render,
    to_inline_svg,
)
from fedlas.present.table import Cell, Column, Table, make_table, strip_markup, table_to_csv
from fedlas.stats import ALPHA
from fedlas.zoo.ood import DETECTION, OOD_SCORES, detection_metrics, roc_points

TERMINAL_METRICS = ("auroc", "aupr-in", "aupr-out", "fpr95-in")
"""Metrics of a table that has to fit a terminal."""
SELECTION_NOTE = "Scores are ranked by AUROC on these images. If you choose one by that, measure it on other images."


def ood_cell(detection: Detection, method: str, data: str, row: ScoreAndStage, metric: str) -> Cell:
    """Return mean and deviation over seeds; with one seed, the value and its interval over the test images."""
    places = 4 if len(detection.result.seeds[method]) > 1 else 3
    about = replace(metric_column(metric), places=places)
    shown = method_cell(detection.result, method, about, "/".join((data, *row)))
    extra = "" if shown.spread else "".join(shown.details)
    return replace(shown, extra=extra, details=(), tip="")


def score_tables(detection: Detection, metrics: Sequence[str] | None = None) -> list[Table]:
    """Return one table per OOD data set and loss: scores by metric, best first."""
    names = list(metrics or DETECTION)
    heads = (Column("score", words=True), *map(metric_column, names))
    tables = []
    for data in detection.data:
        for method in detection.methods:
            rows = tuple(
                (
                    Cell(score_title(*row)),
                    *(
                        replace(ood_cell(detection, method, data, row, metric), mark="")
                        for metric in names
                    ),
                )
                for row in detection.rank_scores(method, data)
            )
            seeds = pluralize(len(detection.result.seeds[method]), "seed")
            heading = f"{method}, {seeds}: {detection.runs[0].data} vs {data}"
            tables.append(Table(heads, rows, heading))
    return tables


def method_tables(detection: Detection) -> list[Table]:
    """Return one table per OOD data set and metric: scores by loss, the best loss marked."""
    heads = (Column("score", words=True), *map(Column, detection.methods))
    tables = []
    for data in detection.data:
        for metric in COMPARED_METRICS:
            rows = []
            for row in detection.rank_scores(detection.methods[0], data):
                cells = (ood_cell(detection, m, data, row, metric) for m in detection.methods)
                rows.append((Cell(score_title(*row)), *cells))
            heading = f"{metric_column(metric).head}: {detection.runs[0].data} vs {data}"
            tables.append(Table(heads, tuple(rows), heading))
    return tables


def best_score_sentences(detection: Detection) -> list[str]:
    """Return one sentence per OOD data set and loss that names the best score."""
    lines = []
    for data in detection.data:
        for method in detection.methods:
            row = detection.rank_scores(method, data)[0]
            cell = ood_cell(detection, method, data, row, TERMINAL_METRICS[0])
            spread = f" {cell.extra}" if cell.extra else ""
            lines.append(
                f"{data}, {method}: {score_title(*row)} has the highest AUROC, {cell.text} %{spread}."
            )
    return lines


def score_title(score: str, stage: str) -> str:
    """Return the display name of a score."""
    return str(OOD_SCORES[score].metadata["title"]) + (", after T" if stage == AFTER else "")


def metric_column(metric: str) -> Column:
    """Return the table column of a detection metric."""
    about = DETECTION[metric]
    arrow = "↑" if about.metadata["higher_is_better"] else "↓"
    return Column(str(about.metadata["title"]), "%", arrow, strip_markup(about.summary), metric)


def explanation_sentences(detection: Detection) -> list[str]:
    """Return the sentences below the tables: sizes, chance levels, seeds, marks and metrics."""
    first = detection.runs[0]
    lines = []
    for label, number in first.sets.items():
        # The AUPR of a guess is the share of the positive class, so it depends on the sizes of both sets.
        share = first.num_test / (first.num_test + number)
        lines.append(
            f"{first.data} (in): {first.num_test:,} test images; {label} (out): {number:,}. Chance: AUROC 50, AUPR-in "
            f"{100 * share:.1f}, AUPR-out {100 * (1 - share):.1f}, FPR95 95."
        )
    seeds = [len(each) for each in detection.result.seeds.values()]
    # The spread over seeds includes training; with one seed only the images can be resampled.
    if max(seeds) > 1:
        lines.append(f"Mean ± sample standard deviation over seeds (n = {max(seeds)}).")
    else:
        lines.append(
            f"[..]: 95 % bootstrap interval over the images ({detection.replicates:,} replicates, both sets "
            "resampled); another training would differ by more."
        )
    if max(seeds) < FEWEST_SEEDS:
        lines.append(f"Fewer than {FEWEST_SEEDS} seeds: no loss is marked as best.")
    else:
        lines.append(
            "★ best; ☆ best mean; ≈ not distinguishable from it by a two-sided paired t-test over the seeds (p > "
            f"{ALPHA:g} after Holm's correction); no mark: worse by that test. Few seeds find few differences. "
            "Losses are compared within a row."
        )
    lines.append(
        "Scores: higher = more OOD. AUPR-in, FPR95-in: in-distribution is the positive class (FPR95-in: share of OOD "
        "images that pass when 95 % of the others do). AUPR-out, FPR95-out: OOD is. AUROC is the same either way."
    )
    lines.append(
        "after T: saved logits divided by the temperature fitted on validation; scores without such a row are of "
        "features or make logits of their own (ViM, ODIN), and one temperature cannot change the order of max logit."
    )
    return lines + warning_sentences(detection)


def warning_sentences(detection: Detection) -> list[str]:
    """Return warnings about misleading numbers: changed images, missing scores and missing runs."""
    lines = []
    for label in detection.runs[0].sets:
        notes = dict.fromkeys(note for run in detection.runs for note in run.notes[label])
        lines += [f"{label}: {note}." for note in notes]
    for run in detection.runs:
        lines += [
            f"{run.folder.name}: {score} was not computed. {reason}"
            for score, reason in run.not_run.items()
        ]
    return lines + list(detection.skipped)


def write_ood_report(folder: Path, detection: Detection, *, command: str) -> tuple[Path, Path]:
    """Write ``ood.csv`` and ``ood.html``; both are made before the first is written.

    Args:
        folder: Where they go.
        detection: Results of the runs.
        command: The command that made them.

    Raises:
        InputError: If the folder cannot be written to.
    """
    table = scores_csv(detection)
    text = ood_page(detection, command)
    return write_text(folder / "ood.csv", table), write_text(folder / "ood.html", text)


def scores_csv(detection: Detection) -> str:
    """Return CSV text with one row per run, data set, score and stage: fractions with intervals."""
    columns = ["run", "loss", "seed", "in", "out", "score", "stage", "temperature"]
    rows = []
    for run in detection.runs:
        for (data, score, stage), metrics in run.detected.items():
            ends = [
                getattr(metrics[name], end)
                for name in DETECTION
                for end in ("value", "low", "high")
            ]
            temperature = None if stage == BEFORE else run.temperature
            first = (run.folder.name, run.loss, run.seed, run.data, data, score, stage, temperature)
            rows.append([*first, *ends])
    return table_to_csv(
        make_table(
            [*columns, *(name + end for name in DETECTION for end in ("", "-low", "-high"))], rows
        )
    )


def table_sections(detection: Detection) -> list[tuple[str, Sequence[Table]]]:
    """Return headings with their tables: losses compared, if there are several, then scores compared."""
    compared = [("Losses compared", method_tables(detection))] if len(detection.methods) > 1 else []
    return [*compared, ("Scores compared", score_tables(detection))]


def ood_page(detection: Detection, command: str) -> str:
    """Return ``ood.html`` as one self-contained file."""
    return render(
        "ood.html.j2",
        package="fedlas.lab.report",
        title=detection.title,
        command=command,
        made=creation_note(),
        verdicts=[*best_score_sentences(detection), SELECTION_NOTE],
        statement=explanation_sentences(detection),
        sections=table_sections(detection),
        figures_of=[(label, _score_figures(detection, label)) for label in detection.data],
        metrics=[
            (metric_column(entry.name).head, strip_markup(entry.summary))
            for entry in DETECTION.entries()
        ],
        scores=[OOD_SCORES[name] for name in detection.chosen.names],
        options={name: _options_text(detection, name) for name in OOD_SCORES},
        plain=strip_markup,
    )


def _options_text(detection: Detection, score: str) -> str:
    """Return the options of a score as text, without unset options."""
    return ", ".join(
        f"{key} {value}"
        for key, value in detection.chosen.score_options(score).items()
        if value is not None
    )


def _score_figures(detection: Detection, label: str) -> tuple[Any, list[Any], str]:
    """Return ROC curves, histograms and a caption: all scores of one loss, or the first score of each loss."""
    first_runs = [
        next(run for run in detection.runs if run.loss == method) for method in detection.methods
    ]
    several = len(first_runs) > 1
    score_pairs: dict[str, tuple[Any, Any]] = {}
    for run in first_runs:
        for (data, score), pair in run.scores.items():
            name = str(OOD_SCORES[score].metadata["title"])
            # Several losses share one picture, so each shows its first score; a single loss shows all of them.
            if data == label and (not several or run.loss not in score_pairs):
                score_pairs[run.loss if several else name] = pair
                first_score = name
    areas = {name: detection_metrics(*pair)["auroc"] for name, pair in score_pairs.items()}
    curves = {
        f"{name}  {100 * areas[name]:.1f}": roc_points(*pair) for name, pair in score_pairs.items()
    }

    # The legend is below the curves, so the picture grows with the lines that it takes.
    ax = new_page_axes(height=3.9 + legend_height(["chance", *curves], MAX_FIGURE_WIDTH))
    roc = roc_curves(curves, ax=ax, title="ROC, with AUROC in percent")
    data = detection.runs[0].data
    histograms = [
        to_inline_svg(
            score_histogram(*pair, ax=new_page_axes(3.6, 2.7), title=name, legend=False),
            f"Distribution of {name} on {data} and {label}",
        )
        for name, pair in score_pairs.items()
    ]
    seeds = {run.seed for run in first_runs}
    seed_text = f"seed {first_runs[0].seed}" if len(seeds) == 1 else "the first seed"
    caption = f"{first_score} of {seed_text} of each loss" if several else first_runs[0].folder.name
    alt = f"ROC curves of {', '.join(score_pairs)}: {data} against {label}"
    return to_inline_svg(roc, alt), histograms, f"{caption}, before temperature"
