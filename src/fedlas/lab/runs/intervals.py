"""Intervals and noise floors of runs, computed once and cached as ``intervals.json`` in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import is_file, parse_json, require_inside, write_json
from fedlas._core.progress import show_progress
from fedlas._core.terminal import Console
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.summary import STAGES, FinishedRun, RunEstimates, Summary
from fedlas.predictions import Predictions
from fedlas.present.stages import SEED
from fedlas.stats.estimates import (
    CONFIDENCE_LEVEL,
    REPLICATES,
    Estimate,
    available_metrics,
    check_replicates,
    metric_and_class_estimates,
)

FILE = RunFolder.intervals_path.name
FORMAT = 3
_TOLERANCE = 1e-4
"""Relative difference up to which a recomputed metric equals the recorded one; machines round differently."""


def with_estimates(
    summary: Summary, *, replicates: int = REPLICATES, console: Console | None = None
) -> Summary:
    """Return ``summary`` with the estimates of each run, read from or written to its ``intervals.json``.

    Args:
        summary: From :func:`fedlas.lab.runs.collection.collect_runs`.
        replicates: Bootstrap replicates of missing intervals; 0 computes none and only reads the files.
        console: A ``rich.console.Console`` for the progress bar; None makes one on standard error.

    Raises:
        InputError: If ``replicates`` is too small for an interval.

    State:
        Writes ``intervals.json`` into run folders that can be written to. An existing file is used as long as the
        predictions, the temperature, the bins and ``replicates`` are the same; without predictions it is always used,
        except for values that disagree with ``metrics.json``.
    """
    check_replicates(replicates)
    stored = {run.name: _read_intervals(run) for run in summary.runs}
    todo = {
        run.name
        for run in summary.runs
        if replicates and _is_stale(run, stored[run.name], replicates)
    }
    runs = []
    total = sum(len(_measured_stages(run)) for run in summary.runs if run.name in todo)
    with show_progress("intervals", total, on=console) as advance:
        for run in summary.runs:
            content = stored[run.name]
            unsaved: tuple[str, ...] = ()
            if run.name in todo:
                content = _compute_intervals(run, replicates, advance) or content
                unsaved = _save_intervals(run, content, summary.folder)
            checked = _consistent_estimates(run, content, computed=replicates > 0)
            runs.append(
                replace(run, estimates=replace(checked, reasons=(*checked.reasons, *unsaved)))
            )
    return replace(summary, runs=tuple(runs))


def save_missing_estimates(run: FinishedRun, *, replicates: int = REPLICATES) -> None:
    """Compute the estimates of a run and write ``intervals.json``, unless the file is up to date."""
    if has_stale_estimates(run, replicates=replicates):
        _save_intervals(run, _compute_intervals(run, replicates, lambda *_: None), run.path)


def has_stale_estimates(run: FinishedRun, *, replicates: int = REPLICATES) -> bool:
    """Return whether a run has test predictions but no up-to-date ``intervals.json``."""
    return _is_stale(run, _read_intervals(run), replicates)


def scale_by_temperature(run: FinishedRun, predictions: Predictions) -> Predictions | None:
    """Return the predictions with logits divided by the run's temperature, or None if it has none."""
    if run.temperature is None or run.temperature <= 0:
        return None
    return predictions.with_logits(predictions.tensors().logits / run.temperature)


def missing_interval_reasons(summary: Summary) -> list[str]:
    """Return the reasons why intervals are missing, each with the names of its runs."""
    about: dict[str, list[str]] = {}
    for run in summary.runs:
        for reason in run.estimates.reasons if run.estimates else ():
            about.setdefault(reason, []).append(run.name)
    more = {
        reason: [f"{len(names) - 6} more"] if len(names) > 6 else []
        for reason, names in about.items()
    }
    return [
        f"{', '.join([*names[:6], *more[reason]])}: {reason}" for reason, names in about.items()
    ]


def _measured_stages(run: FinishedRun) -> list[str]:
    return [stage for stage in STAGES if run.measured.get(stage)]


def _read_intervals(run: FinishedRun) -> dict[str, Any] | None:
    """Return the contents of ``intervals.json``, or None if the file is missing or unusable."""
    try:
        content = parse_json(run.folder.text(run.folder.intervals_path) or "null")
    except (OSError, ValueError):
        return None
    usable = isinstance(content, dict) and content.get("format") == FORMAT
    return content if usable and isinstance(content.get("stages"), dict) else None


def _cache_key(run: FinishedRun, replicates: int) -> dict[str, Any]:
    """Return the settings and fingerprints that the intervals depend on."""
    return {
        "format": FORMAT,
        "predictions": run.folder.fingerprint,
        "temperature": run.temperature,
        "num_bins": run.folder.num_bins,
        "level": CONFIDENCE_LEVEL,
        "replicates": replicates,
        "seed": SEED,
    }


