"""Results of a bench: values by method, seed and stage, with comparisons and tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from statistics import fmean

from fedlas.lab.results.stages import AUTO
from fedlas.lab.runs.folder import UnreadableError
from fedlas.lab.runs.summary import STAGES, FinishedRun, Problem, Summary
from fedlas.stats import BestMethod

FEWEST_SEEDS = 5
"""With fewer seeds no method is marked as best."""
_ERROR_CLASS = re.compile(r"^(?:[\w.]*\bInputError: |[\w.]+\.(?=\w+: ))")
"""Error class at the start of a message; messages are shown without it."""
MetricAndStage = tuple[str, str]
"""Metric and stage."""


@dataclass(frozen=True, eq=False)
class Result:
    """Metrics of finished runs by method, seed and stage, with comparisons between the methods.

    Attributes:
        summary: The runs.
        methods: Their methods, sorted by mean NLL before temperature scaling, the lowest first.
        seeds: Seeds behind each method's means: the same for all if all have one in common.
        comparisons: Comparison of the methods by metric and stage; None where there is no best.
        samples: Number of test samples; None if it is not known.
    """

    summary: Summary
    methods: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    comparisons: Mapping[MetricAndStage, BestMethod | None]
    samples: int | None

    @property
    def after(self) -> str:
        """Name of the stage after calibration: ``auto`` if any run has it, otherwise ``test_calibrated``."""
        return (
            AUTO if any(run.measured.get(AUTO) for run in self.summary.runs) else "test_calibrated"
        )

    def values(self, method: str, metric: str, stage: str = "test") -> list[float]:
        """Return the values of a metric, one per seed of the method that has a value."""
        by_seed = dict(
            zip(self.summary.seeds, self.summary.values(method, metric, stage), strict=True)
        )
        return [value for seed in self.seeds[method] if not isnan(value := by_seed[seed])]

    @cached_property
    def classes(self) -> float:
        """Number of classes with class-wise intervals, the lowest over the runs; infinite if no run has any."""
        counts = (
            len(run.estimates.classes)
            for run in self.summary.runs
            if run.estimates and run.estimates.classes
        )
        return min(counts, default=float("inf"))


def build_result(
    summary: Summary,
    keys: Iterable[MetricAndStage] | None = None,
    higher: Mapping[str, bool] | None = None,
) -> Result:
    """Return the result of runs, with the methods compared once per metric and stage.

    Args:
        summary: The runs.
        keys: Metrics and stages; None for all metrics before and after temperature and auto.
        higher: Whether higher is better, for metrics that are not registered.
    """
    keys = keys or [(metric, stage) for stage in (*STAGES, AUTO) for metric in summary.metrics]
    result = Result(
        summary,
        tuple(summary.methods),
        _seeds_by_method(summary),
        {key: summary.compare(*key, higher=(higher or {}).get(key[0])) for key in keys},
        next(filter(None, map(_count_test_samples, summary.runs)), None),
    )

    def nll(method: str) -> float:
        return fmean(result.values(method, "nll") or [float("inf")])

    return replace(result, methods=tuple(sorted(result.methods, key=nll)))


def with_failures(summary: Summary, failures: Mapping[str, str]) -> Summary:
    """Return the summary with the runs that failed in this process added to ``failed``.

    Args:
        summary: The runs, as read from their folders.
        failures: Reason of each run that failed in this process, by its name; it replaces what the folder says.
    """
    finished = {run.name for run in summary.runs}
    reasons = {each.name: each.reason for each in summary.failed} | dict(failures)
    return replace(
        summary,
        failed=tuple(
            Problem(name, _ERROR_CLASS.sub("", reasons[name]))
            for name in sorted(reasons.keys() - finished)
        ),
        unfinished=tuple(name for name in summary.unfinished if name not in failures),
        unreadable=tuple(each for each in summary.unreadable if each.name not in failures),
    )


def _seeds_by_method(summary: Summary) -> dict[str, tuple[int, ...]]:
    """Return the seeds of each method: the common seeds, or for a derived method the common seeds that it has."""
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


def _count_test_samples(run: FinishedRun) -> int | None:
    """Return the number of test samples from the saved splits or the data fingerprint, or None if it is unknown."""
    with suppress(UnreadableError):  # published results have no splits
        return len(run.folder.splits["test"])
    test = (run.folder.data or {}).get("test")
    count = test.get("samples") if isinstance(test, dict) else None
    return count if isinstance(count, int) else None
