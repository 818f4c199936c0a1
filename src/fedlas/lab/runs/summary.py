"""Runs of a bench folder: finished, failed, unfinished and unreadable ones, and their metrics aligned by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.log import iter_leaves
from fedlas.metrics import METRICS
from fedlas.stats import ALPHA, BestMethod, Estimate, compare_to_best

STAGES = {"test": "before", "test_calibrated": "after"}
"""Keys of the test metrics in ``metrics.json``: before and after temperature scaling."""


@dataclass(frozen=True)
class RunEstimates:
    """Intervals, noise floors and calibration tests of one run.

    Attributes:
        stages: :class:`~fedlas.stats.Estimate` by stage (``"test"``, ``"test_calibrated"``), then by registry name.
        reasons: Why something is missing, as sentences.
        classes: Estimates of the ECE of each class's probability, by label, at stage ``"test"``; none where it is not
            known.
    """

    stages: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    classes: Mapping[int, Estimate] = field(default_factory=dict)

    def get(self, metric: str, stage: str = "test") -> Estimate | None:
        """Return the estimate of ``metric`` at ``stage``, or None if it is unknown."""
        return self.stages.get(stage, {}).get(metric)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its folder and the entries of its ``metrics.json``; None where an entry is missing.

    Attributes:
        folder: The run folder.
        measured: ``{"val" | "test" | "test_calibrated": {metric: value}}``, fractions.
        notes: Warnings of the run, such as a calibrator that did not fit.
        made_by: Uncertainty method that made the run of other runs; None for a trained run.
        estimates: Intervals and noise floors of its metrics; None where they were not computed, see
            :func:`fedlas.lab.runs.intervals.with_estimates`.
    """

    folder: RunFolder
    recipe: str
    loss: str
    seed: int
    measured: Mapping[str, Mapping[str, float]]
    epochs: float | None = None
    best_epoch: float | None = None
    selected_by: str | None = None
    parameters: float | None = None
    seconds: float | None = None
    temperature: float | None = None
    temperature_ece: float | None = None
    notes: tuple[str, ...] = ()
    made_by: str | None = None
    estimates: RunEstimates | None = None

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """Path of the run folder."""
        return self.folder.path


NUMBERS = tuple(each.name for each in fields(FinishedRun) if each.type == "float | None")
"""Entries of ``metrics.json`` that are numbers or null, apart from metrics."""


