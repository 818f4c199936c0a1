"""The table every form of the report shows: mean and spread over seeds of each metric, with the best marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean, stdev
from typing import Literal

from fedlas.lab.report.noise_text import NOTHING, NoiseText, noise_legend, noise_text
from fedlas.lab.runs.intervals import reasons
from fedlas.lab.runs.summary import STAGES, FinishedRun, Summary, is_ranked
from fedlas.metrics import METRICS
from fedlas.stats import LEVEL

Mark = Literal["best", "leading", "same", "worse", "untested", ""]
TEST = "paired t-test"
"""By which methods are compared, see :func:`fedlas.stats.compare_to_best`."""
ARROWS: dict[bool | None, str] = {True: "↑", False: "↓", None: "→ 0"}
SYMBOLS: dict[str, str] = {"best": "★", "leading": "☆", "same": "≈", "worse": "", "untested": "?", "": ""}


@dataclass(frozen=True)
class Column:
    """One metric.

    Attributes:
        metric: Registry name.
        title: Head of the column.
        unit: ``"%"`` or nothing.
        arrow: ``"↑"`` if higher is better, ``"↓"`` if lower is, ``"→ 0"`` if zero is; nothing where nobody knows.
        summary: One line on what it measures.
        places: Decimals where the unit is not percent.
    """

    metric: str
    title: str
    unit: str
    arrow: str
    summary: str
    places: int = 4

    @property
    def head(self) -> str:
        """Title, unit and direction, e.g. ``"ECE % ↓"``."""
        return " ".join(part for part in (self.title, self.unit, self.arrow) if part)

    def format(self, value: float | None) -> str:
        """``value`` (a fraction where the unit is percent) with two decimals in percent; a dash for none."""
        if value is None or isnan(value):
            return "—"
        text = f"{100 * value:.2f}" if self.unit else f"{value:.{self.places}f}"
        return text.removeprefix("-") if not text.strip("-0.") else text  # no "-0.00"


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation over seeds as text (empty where there is none), and the mark.

    Attributes:
        p_value: Holm-adjusted p-value of the difference from the best; None where nothing was tested.
        noise: Interval, noise floor and p-value of the calibration test, over the same runs.
        values: What it is the mean of, one for each seed.
    """

    mean: str
    std: str
    mark: Mark
    p_value: float | None = None
    noise: NoiseText = NOTHING
    values: tuple[float, ...] = ()

    @property
    def symbol(self) -> str:
        """The mark as one character, which survives copying, printing and terminals without colour."""
        return SYMBOLS[self.mark]


@dataclass(frozen=True)
class Row:
    """One method: its name, how many seeds it has, one cell per column."""

    method: str
    n: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Mean ± std of every metric for every method, at one stage (before or after temperature scaling)."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def plain_summary(summary: str) -> str:
    """The first line of a docstring without its markup: cross-references become the name they point to."""
    return re.sub(r":[a-z:]+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", summary).replace("`", "")


def column(metric: str, *, places: int = 4) -> Column:
    """How to show ``metric``; one that is not registered is shown as it is, without a direction."""
    if metric not in METRICS:
        return Column(metric, metric, "", "", "", places)
    entry = METRICS[metric]
    unit = "%" if entry.metadata["percent"] else ""
    arrow = ARROWS[entry.metadata["higher_is_better"]]
    return Column(metric, str(entry.metadata["title"]), unit, arrow, plain_summary(entry.summary), places)


def summary_table(
    summary: Summary,
    stage: str = "test",
    metrics: Sequence[str] | None = None,
    *,
    places: int = 4,
    detail: bool = False,
) -> Table:
    """The table of ``summary`` at ``stage``, over the seeds that every method has (over each method's own if none is).

    Args:
        summary: Runs of a bench folder.
        stage: ``"test"`` or ``"test_scaled"``.
        metrics: Columns; None for all that were measured and are details, or are none.
        places: Decimals of what is not in percent.
        detail: Which of the two, where ``metrics`` is None. Details (so registered) say more of what the main metrics
            sum up, in a table of their own that keeps the main one narrow.
    """
    if metrics is None:
        metrics = [metric for metric in summary.metrics if _is_detail(metric) == detail]
    columns = [column(metric, places=places) for metric in metrics]
    marks = [_marks(summary, c.metric, stage) for c in columns]
    seeds = _seeds(summary)
    rows = []
    for method in summary.methods:
        cells = []
        for c, (mark, p_values) in zip(columns, marks, strict=True):
            by_seed = dict(zip(summary.seeds, summary.values(method, c.metric, stage), strict=True))
            values = [v for seed in seeds[method] if not isnan(v := by_seed[seed])]
            cells.append(
                Cell(
                    c.format(fmean(values) if values else None),
                    c.format(stdev(values)) if len(values) > 1 else "",
                    mark.get(method, ""),
                    p_values.get(method),
                    noise_text(summary.estimates(method, c.metric, stage, seeds=seeds[method]), c.format),
                    tuple(values),
                )
            )
        rows.append(Row(method, len(seeds[method]), tuple(cells)))
    return Table(tuple(columns), tuple(rows))


def _is_detail(metric: str) -> bool:
    return metric in METRICS and bool(METRICS[metric].metadata.get("detail", False))


def run_cell(run: FinishedRun, metric: str, stage: str = "test") -> Cell:
    """The number of one run, with its own interval, noise floor and p-value."""
    about = column(metric)
    noise = run.estimates.get(metric, stage) if run.estimates else None
    found = noise_text([noise] if noise else [], about.format)
    return Cell(about.format(run.measured[stage].get(metric)), "", "", noise=found)


