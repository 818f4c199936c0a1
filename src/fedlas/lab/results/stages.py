"""Test metrics of finished runs after calibrators that are fitted to the validation predictions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import file_digest, sha256
from typing import Any

import fedlas
from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import is_file, require_inside, write_json
from fedlas._core.progress import show_progress
from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.measure import default_metrics
from fedlas.lab.runs.summary import FinishedRun, RunEstimates, Summary
from fedlas.present.stages import SEED
from fedlas.stats import Estimate
from fedlas.stats.estimates import REPLICATES, metric_and_class_estimates

AUTO = "auto"
"""The calibrator of every report; also the key of its metrics in a run."""
RAW = "raw"
"""The name of predictions without a calibrator."""
STAGE_KEYS = {RAW: "test", "temperature": "test_calibrated"}
"""Keys in ``metrics.json`` of the stages that every run has."""


@dataclass
class CalibratedMetrics:
    """Test metrics of one run after one calibrator.

    Attributes:
        metrics: Test metrics by registry name.
        estimates: The estimate of its ECE, which has the noise floor.
        notes: Warnings of the fit.
        code: Digest of the file of an own calibrator; empty for those of the package, None where there is no file.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    estimates: dict[str, Estimate] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    code: str | None = ""


@dataclass
class _CalibratedFile:
    """Content of ``calibrated.json``: metrics by calibrator, and the digests and versions that they depend on."""

    val: str
    test: str
    num_bins: int
    fedlas: str = fedlas.__version__
    format: str = "fedlas.calibrated/1"
    after: dict[str, CalibratedMetrics] = field(default_factory=dict)


def check_calibrators(names: Sequence[str]) -> None:
    """Raise InputError if a name is neither a registered calibrator nor ``raw``."""
    for name in names:
        _ = name == RAW or CALIBRATORS[name]


def with_calibrators(summary: Summary, names: Sequence[str], *, required: bool = True) -> Summary:
    """Return the summary with the test metrics after each calibrator added to every run.

    Args:
        summary: The runs.
        names: Registered calibrators, or ``raw``.
        required: Raise where a run has no such metrics; else return the summary unchanged if it is a trained run.

    Raises:
        InputError: As :func:`calibrated_metrics`, or for an unknown calibrator.
    """
    check_calibrators(names)
    missing = [name for name in names if name not in STAGE_KEYS]
    if not missing:
        return summary
    runs = []
    with show_progress(", ".join(missing), len(summary.runs)) as advance:
        for run in summary.runs:
            try:
                run = _add_calibrated(run, calibrated_metrics(run, missing))
            except InputError:
                if required:
                    raise
                # Missing, damaged or unlabeled predictions: the report lists such runs elsewhere.
                if run.made_by is None:
                    return summary
            runs.append(run)
            advance(run.name, 1)
    return replace(summary, runs=tuple(runs))


def split_by_calibrator(
    summary: Summary, calibrators: Sequence[str], *, add_suffix: bool = True
) -> Summary:
    """Return a summary in which each pair of loss and calibrator is a method, such as ``ce@temperature``.

    Args:
        summary: The runs, as trained.
        calibrators: Registered calibrators, or ``raw``, whose methods have the names of the losses.
        add_suffix: Whether the name of the calibrator is appended to the name of the loss.

    Raises:
        InputError: As :func:`with_calibrators`.
    """
    runs = []
    every = with_calibrators(summary, calibrators).runs
    # All calibrators of a loss follow each other, and all seeds of a method.
    for loss in summary.methods:
        for name in calibrators:
            key = STAGE_KEYS.get(name, name)
            method = f"{loss}@{name}" if add_suffix and name != RAW else loss
            for run in every:
                if run.loss == loss:
                    all_estimates = run.estimates or RunEstimates()
                    stages = {"test": all_estimates.stages.get(key, {})}
                    measured = {"test": run.measured.get(key, {})}
                    estimates = replace(all_estimates, stages=stages)
                    runs.append(replace(run, loss=method, measured=measured, estimates=estimates))
    return replace(summary, runs=tuple(runs))


