"""All runs that were measured, aligned by seed, and the tables of them that every form of the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from fedlas.lab.report.model import FEWEST_SEEDS
from fedlas.lab.studies.ood.measure import AFTER, RunResult
from fedlas.lab.studies.ood.outputs import Chosen
from fedlas.present.table import DASH, Cell, Column, Mark, Table, plain_summary
from fedlas.stats import ALPHA, Interval, compare_to_best
from fedlas.zoo.ood import DETECTION, OOD_SCORES

MAIN = ("auroc", "aupr-in", "aupr-out", "fpr95-in")
"""Metrics of a table that has to fit a terminal."""
COMPARED = ("auroc", "fpr95-in")
"""Metrics by which losses are compared."""


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

    @property
    def methods(self) -> list[str]:
        """Losses."""
        return list(dict.fromkeys(run.loss for run in self.runs))

    @property
    def data(self) -> list[str]:
        """Labels of the other data sets."""
        return list(dict.fromkeys(label for run in self.runs for label in run.sets))

    @property
    def common_seeds(self) -> list[int]:
        """Seeds that every loss has."""
        seeds = sorted({run.seed for run in self.runs})
        return [s for s in seeds if all(any(r.seed == s and r.loss == m for r in self.runs) for m in self.methods)]

    def seeds(self, method: str) -> list[int]:
        """Seeds behind a loss's numbers: those that all have, or its own if there is no such."""
        return self.common_seeds or [run.seed for run in self.runs if run.loss == method]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Scores that some run has, with the stages at which they were measured."""
        found = dict.fromkeys((d.score, d.stage) for run in self.runs for d in run.detected)
        return list(found)

    def intervals(self, method: str, data: str, score: str, stage: str, metric: str) -> list[Interval]:
        """One for each of the loss's seeds that has it."""
        return [
            found.metrics[metric]
            for run in self.runs
            if run.loss == method and run.seed in self.seeds(method)
            for found in run.detected
            if (found.data, found.score, found.stage) == (data, score, stage)
        ]

    def cell(self, method: str, data: str, row: tuple[str, str], metric: str, mark: Mark = "") -> Cell:
        """Mean and deviation over seeds; with one seed, the value and its interval over the test images."""
        found = self.intervals(method, data, *row, metric)
        if not found:
            return Cell(DASH)
        values = [100 * interval.value for interval in found]
        if len(values) > 1:
            return Cell(f"{fmean(values):.2f}", f"{stdev(values):.2f}", mark, number=fmean(values))
        one = found[0]
        ends = f"[{100 * one.low:.1f}, {100 * one.high:.1f}]"
        return Cell(f"{values[0]:.1f}", mark=mark, extra=ends, number=values[0])

    def ranked(self, method: str, data: str) -> list[tuple[str, str]]:
        """The scores, the best by mean AUROC first."""
        return sorted(self.rows, key=lambda row: -(self.cell(method, data, row, MAIN[0]).number or 0.0))


def score_tables(summary: OodSummary, metrics: Sequence[str] | None = None) -> list[Table]:
    """For each other data set and each loss: scores against metrics, the best first."""
    names = list(metrics or DETECTION)
    heads = (Column("score", words=True), *map(column_of, names))
    tables = []
    for data in summary.data:
        for method in summary.methods:
            rows = tuple(
                (Cell(title_of(*row)), *(summary.cell(method, data, row, metric) for metric in names))
                for row in summary.ranked(method, data)
            )
            n = len(summary.seeds(method))
            heading = f"{method}, {n} seed{'s' * (n != 1)}: {summary.runs[0].data} vs {data}"
            tables.append(Table(heads, rows, heading))
    return tables


def method_tables(summary: OodSummary) -> list[Table]:
    """For each other data set and compared metric: scores against losses, the best loss of each row marked."""
    heads = (Column("score", words=True), *map(Column, summary.methods))
    tables = []
    for data in summary.data:
        for metric in COMPARED:
            rows = []
            for row in summary.ranked(summary.methods[0], data):
                marks = _marks(_over_methods(summary, data, row, metric), metric)
                cells = (summary.cell(m, data, row, metric, marks.get(m, "")) for m in summary.methods)
                rows.append((Cell(title_of(*row)), *cells))
            heading = f"{column_of(metric).head}: {summary.runs[0].data} vs {data}"
            tables.append(Table(heads, tuple(rows), heading))
    return tables


