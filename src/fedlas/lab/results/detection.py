"""OOD detection results of ``fedlas runs ood``, by loss and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from fedlas.lab.results.result import Result, build_result
from fedlas.lab.runs.summary import FinishedRun, RunEstimates, Summary
from fedlas.lab.studies.ood.measure import RunResult, ScoreSelection
from fedlas.stats import Estimate
from fedlas.zoo.ood import DETECTION

COMPARED_METRICS = ("auroc", "fpr95-in")
"""Metrics by which losses are compared."""
ScoreAndStage = tuple[str, str]
"""Score and stage."""


@dataclass(frozen=True)
class Detection:
    """OOD detection results of runs that differ in loss and seed only.

    Attributes:
        runs: The runs, by loss and then seed.
        chosen: Scores and options.
        replicates: Bootstrap replicates of each interval.
        skipped: A sentence for each folder that was left out, with the reason.
    """

    runs: Sequence[RunResult]
    chosen: ScoreSelection
    replicates: int
    skipped: Sequence[str] = ()

    @cached_property
    def result(self) -> Result:
        """The runs as a ``Result``, in which each combination of OOD data set, score and stage is one stage."""
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
        keys = [
            (metric, stage) for run in runs for stage in run.measured for metric in COMPARED_METRICS
        ]
        higher = {m: bool(DETECTION[m].metadata["higher_is_better"]) for m in COMPARED_METRICS}
        return build_result(Summary(Path(), tuple(runs)), keys, higher)

    @property
    def methods(self) -> list[str]:
        """Names of the losses."""
        return self.result.summary.methods

    @property
    def data(self) -> list[str]:
        """Labels of the OOD data sets."""
        return list(dict.fromkeys(label for run in self.runs for label in run.sets))

    @property
    def title(self) -> str:
        """Title of the report."""
        return f"OOD detection: {self.runs[0].data} vs {', '.join(self.data)}"

    def rank_scores(self, method: str, data: str) -> list[ScoreAndStage]:
        """Return the scores and their stages, sorted by mean AUROC on ``data``, best first."""
        rows = dict.fromkeys(
            (score, stage) for run in self.runs for _, score, stage in run.detected
        )

        def auroc(row: ScoreAndStage) -> float:
            values = self.result.values(method, "auroc", "/".join((data, *row)))
            return fmean(values) if values else 0.0

        return sorted(rows, key=lambda row: -auroc(row))