def stage_tables(summary: Summary) -> list[tuple[str, str, Table]]:
    """Heading, short name and table of everything a report shows: main metrics, then details, before and after."""
    headings = {"before": "Before temperature scaling", "after": "After temperature scaling"}
    tables = []
    for detail in (False, True):
        for stage, when in STAGES.items():
            table = summary_table(summary, stage, detail=detail)
            heading = f"In detail, {headings[when].lower()}" if detail else headings[when]
            if table.columns:
                tables.append((heading, f"{when}-detail" if detail else when, table))
    return tables


def _seeds(summary: Summary) -> dict[str, list[int]]:
    """The seeds behind each method's numbers: the same for all, or the means would compare seeds and not methods.

    What is made of other runs has fewer, where it stands for several seeds at once.
    """
    common = summary.common_seeds

    def own(method: str) -> list[int]:
        return [seed for seed in summary.seeds if summary.run(method, seed)]

    made = {method: [seed for seed in own(method) if seed in common] or own(method) for method in summary.derived}
    return {method: made.get(method) or common or own(method) for method in summary.methods}


def _marks(summary: Summary, metric: str, stage: str) -> tuple[dict[str, Mark], dict[str, float]]:
    comparison = summary.compare(metric, stage)
    if comparison is None or comparison.best is None or len(summary.tested) == 1:
        return {}, {}
    alone = comparison.n > 1 and not comparison.not_distinguishable and not comparison.untested
    marks: dict[str, Mark] = {comparison.best: "best" if alone else "leading"}
    marks.update(dict.fromkeys(comparison.not_distinguishable, "same"))
    marks.update(dict.fromkeys(comparison.distinguishable, "worse"))
    if comparison.n > 1:  # with one seed nothing is tested, which is said once instead of in every cell
        apart = [m for m in summary.incomplete(metric, stage) if not all(map(isnan, summary.values(m, metric, stage)))]
        marks.update(dict.fromkeys((*comparison.untested, *apart), "untested"))
    return marks, dict(comparison.p_values)


def spread_note(summary: Summary) -> str:
    """One sentence on what stands behind ±."""
    sizes = sorted({len(seeds) for seeds in _seeds(summary).values()})
    if sizes[-1] == 1:
        return "One seed each (n = 1), so no spread is known."
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"Mean ± sample standard deviation over seeds (n = {n})."


def legend(summary: Summary) -> dict[Mark, str]:
    """What each mark that can occur means, in the order to print them."""
    n, others = len(summary.common_seeds), len(summary.tested) - 1
    if others == 0 or n == 0:
        return {}
    if n == 1:
        only = "best value" if len(summary.seeds) == 1 else "best value at the only seed that all methods have"
        return {"leading": f"{only}; one seed cannot show whether a difference is more than chance"}
    used = {cell.mark for _, _, table in stage_tables(summary) for row in table.rows for cell in row.cells}
    comparisons = f"{others} comparison{'s' * (others != 1)}"
    texts: dict[Mark, str] = {
        "best": f"best: every other method tested is worse by a {TEST} over the {n} seeds, p ≤ {LEVEL:g} after Holm's "
        f"correction for {comparisons}",
        "leading": "best mean, but another method could be as good by that test, or was not tested",
        "same": f"not distinguishable from the best mean: two-sided {TEST} over the {n} seeds against ★ or ☆, "
        f"p > {LEVEL:g} after Holm's correction for {comparisons}. Few seeds find few differences, so this does not "
        "say that the two are equal",
        "worse": "no mark: worse than the best by that test",
    }
    texts = {mark: text for mark, text in texts.items() if mark in used}
    if unranked := [column(metric).title for metric in summary.metrics if not is_ranked(metric)]:
        texts[""] = (
            f"no mark in {', '.join(unranked)}: nobody is best there, because it has no direction, or one part of an "
            "error falls when the other rises"
        )
    if "untested" in used:
        apart = "has no run of its own at each seed, or " if others < len(summary.methods) - 1 else ""
        texts["untested"] = f"not tested: {apart}differs from the best by the same amount at every seed"
    return texts


def noise_notes(summary: Summary) -> list[str]:
    """What stands below a number in the tables, as sentences, and why it is missing where it is."""
    cells = [cell for _, _, table in stage_tables(summary) for row in table.rows for cell in row.cells]
    several = any(len(seeds) > 1 for seeds in _seeds(summary).values())
    notes = noise_legend([cell.noise for cell in cells], several=several)
    return [f"{note}." for note in notes] + [f"{reason}." for reason in reasons(summary)]


def missing_notes(summary: Summary) -> list[str]:
    """Sentences on seeds that some methods lack; empty when all have the same seeds."""
    notes: list[str] = []
    trained = [run for run in summary.runs if not run.made_by]
    for method in dict.fromkeys(run.loss for run in trained):
        seeds = sorted({run.seed for run in trained})
        missing = [str(seed) for seed in seeds if summary.run(method, seed) is None]
        if missing:
            notes.append(f"{method} has no finished run for seed{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    if notes and summary.common_seeds:
        common = ", ".join(map(str, summary.common_seeds))
        notes.append(
            f"Tables and tests use only what every method has, seed{'s' * (len(summary.common_seeds) > 1)} {common}; "
            "the other runs are among the single runs and in results.csv. Run the same command again to fill the gaps, "
            "or move a method's runs away to see the others over all their seeds."
        )
    elif notes:
        notes.append(
            "No seed is common to all methods, so means are over each method's own seeds, and nothing is tested."
        )
    sizes = _seeds(summary)
    apart = [method for method in summary.derived if trained and method not in summary.tested]
    return notes + [
        f"{method} has n = {len(sizes[method])}: what is made of runs of several seeds counts once, by the lowest. It "
        "is not tested; make it of other groups of runs, too, to see its spread."
        for method in apart
    ]
