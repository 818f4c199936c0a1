"""Everything that a report over a bench shows, computed once: values, spreads, comparisons, tests and noise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from statistics import fmean, stdev

from fedlas.lab.report.after_calibrators import AUTO
from fedlas.lab.runs.folder import UnreadableError
from fedlas.lab.runs.summary import STAGES, FinishedRun, Problem, Summary
from fedlas.present.metric_tables import NoiseText, noise_text
from fedlas.present.table import FEWEST_CLASSES, Cell, Column, Mark, Table, column, is_detail
from fedlas.stats import Comparison

FEWEST_SEEDS = 5
"""With fewer seeds no method is marked as best."""
_CLASS = re.compile(r"^(?:[\w.]*\bInputError: |[\w.]+\.(?=\w+: ))")
"""Class of an error before its text, of which a reader needs the name at most."""
Key = tuple[str, str]
"""Metric and stage."""


@dataclass(frozen=True, eq=False)
class ReportModel:
    """The runs of a bench and what follows from them.

    Attributes:
        summary: The runs.
        methods: Their methods, sorted by mean NLL before temperature scaling, the lowest first.
        seeds: Seeds behind each method's means: the same for all if all have one in common.
        comparisons: Comparison of the methods by metric and stage; None where there is no best.
        samples: Test samples; None if that is not known.
    """

    summary: Summary
    methods: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    comparisons: Mapping[Key, Comparison | None]
    samples: int | None

    @property
    def after(self) -> str:
        """The stage after calibration: auto, or a temperature where there are no predictions."""
        return (
            AUTO if any(run.measured.get(AUTO) for run in self.summary.runs) else "test_calibrated"
        )

    def values(self, method: str, metric: str, stage: str = "test") -> list[float]:
        """Return one value for each of the method's seeds that has it."""
        by_seed = dict(
            zip(self.summary.seeds, self.summary.values(method, metric, stage), strict=True)
        )
        return [value for seed in self.seeds[method] if not isnan(value := by_seed[seed])]

    def by_seed(
        self, about: Column, stage: str = "test"
    ) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Return values by seed and noise floors of the methods, in the unit of a column, for a figure."""
        scale = 100 if about.unit else 1
        values = {m: [scale * v for v in self.values(m, about.metric, stage)] for m in self.methods}
        floors = {m: self.noise(m, about, stage).floor_value for m in self.methods if values[m]}
        return values, {m: scale * floor for m, floor in floors.items() if floor is not None}

    def noise(self, method: str, about: Column, stage: str = "test") -> NoiseText:
        """Return the interval, noise floor and calibration test over the same runs."""
        return noise_text(
            self.summary.estimates(method, about.metric, stage, seeds=self.seeds[method]),
            about.format,
        )

    def mark(self, method: str, metric: str, stage: str = "test") -> Mark:
        """Return the mark of a method; nothing from fewer than :data:`FEWEST_SEEDS` seeds."""
        comparison = self.comparisons.get((metric, stage))
        if comparison is None or comparison.best is None or comparison.n < FEWEST_SEEDS:
            return ""
        if len(self.summary.tested) == 1:  # it has nothing to be compared with
            return ""
        apart = method in self.summary.incomplete(metric, stage) and bool(
            self.values(method, metric, stage)
        )
        return "untested" if apart else mark_of(method, comparison)

    def cell(self, method: str, about: Column, stage: str = "test") -> Cell:
        """Return mean and deviation over seeds with the mark, and below them interval, floor and p-value."""
        values = self.values(method, about.metric, stage)
        comparison = self.comparisons.get((about.metric, stage))
        p_value = comparison.p_values.get(method) if comparison else None
        noise = self.noise(method, about, stage)
        mean = fmean(values) if values else None
        return Cell(
            about.format(mean),
            about.format(stdev(values)) if len(values) > 1 else "",
            self.mark(method, about.metric, stage),
            details=noise.lines,
            tip="" if p_value is None else f"p = {p_value:.2g} against the best, Holm",
            number=mean,
        )

    def table(
        self,
        stage: str = "test",
        metrics: Sequence[str] | None = None,
        *,
        title: str = "",
        places: int = 4,
    ) -> Table:
        """Return a row for each method, a column for each metric.

        Args:
            stage: ``"test"`` or ``"test_calibrated"``.
            metrics: None for all that were measured; details, so registered, come last and are folded at first.
            title: As in :class:`~fedlas.present.table.Table`.
            places: Decimals of numbers that are not in percent.
        """
        if metrics is None:
            shown = (
                name
                for name in self.summary.metrics
                if name != "top5" or self.classes >= FEWEST_CLASSES
            )
            metrics = sorted(shown, key=is_detail)
        columns = [column(name, shown=not is_detail(name)) for name in metrics]
        columns = [about if about.unit else replace(about, places=places) for about in columns]
        rows = [
            (
                Cell(method),
                Cell(str(len(self.seeds[method]))),
                *(self.cell(method, about, stage) for about in columns),
            )
            for method in self.methods
        ]
        return Table((Column("Method", words=True), Column("Seeds"), *columns), tuple(rows), title)

    @cached_property
    def classes(self) -> float:
        """Number of classes, as far as the intervals say it; infinite where they do not."""
        counts = (
            len(run.estimates.classes)
            for run in self.summary.runs
            if run.estimates and run.estimates.classes
        )
        return min(counts, default=float("inf"))

    @cached_property
    def tables(self) -> tuple[tuple[str, Table], ...]:
        """Stage and table of everything that was measured."""
        return tuple(
            (stage, self.table(stage, title=f"{when.capitalize()} temperature scaling"))
            for stage, when in STAGES.items()
            if any(run.measured.get(stage) for run in self.summary.runs)
        )

    @cached_property
    def marks(self) -> frozenset[Mark]:
        """Marks that some table shows."""
        return frozenset(
            cell.mark for _, table in self.tables for row in table.rows for cell in row
        )

    @cached_property
    def all_noise(self) -> tuple[NoiseText, ...]:
        """Everything that is known of chance over the test samples."""
        return tuple(
            self.noise(method, about, stage)
            for stage, table in self.tables
            for about in table.columns
            if about.metric
            for method in self.methods
        )


def report_model(
    summary: Summary, keys: Iterable[Key] | None = None, higher: Mapping[str, bool] | None = None
) -> ReportModel:
    """Return the model of a report; everything is compared and tested here, once for each metric and stage.

    Args:
        summary: The runs.
        keys: Metrics and stages; None for all metrics before and after temperature and auto.
        higher: Whether higher is better, of metrics that are not registered.
    """
    keys = keys or [(metric, stage) for stage in (*STAGES, AUTO) for metric in summary.metrics]
    model = ReportModel(
        summary,
        tuple(summary.methods),
        _seeds(summary),
        {key: summary.compare(*key, higher=(higher or {}).get(key[0])) for key in keys},
        next(filter(None, map(_samples, summary.runs)), None),
    )

    def nll(method: str) -> float:
        return fmean(model.values(method, "nll") or [float("inf")])

    return replace(model, methods=tuple(sorted(model.methods, key=nll)))


def with_failures(summary: Summary, failures: Mapping[str, str]) -> Summary:
    """Return the summary with the reasons of runs that failed, also where nothing could be written in their folders.

    Args:
        summary: The runs, as read from their folders.
        failures: Reason of each run that failed in this process, by its name; it replaces what the folder says.
    """
    finished = {run.name for run in summary.runs}
    reasons = {each.name: each.reason for each in summary.failed} | dict(failures)
    return replace(
        summary,
        failed=tuple(
            Problem(name, _CLASS.sub("", reasons[name]))
            for name in sorted(reasons.keys() - finished)
        ),
        unfinished=tuple(name for name in summary.unfinished if name not in failures),
        unreadable=tuple(each for each in summary.unreadable if each.name not in failures),
    )


def mark_of(method: str, comparison: Comparison) -> Mark:
    """Return the mark of a method in a comparison with the best."""
    if method == comparison.best:
        return "leading" if comparison.not_distinguishable or comparison.untested else "best"
    if method in comparison.not_distinguishable:
        return "same"
    return (
        "worse"
        if method in comparison.distinguishable
        else "untested"
        if method in comparison.untested
        else ""
    )


def run_cell(run: FinishedRun, about: Column, stage: str = "test") -> Cell:
    """Return the number of one run, with its own interval, noise floor and p-value."""
    value = run.measured[stage].get(about.metric)
    estimate = run.estimates.get(about.metric, stage) if run.estimates else None
    noise = noise_text([estimate] if estimate else [], about.format)
    return Cell(about.format(value), details=noise.lines, number=value)


def _seeds(summary: Summary) -> dict[str, tuple[int, ...]]:
    """Return the seeds of each method: the same for all, but fewer of a method made of several runs."""
    common = summary.common_seeds
    every = {
        m: tuple(seed for seed in summary.seeds if summary.run(m, seed)) for m in summary.methods
    }
    derived = {
        m: tuple(seed for seed in every[m] if seed in common) or every[m] for m in summary.derived
    }
    return {
        method: derived.get(method) or tuple(common) or every[method] for method in summary.methods
    }


def _samples(run: FinishedRun) -> int | None:
    """Return the number of test samples in the split, which ``data.test_size`` may make smaller."""
    with suppress(UnreadableError):  # published results have no splits
        return len(run.folder.splits["test"])
    test = (run.folder.data or {}).get("test")
    count = test.get("samples") if isinstance(test, dict) else None
    return count if isinstance(count, int) else None