def _is_stale(run: FinishedRun, content: Mapping[str, Any] | None, replicates: int) -> bool:
    if not is_file(run.folder.part_path("test")):
        return False
    # Intervals of other predictions, another temperature or another setting do not describe this run.
    if content is None or any(
        content.get(key) != value for key, value in _cache_key(run, replicates).items()
    ):
        return True
    stages = content["stages"]
    # Metrics that cannot be measured are listed in the file; otherwise they would be computed again each time.
    omitted = {
        stage: names
        for stage, names in _dict_or_empty(content.get("left_out")).items()
        if isinstance(names, list)
    }
    stored = {
        stage: {*_dict_or_empty(stages.get(stage)), *map(str, omitted.get(stage, []))}
        for stage in STAGES
    }
    return any(not stored[stage].issuperset(run.measured.get(stage, {})) for stage in STAGES)


def _compute_intervals(
    run: FinishedRun, replicates: int, advance: Callable[[str, float], None]
) -> dict[str, Any] | None:
    """Compute the contents of ``intervals.json``, or None if test predictions are unreadable or fewer than 2."""
    predictions = run.folder.test_predictions_or_reason()
    if not isinstance(predictions, Predictions) or predictions.num_samples < 2:
        advance(run.name, len(_measured_stages(run)))
        return None
    content = {
        **_cache_key(run, replicates),
        "samples": predictions.num_samples,
        "left_out": {},
        "stages": {},
    }
    for stage, each in (
        ("test", predictions),
        ("test_calibrated", scale_by_temperature(run, predictions)),
    ):
        # A recorded metric may be one that this installation lacks, or that the saved predictions do not allow.
        recorded = list(run.measured.get(stage, {}))
        names = [] if each is None else available_metrics(recorded, each)
        estimates, classes = metric_and_class_estimates(
            each or predictions,
            names,
            num_bins=run.folder.num_bins,
            replicates=replicates,
            by_class=stage == "test",
            seed=SEED,
            advance=partial(advance, run.name) if recorded else None,
        )
        content["left_out"][stage] = [name for name in recorded if name not in names]
        content["stages"][stage] = {
            name: estimate.to_dict() for name, estimate in estimates.items()
        }
        if stage == "test":
            content["classes"] = {
                str(label): estimate.to_dict() for label, estimate in classes.items()
            }
    return content


def _save_intervals(
    run: FinishedRun, content: dict[str, Any] | None, folder: Path
) -> tuple[str, ...]:
    if content is None:
        return ()
    try:
        write_json(require_inside(folder, run.folder.intervals_path), content)
    except InputError:
        return (f"{FILE} cannot be written, so intervals are computed again each time",)
    except ValueError:
        return (f"an interval is not a finite number, so there is no {FILE}",)
    return ()


def _consistent_estimates(
    run: FinishedRun, content: Mapping[str, Any] | None, *, computed: bool
) -> RunEstimates:
    """Return the stored estimates whose values agree with ``metrics.json``."""
    if content is None:
        predictions = run.folder.test_predictions_or_reason()
        reason = (
            predictions.partition(": ")[2]
            if isinstance(predictions, str)
            else "it has fewer than 2 test samples"
        )
        if isinstance(predictions, Predictions) and not computed:
            reason = "replicates is 0"
        return RunEstimates(reasons=(f"no intervals: {reason}, and there is no usable {FILE}",))
    stages: dict[str, dict[str, Estimate]] = {}
    disagreeing: dict[str, None] = {}
    for stage in STAGES:
        recorded = run.measured.get(stage, {})
        stages[stage] = {}
        for name, estimate in _parse_estimates(content["stages"].get(stage)).items():
            if name not in recorded:
                continue
            # A value that is not the recorded one means that predictions and metrics may be of different trainings.
            if abs(estimate.value - recorded[name]) > _TOLERANCE * max(1.0, abs(recorded[name])):
                disagreeing[name] = None
            else:
                stages[stage][name] = estimate
    reasons = (
        [f"its predictions give other values than metrics.json for {', '.join(disagreeing)}"]
        if disagreeing
        else []
    )
    classes = {
        int(label): estimate for label, estimate in _parse_estimates(content.get("classes")).items()
    }
    return RunEstimates(stages, tuple(reasons), classes)


def _dict_or_empty(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _parse_estimates(entries: object) -> dict[str, Estimate]:
    """Return the valid estimates in a section of the file, by name."""
    estimates = {}
    for name, entry in _dict_or_empty(entries).items():
        with suppress(InputError):
            estimates[name] = Estimate.from_dict(_dict_or_empty(entry))
    return estimates
