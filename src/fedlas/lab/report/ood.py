"""The report of ``fedlas ood``: tables and sentences, ``ood.csv`` to compute with and ``ood.html`` to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fedlas._core.files import write_text
from fedlas.lab.report.model import FEWEST_SEEDS, ReportModel, report_model
from fedlas.lab.report.verdict import number_of
from fedlas.lab.runs.summary import FinishedRun, RunEstimates, Summary
from fedlas.lab.studies.ood.measure import AFTER, BEFORE, Chosen, RunResult
from fedlas.plots import roc_curves, score_histogram
from fedlas.plots.theme import legend_height
from fedlas.present.page import MOST_WIDTH, axes, figure, made_by, render
from fedlas.present.table import Cell, Column, Table, csv_text, plain_summary, table_of
from fedlas.stats import ALPHA, Estimate
from fedlas.zoo.ood import DETECTION, OOD_SCORES, detection_metrics, roc_points

MAIN = ("auroc", "aupr-in", "aupr-out", "fpr95-in")
"""Metrics of a table that has to fit a terminal."""
COMPARED = ("auroc", "fpr95-in")
"""Metrics by which losses are compared."""
SELECTION = "Scores are ranked by AUROC on these images. Choosing one by it is selection: measure the choice on others."
Row = tuple[str, str]
"""Score and stage."""


@dataclass(frozen=True)
class OodSummary:
    """Results of runs that differ in loss and seed only.

    Attributes:
        runs: The runs, by loss and then seed.
        chosen: Scores and options.
        replicates: Behind each interval.
        skipped: Why other folders are not among them, as sentences.
    """

    runs: Sequence[RunResult]
    chosen: Chosen
    replicates: int
    skipped: Sequence[str] = ()

    @cached_property
    def model(self) -> ReportModel:
        """The runs in the report model: the other data set, the score and its stage are the stage of the metrics."""
        runs = []
        for each in self.runs:
            measured = {}
            estimates = {}
            for row, intervals in each.detected.items():
                stage = "/".join(row)
                measured[stage] = {name: i.value for name, i in intervals.items()}
                estimates[stage] = {
                    name: Estimate(i.value, i.low, i.high) for name, i in intervals.items()
                }
            run = FinishedRun(each.folder, self.title, each.loss, each.seed, measured)
            runs.append(replace(run, estimates=RunEstimates(estimates)))
        keys = [(metric, stage) for run in runs for stage in run.measured for metric in COMPARED]
        higher = {m: bool(DETECTION[m].metadata["higher_is_better"]) for m in COMPARED}
        return report_model(Summary(Path(), tuple(runs)), keys, higher)

    @property
    def methods(self) -> list[str]:
        """Losses."""
        return self.model.summary.methods

    @property
    def data(self) -> list[str]:
        """Labels of the other data sets."""
        return list(dict.fromkeys(label for run in self.runs for label in run.sets))

    @property
    def title(self) -> str:
        """Heading of the report."""
        return f"OOD detection: {self.runs[0].data} vs {', '.join(self.data)}"

    def cell(self, method: str, data: str, row: Row, metric: str) -> Cell:
        """Return mean and deviation over seeds; with one seed, the value and its interval over the test images."""
        places = 4 if len(self.model.seeds[method]) > 1 else 3
        about = replace(column_of(metric), places=places)
        cell = self.model.cell(method, about, "/".join((data, *row)))
        extra = "" if cell.spread else "".join(cell.details)
        return replace(cell, extra=extra, details=(), tip="")

    def ranked(self, method: str, data: str) -> list[Row]:
        """Return scores with the stages at which some run has them, the best by mean AUROC first."""
        rows = dict.fromkeys(
            (score, stage) for run in self.runs for _, score, stage in run.detected
        )
        return sorted(rows, key=lambda row: -(self.cell(method, data, row, MAIN[0]).number or 0.0))


def score_tables(summary: OodSummary, metrics: Sequence[str] | None = None) -> list[Table]:
    """Return a table for each other data set and loss: scores against metrics, the best first."""
    names = list(metrics or DETECTION)
    heads = (Column("score", words=True), *map(column_of, names))
    tables = []
    for data in summary.data:
        for method in summary.methods:
            rows = tuple(
                (
                    Cell(title_of(*row)),
                    *(
                        replace(summary.cell(method, data, row, metric), mark="")
                        for metric in names
                    ),
                )
                for row in summary.ranked(method, data)
            )
            seeds = number_of(len(summary.model.seeds[method]), "seed")
            heading = f"{method}, {seeds}: {summary.runs[0].data} vs {data}"
            tables.append(Table(heads, rows, heading))
    return tables


def method_tables(summary: OodSummary) -> list[Table]:
    """Return a table for each other data set and metric: scores against losses, the best loss marked."""
    heads = (Column("score", words=True), *map(Column, summary.methods))
    tables = []
    for data in summary.data:
        for metric in COMPARED:
            rows = []
            for row in summary.ranked(summary.methods[0], data):
                cells = (summary.cell(m, data, row, metric) for m in summary.methods)
                rows.append((Cell(title_of(*row)), *cells))
            heading = f"{column_of(metric).head}: {summary.runs[0].data} vs {data}"
            tables.append(Table(heads, tuple(rows), heading))
    return tables


def verdicts(summary: OodSummary) -> list[str]:
    """Return the best score for each loss and other data set, in a sentence each."""
    lines = []
    for data in summary.data:
        for method in summary.methods:
            row = summary.ranked(method, data)[0]
            cell = summary.cell(method, data, row, MAIN[0])
            spread = f" {cell.extra}" if cell.extra else ""
            lines.append(
                f"{data}, {method}: {title_of(*row)} has the highest AUROC, {cell.text} %{spread}."
            )
    return lines


def title_of(score: str, stage: str) -> str:
    """Return a score's name in a table."""
    return str(OOD_SCORES[score].metadata["title"]) + (", after T" if stage == AFTER else "")


