"""Finished benches, read from their folders and calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.report.result import BenchResult
from fedlas.lab.results.result import build_result, with_failures
from fedlas.lab.results.stages import RAW, split_by_calibrator
from fedlas.lab.runs.collection import collect_runs
from fedlas.lab.runs.intervals import with_estimates
from fedlas.stats.estimates import REPLICATES


def read_bench_result(
    folders: Mapping[str, Path] | Sequence[Path],
    calibrators: Sequence[str] = (RAW,),
    *,
    name: str = "",
    with_calibrator_names: bool = True,
    kind: str = "data sets",
    replicates: int = REPLICATES,
    failures: Mapping[str, Mapping[str, str]] | None = None,
) -> BenchResult:
    """Return the result of finished benches side by side; predictions are calibrated, nothing is trained.

    Args:
        folders: Folders of benches; by name, or they have the names of their folders.
        calibrators: Registered calibrators, or ``raw``: each becomes a method of every loss.
        name: Name of the result; empty for the recipe, or the number of data sets.
        with_calibrator_names: Whether the names of methods include the calibrator.
        kind: Kind of the folders: data sets, or models.
        replicates: Replicates for noise floors as trained that the run folders lack; 0 computes none.
        failures: Reason of each run that failed in this process, by the name of its bench and its own.

    Raises:
        InputError: If a folder holds no finished run, a calibrator cannot be fitted, or no method is common to all.
    """
    if not isinstance(folders, Mapping):
        folders = {(path.name or path.resolve().name): path for path in folders}
    models = {}
    for key, folder in folders.items():
        summary = with_failures(collect_runs(folder), (failures or {}).get(key, {}))
        summary = with_estimates(summary, replicates=replicates)
        summary = split_by_calibrator(summary, calibrators, add_suffix=with_calibrator_names)
        models[key] = build_result(summary)
    several = (
        f"{len(models)} {kind}" if len(models) > 1 else next(iter(models.values())).summary.recipe
    )
    result = BenchResult(name or several, models, kind)
    if not result.methods:
        raise InputError(
            "the benches must have a method in common",
            "; ".join(f"{key}: {', '.join(model.methods)}" for key, model in models.items()),
            "Run the same losses in all of them.",
        )
    return result
