"""Report of ``fedlas runs ood``: tables and sentences for the terminal, ``ood.csv`` and ``ood.html``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.files import write_text
from fedlas._core.text import number_of
from fedlas.lab.report.cells import cell_of
from fedlas.lab.results.detection import COMPARED, Detection, Row
from fedlas.lab.results.result import FEWEST_SEEDS
from fedlas.lab.studies.ood.measure import AFTER, BEFORE
from fedlas.plots import roc_curves, score_histogram
from fedlas.plots.theme import legend_height
from fedlas.present.page import MOST_WIDTH, axes, figure, made_by, render
from fedlas.present.table import Cell, Column, Table, csv_text, plain_summary, table_of
from fedlas.stats import ALPHA
from fedlas.zoo.ood import DETECTION, OOD_SCORES, detection_metrics, roc_points

MAIN = ("auroc", "aupr-in", "aupr-out", "fpr95-in")
"""Metrics of a table that has to fit a terminal."""
SELECTION = "Scores are ranked by AUROC on these images. If you choose one by that, measure it on other images."


def ood_cell(detection: Detection, method: str, data: str, row: Row, metric: str) -> Cell:
    """Return mean and deviation over seeds; with one seed, the value and its interval over the test images."""
    places = 4 if len(detection.result.seeds[method]) > 1 else 3
    about = replace(column_of(metric), places=places)
    shown = cell_of(detection.result, method, about, "/".join((data, *row)))
    extra = "" if shown.spread else "".join(shown.details)
    return replace(shown, extra=extra, details=(), tip="")


def score_tables(detection: Detection, metrics: Sequence[str] | None = None) -> list[Table]:
    """Return one table per OOD data set and loss: scores by metric, best first."""
    names = list(metrics or DETECTION)
    heads = (Column("score", words=True), *map(column_of, names))
    tables = []
    for data in detection.data:
        for method in detection.methods:
            rows = tuple(
                (
                    Cell(title_of(*row)),
                    *(
                        replace(ood_cell(detection, method, data, row, metric), mark="")
                        for metric in names
                    ),
                )
                for row in detection.ranked(method, data)
            )
            seeds = number_of(len(detection.result.seeds[method]), "seed")
            heading = f"{method}, {seeds}: {detection.runs[0].data} vs {data}"
            tables.append(Table(heads, rows, heading))
    return tables


def method_tables(detection: Detection) -> list[Table]:
    """Return one table per OOD data set and metric: scores by loss, the best loss marked."""
    heads = (Column("score", words=True), *map(Column, detection.methods))
    tables = []
    for data in detection.data:
        for metric in COMPARED:
            rows = []
            for row in detection.ranked(detection.methods[0], data):
                cells = (ood_cell(detection, m, data, row, metric) for m in detection.methods)
                rows.append((Cell(title_of(*row)), *cells))
            heading = f"{column_of(metric).head}: {detection.runs[0].data} vs {data}"
            tables.append(Table(heads, tuple(rows), heading))
    return tables


def verdicts(detection: Detection) -> list[str]:
    """Return one sentence per OOD data set and loss that names the best score."""
    lines = []
    for data in detection.data:
        for method in detection.methods:
            row = detection.ranked(method, data)[0]
            cell = ood_cell(detection, method, data, row, MAIN[0])
            spread = f" {cell.extra}" if cell.extra else ""
            lines.append(
                f"{data}, {method}: {title_of(*row)} has the highest AUROC, {cell.text} %{spread}."
            )
    return lines


def title_of(score: str, stage: str) -> str:
    """Return the display name of a score."""
    return str(OOD_SCORES[score].metadata["title"]) + (", after T" if stage == AFTER else "")


def column_of(metric: str) -> Column:
    """Return the table column of a detection metric."""
    about = DETECTION[metric]
    arrow = "↑" if about.metadata["higher_is_better"] else "↓"
    return Column(str(about.metadata["title"]), "%", arrow, plain_summary(about.summary), metric)


def statement(detection: Detection) -> list[str]:
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
    return lines + warnings(detection)


def warnings(detection: Detection) -> list[str]:
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


def write_files(folder: Path, detection: Detection, *, command: str) -> tuple[Path, Path]:
    """Write ``ood.csv`` and ``ood.html``; both are made before the first is written.

    Args:
        folder: Where they go.
        detection: Results of the runs.
        command: The command that made them.

    Raises:
        InputError: If the folder cannot be written to.
    """
    table = table_csv(detection)
    text = page(detection, command)
    return write_text(folder / "ood.csv", table), write_text(folder / "ood.html", text)


def table_csv(detection: Detection) -> str:
    """Return CSV text with one row per run, data set, score and stage: fractions with intervals."""
    about = ["run", "loss", "seed", "in", "out", "score", "stage", "temperature"]
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
    return csv_text(
        table_of(
            [*about, *(name + end for name in DETECTION for end in ("", "-low", "-high"))], rows
        )
    )


def sections(detection: Detection) -> list[tuple[str, Sequence[Table]]]:
    """Return headings with their tables: losses compared, if there are several, then scores compared."""
    compared = [("Losses compared", method_tables(detection))] if len(detection.methods) > 1 else []
    return [*compared, ("Scores compared", score_tables(detection))]


def page(detection: Detection, command: str) -> str:
    """Return ``ood.html`` as one self-contained file."""
    return render(
        "ood.html.j2",
        room="fedlas.lab.report",
        title=detection.title,
        command=command,
        made=made_by(),
        verdicts=[*verdicts(detection), SELECTION],
        statement=statement(detection),
        sections=sections(detection),
        figures_of=[(label, _figures(detection, label)) for label in detection.data],
        metrics=[
            (column_of(entry.name).head, plain_summary(entry.summary))
            for entry in DETECTION.entries()
        ],
        scores=[OOD_SCORES[name] for name in detection.chosen.names],
        options={name: _options(detection, name) for name in OOD_SCORES},
        plain=plain_summary,
    )


def _options(detection: Detection, score: str) -> str:
    """Return the options of a score as text, without unset options."""
    return ", ".join(
        f"{key} {value}" for key, value in detection.chosen.of(score).items() if value is not None
    )


def _figures(detection: Detection, label: str) -> tuple[Any, list[Any], str]:
    """Return ROC curves, histograms and a caption: all scores of one loss, or the first score of each loss."""
    firsts = [
        next(run for run in detection.runs if run.loss == method) for method in detection.methods
    ]
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
    data = detection.runs[0].data
    histograms = [
        figure(
            score_histogram(*pair, ax=axes(3.6, 2.7), title=name, legend=False),
            f"Distribution of {name} on {data} and {label}",
        )
        for name, pair in shown.items()
    ]
    seeds = {run.seed for run in firsts}
    which = f"seed {firsts[0].seed}" if len(seeds) == 1 else "the first seed"
    what = f"{first_score} of {which} of each loss" if several else firsts[0].folder.name
    alt = f"ROC curves of {', '.join(shown)}: {data} against {label}"
    return figure(roc, alt), histograms, f"{what}, before temperature"