def column_of(metric: str) -> Column:
    """Return the column of a metric."""
    about = DETECTION[metric]
    arrow = "↑" if about.metadata["higher_is_better"] else "↓"
    return Column(str(about.metadata["title"]), "%", arrow, plain_summary(about.summary), metric)


def statement(summary: OodSummary) -> list[str]:
    """Return the sentences that explain the numbers."""
    first = summary.runs[0]
    lines = []
    for label, number in first.sets.items():
        # The AUPR of a guess is the share of the positive class, so it depends on the sizes of both sets.
        share = first.num_test / (first.num_test + number)
        lines.append(
            f"{first.data} (in): {first.num_test:,} test images; {label} (out): {number:,}. Chance: AUROC 50, AUPR-in "
            f"{100 * share:.1f}, AUPR-out {100 * (1 - share):.1f}, FPR95 95."
        )
    seeds = [len(each) for each in summary.model.seeds.values()]
    # The spread over seeds includes training; with one seed only the images can be resampled.
    if max(seeds) > 1:
        lines.append(f"Mean ± sample standard deviation over seeds (n = {max(seeds)}).")
    else:
        lines.append(
            f"[..]: 95 % bootstrap interval over the images ({summary.replicates:,} replicates, both sets resampled); "
            "another training would differ by more."
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
    return lines + warnings(summary)


def warnings(summary: OodSummary) -> list[str]:
    """Return sentences on anything that makes the numbers misleading: changed images, missing scores and runs."""
    lines = []
    for label in summary.runs[0].sets:
        notes = dict.fromkeys(note for run in summary.runs for note in run.notes[label])
        lines += [f"{label}: {note}." for note in notes]
    for run in summary.runs:
        lines += [
            f"{run.folder.name}: {score} was not computed. {reason}"
            for score, reason in run.not_run.items()
        ]
    return lines + list(summary.skipped)


def write_files(folder: Path, summary: OodSummary, *, command: str) -> tuple[Path, Path]:
    """Write ``ood.csv`` and ``ood.html``; both are made before the first is written.

    Args:
        folder: Where they go.
        summary: Results of the runs.
        command: The command that made them.

    Raises:
        InputError: If the folder cannot be written to.
    """
    table = table_csv(summary)
    text = page(summary, command)
    return write_text(folder / "ood.csv", table), write_text(folder / "ood.html", text)


def table_csv(summary: OodSummary) -> str:
    """Return a row for each run, data set, score and stage: fractions in full precision, with their intervals."""
    about = ["run", "loss", "seed", "in", "out", "score", "stage", "temperature"]
    rows = []
    for run in summary.runs:
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


def sections(summary: OodSummary) -> list[tuple[str, Sequence[Table]]]:
    """Return headings and their tables: losses against each other where there are several, then each by itself."""
    compared = [("Losses compared", method_tables(summary))] if len(summary.methods) > 1 else []
    return [*compared, ("Scores compared", score_tables(summary))]


def page(summary: OodSummary, command: str) -> str:
    """Return ``ood.html``: one file that needs nothing else."""
    return render(
        "ood.html.j2",
        room="fedlas.lab.report",
        title=summary.title,
        command=command,
        made=made_by(),
        verdicts=[*verdicts(summary), SELECTION],
        statement=statement(summary),
        sections=sections(summary),
        figures_of=[(label, _figures(summary, label)) for label in summary.data],
        metrics=[
            (column_of(entry.name).head, plain_summary(entry.summary))
            for entry in DETECTION.entries()
        ],
        scores=[OOD_SCORES[name] for name in summary.chosen.names],
        options={name: _options(summary, name) for name in OOD_SCORES},
        plain=plain_summary,
    )


def _options(summary: OodSummary, score: str) -> str:
    """Return the options of a score; one without a value is left to the score."""
    return ", ".join(
        f"{key} {value}" for key, value in summary.chosen.of(score).items() if value is not None
    )


def _figures(summary: OodSummary, label: str) -> tuple[Any, list[Any], str]:
    """Return ROC curves and histograms of the first seed: of one loss all scores, of several the first of each."""
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
    seeds = {run.seed for run in firsts}
    which = f"seed {firsts[0].seed}" if len(seeds) == 1 else "the first seed"
    what = f"{first_score} of {which} of each loss" if several else firsts[0].folder.name
    alt = f"ROC curves of {', '.join(shown)}: {data} against {label}"
    return figure(roc, alt), histograms, f"{what}, before temperature"