def calibrated_metrics(run: FinishedRun, names: Sequence[str]) -> dict[str, CalibratedMetrics]:
    """Return the test metrics after each calibrator, read from or added to the run's ``calibrated.json``.

    Args:
        run: The run.
        names: Registered calibrators.

    Raises:
        InputError: If a calibrator cannot be fitted, or the run has neither predictions nor the file.

    State:
        Keeps them in the run's ``calibrated.json``, where that can be written, until its predictions, the version of
        fedlas or the code of an own calibrator change. A pack has that file and no predictions.
    """
    folder = run.folder
    stored = _read_calibrated(folder)
    if not all(is_file(folder.part_path(part)) for part in ("val", "test")):
        if stored is None or not stored.after.keys() >= {*names}:
            raise InputError(
                "calibrators need the validation and test predictions of every run",
                f"none in {folder.path}",
                "Keep the predictions of the runs, or compare after temperature.",
            )
        return {name: stored.after[name] for name in names}
    current = _CalibratedFile(
        _hash_predictions(folder, "val"), _hash_predictions(folder, "test"), folder.num_bins
    )
    if stored is not None and replace(stored, after={}) == current:
        current = stored
    codes = {name: _hash_calibrator_code(name) for name in names}
    outdated = [n for n in names if n not in current.after or current.after[n].code != codes[n]]
    for name in outdated:
        try:
            current.after[name] = replace(_measure_calibrated(folder, name), code=codes[name])
        except InputError as error:
            expected, got, fix = error.parts
            raise InputError(f"{name} of {run.name}: {expected}", got, fix) from error
    if outdated:
        _write_calibrated(folder, current)
    return {name: current.after[name] for name in names}


def _add_calibrated(run: FinishedRun, after: Mapping[str, CalibratedMetrics]) -> FinishedRun:
    estimates = run.estimates or RunEstimates()
    stages = dict(estimates.stages)
    measured = dict(run.measured)
    notes = list(run.notes)
    for name, each in after.items():
        stages[name] = each.estimates
        measured[name] = each.metrics
        notes += [f"{name}: {note}" for note in each.notes if name != AUTO]
    estimates = replace(estimates, stages=stages)
    return replace(run, measured=measured, estimates=estimates, notes=tuple(notes))


def _measure_calibrated(folder: RunFolder, name: str) -> CalibratedMetrics:
    """Fit a calibrator and compute the test metrics after it."""
    entry = CALIBRATORS[name]
    val = folder.predictions(entry.metadata.get("part", "val"))
    test = folder.predictions("test")
    calibrator, notes = fit_with_notes(entry.value(), val, unlabeled=test)
    calibrated = calibrator.transform(test)
    options: dict[str, Any] = {"num_bins": folder.num_bins, "replicates": REPLICATES, "seed": SEED}
    table = (
        metric_and_class_estimates(calibrated, ["ece"], **options)[0]
        if test.num_samples > 1
        else {}
    )
    return CalibratedMetrics(default_metrics(calibrated, folder.num_bins), dict(table), notes)


def _hash_predictions(folder: RunFolder, part: str) -> str:
    with folder.part_path(part).open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def _hash_calibrator_code(name: str) -> str | None:
    kind = CALIBRATORS[name].value
    if kind.__module__.startswith("fedlas."):
        return ""
    try:
        return sha256(inspect.getsource(sys.modules[kind.__module__]).encode()).hexdigest()
    except (OSError, TypeError):  # typed into an interpreter
        return None


def _write_calibrated(folder: RunFolder, content: _CalibratedFile) -> None:
    """Write ``calibrated.json``, without calibrators whose code has no digest."""
    after = {name: each for name, each in content.after.items() if each.code is not None}
    plain = require("msgspec", extra="bench").to_builtins(replace(content, after=after))
    # read-only folders and infinite values: computed again each time
    with suppress(InputError, ValueError):
        # A run's folder may itself be a link that leads out of the bench.
        write_json(require_inside(folder.path.parent, folder.calibrated_path), plain)


def _read_calibrated(folder: RunFolder) -> _CalibratedFile | None:
    """Return the content of ``calibrated.json``, or None if it is missing or unusable."""
    msgspec = require("msgspec", extra="bench")
    try:
        text = folder.text(folder.calibrated_path)
        content: _CalibratedFile = msgspec.json.decode(text or "null", type=_CalibratedFile)
    except (OSError, ValueError, InputError, msgspec.MsgspecError):
        return None
    return content if content.format == _CalibratedFile.format else None