def verdicts(summary: OodSummary) -> list[str]:
    """The best score for each loss and other data set, in a sentence each."""
    lines = []
    for data in summary.data:
        for method in summary.methods:
            row = summary.ranked(method, data)[0]
            cell = summary.cell(method, data, row, MAIN[0])
            spread = f" {cell.extra}" if cell.extra else ""
            lines.append(f"{data}, {method}: {title_of(*row)} has the highest AUROC, {cell.text} %{spread}.")
    return lines


def title_of(score: str, stage: str) -> str:
    """A score's name in a table."""
    return str(OOD_SCORES[score].metadata["title"]) + (", after T" if stage == AFTER else "")


def column_of(metric: str) -> Column:
    """How a metric is shown."""
    about = DETECTION[metric]
    arrow = "↑" if about.metadata["higher_is_better"] else "↓"
    return Column(str(about.metadata["title"]), "%", arrow, plain_summary(about.summary), metric)


SELECTION = "Scores are ranked by AUROC on these images. Choosing one by it is selection: measure the choice on others."


def statement(summary: OodSummary) -> list[str]:
    """What a reader must know of the numbers, as sentences."""
    first = summary.runs[0]
    lines = []
    for label, number in first.sets.items():
        # The AUPR of a guess is the share of the positive class, so it depends on the sizes of both sets.
        share = first.num_test / (first.num_test + number)
        lines.append(
            f"{first.data} (in): {first.num_test:,} test images; {label} (out): {number:,}. Chance: AUROC 50, AUPR-in "
            f"{100 * share:.1f}, AUPR-out {100 * (1 - share):.1f}, FPR95 95."
        )
    seeds = [len(summary.seeds(method)) for method in summary.methods]
    # The spread over seeds includes training; with one seed only the images can be resampled.
    if max(seeds) > 1:
        lines.append(f"Mean ± sample standard deviation over seeds (n = {max(seeds)}).")
    else:
        lines.append(
            f"[..]: 95 % bootstrap interval over the images ({summary.replicates:,} replicates, both sets resampled); "
            "what another training would change is not in it."
        )
    if max(seeds) < FEWEST_SEEDS:
        lines.append(f"Fewer than {FEWEST_SEEDS} seeds: no loss is marked as best.")
    else:
        lines.append(
            "★ best mean; ≈ not distinguishable from it by a two-sided paired t-test over the seeds (p > "
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
    """What may make the numbers misleading: how images were changed, scores and runs that are missing."""
    lines = []
    for label in summary.runs[0].sets:
        notes = dict.fromkeys(note for run in summary.runs for note in run.notes[label])
        lines += [f"{label}: {note}." for note in notes]
    for run in summary.runs:
        lines += [f"{run.run}: {score} was not computed. {reason}" for score, reason in run.not_run.items()]
    return lines + list(summary.skipped)


def _over_methods(summary: OodSummary, data: str, row: tuple[str, str], metric: str) -> dict[Any, list[float]]:
    if not summary.common_seeds:
        return {}
    found = {m: [interval.value for interval in summary.intervals(m, data, *row, metric)] for m in summary.methods}
    return {method: values for method, values in found.items() if len(values) == len(summary.common_seeds)}


def _marks(values: Mapping[Any, Sequence[float]], metric: str) -> dict[Any, Mark]:
    """The best and those not distinguishable from it; nothing with fewer than :data:`FEWEST_SEEDS` seeds."""
    if len(values) < 2 or min(map(len, values.values())) < FEWEST_SEEDS:
        return {}
    found = compare_to_best(values, higher_is_better=DETECTION[metric].metadata["higher_is_better"], alpha=ALPHA)
    marks: dict[Any, Mark] = {} if found.best is None else {found.best: "best"}
    marks.update(dict.fromkeys(found.not_distinguishable, "same"))
    marks.update(dict.fromkeys(found.untested, "untested"))
    return marks