@dataclass(frozen=True)
class Problem:
    """A run without metrics: the name of its folder, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """All runs of a bench folder, finished or not.

    Attributes:
        folder: The bench folder.
        runs: Finished runs, by method and then seed.
        failed: Runs that ended with an error, and its last line.
        unfinished: Names of runs that neither finished nor failed: still running, or killed.
        unreadable: Runs whose ``metrics.json`` cannot be used, and why.
    """

    folder: Path
    runs: tuple[FinishedRun, ...]
    failed: tuple[Problem, ...] = ()
    unfinished: tuple[str, ...] = ()
    unreadable: tuple[Problem, ...] = ()

    @cached_property
    def _by_method_and_seed(self) -> dict[tuple[str, int], FinishedRun]:
        return {(run.loss, run.seed): run for run in self.runs}

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Environments of all starts of the finished runs."""
        return [start for run in self.runs for start in run.folder.starts]

    @property
    def commands(self) -> list[str]:
        """Distinct commands that started the runs, in order of first use."""
        commands = [start.get("command") for start in self.starts]
        return list(
            dict.fromkeys(
                each.strip() for each in commands if isinstance(each, str) and each.strip()
            )
        )

    @property
    def environment(self) -> dict[str, list[str]]:
        """Distinct values of each environment entry over all starts, as text."""
        merged: dict[str, dict[str, None]] = {}
        for start in self.starts:
            for key, value in iter_leaves(start):
                if key != "command":
                    merged.setdefault(key, {})[_setting_text(value)] = None
        return {key: list(values) for key, values in merged.items()}

    @property
    def configurations(self) -> dict[str, tuple[str, str]]:
        """Name and ``config.yaml`` text of the first run of each method that has the file."""
        texts: dict[str, tuple[str, str]] = {}
        for run in self.runs:
            if (
                run.loss not in texts
                and (text := run.folder.text(run.folder.config_path)) is not None
            ):
                texts[run.loss] = (run.name, text.rstrip())
        return texts

    @property
    def history(self) -> dict[str, list[Mapping[str, Any]]]:
        """Log records of each method over all seeds, as :func:`fedlas.plots.training_curves` takes them."""
        lines: dict[str, list[Mapping[str, Any]]] = {method: [] for method in self.methods}
        for run in self.runs:
            lines[run.loss] += run.folder.log
        return lines

    @property
    def recipe(self) -> str:
        """Name of the recipe, the same for all runs."""
        return self.runs[0].recipe

    @cached_property
    def methods(self) -> list[str]:
        """Losses with a finished run, by year of their paper; unregistered losses last."""
        return list(dict.fromkeys(run.loss for run in self.runs))

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of the finished runs, ascending."""
        return sorted({run.seed for run in self.runs})

    @cached_property
    def derived(self) -> list[str]:
        """Methods made of other runs, such as ensembles."""
        return list(dict.fromkeys(run.loss for run in self.runs if run.made_by))

    @cached_property
    def common_seeds(self) -> list[int]:
        """Seeds that every trained method finished; if all methods are derived, seeds that each of them has."""
        derived = self.derived
        methods = [method for method in self.methods if method not in derived] or derived
        return [
            seed
            for seed in self.seeds
            if all((method, seed) in self._by_method_and_seed for method in methods)
        ]

    def incomplete_methods(self, metric: str, stage: str = "test") -> list[str]:
        """Return the derived methods without a value at some common seed, which are left out of tests."""
        common = set(self.common_seeds)

        def has_missing(method: str) -> bool:
            values = zip(self.seeds, self.values(method, metric, stage), strict=True)
            return any(math.isnan(value) for seed, value in values if seed in common)

        return [method for method in self.derived if has_missing(method)]

    @cached_property
    def tested_methods(self) -> list[str]:
        """Methods with a run at every common seed."""
        common = self.common_seeds
        return [
            method
            for method in self.methods
            if all((method, seed) in self._by_method_and_seed for seed in common)
        ]

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics that some run measured, in the order of the registry; unregistered ones last."""
        names = dict.fromkeys(
            m for run in self.runs for stage in STAGES for m in run.measured.get(stage, {})
        )
        return [m for m in METRICS if m in names] + [m for m in names if m not in METRICS]

    def run(self, method: str, seed: int) -> FinishedRun | None:
        """Return the finished run of a method and seed, or None."""
        return self._by_method_and_seed.get((method, seed))

    def values(self, method: str, metric: str, stage: str = "test") -> list[float]:
        """Return the values of a metric, one per entry of ``seeds``; NaN where a run or value is missing."""
        runs = (self._by_method_and_seed.get((method, seed)) for seed in self.seeds)
        return [
            math.nan if run is None else run.measured.get(stage, {}).get(metric, math.nan)
            for run in runs
        ]

    def estimates(
        self, method: str, metric: str, stage: str = "test", *, seeds: Sequence[int] | None = None
    ) -> list[Estimate]:
        """Return the estimates of a metric, one per run of ``method``; empty if any run lacks an estimate.

        Args:
            method: A loss.
            metric: Name of a metric.
            stage: ``test`` or ``test_calibrated``.
            seeds: Seeds of the runs; None is all.

        Returns:
            One estimate per run, or an empty list, since an average over some of the runs would be misleading.
        """
        runs = [
            run
            for seed in (self.seeds if seeds is None else seeds)
            if (run := self._by_method_and_seed.get((method, seed)))
            and metric in run.measured.get(stage, {})
        ]
        estimates = [
            each for run in runs if run.estimates and (each := run.estimates.get(metric, stage))
        ]
        return estimates if len(estimates) == len(runs) else []

    def compare(
        self, metric: str, stage: str = "test", *, higher: bool | None = None
    ) -> BestMethod | None:
        """Return the best method by ``metric`` over common seeds, and the methods indistinguishable from it.

        A method made of other runs is compared only if it has all common seeds.

        Args:
            metric: Name of a metric.
            stage: Key of ``measured``.
            higher: Whether higher is better, for a metric that is not registered.

        Returns:
            None if the metric is not registered (then the better direction is unknown), is not ranked, or has
            no values.
        """
        if higher is None:
            if not is_ranked(metric):
                return None
            higher = bool(METRICS[metric].higher_is_better)
        left_out = self.incomplete_methods(metric, stage)
        values = {
            method: self.values(method, metric, stage)
            for method in self.methods
            if method not in left_out
        }
        values = {method: v for method, v in values.items() if not all(map(math.isnan, v))}
        if not values:
            return None
        return compare_to_best(values, higher_is_better=higher, alpha=ALPHA)


def is_ranked(metric: str) -> bool:
    """Return whether a best method by ``metric`` is meaningful: it has a direction and involves no trade-off.

    Example:
        >>> [name for name in ("ece", "o_ece", "debiased_ece2", "mystery") if is_ranked(name)]
        ['ece']
    """
    if metric not in METRICS:
        return False
    return METRICS[metric].higher_is_better is not None and METRICS[metric].ranked


def _setting_text(value: object) -> str:
    words: dict[object, str] = {None: "unknown", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return value if isinstance(value, str) else json.dumps(value)
