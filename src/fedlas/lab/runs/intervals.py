"""Intervals and noise floors of runs, computed once and cached as ``intervals.json`` in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import is_file, parse_json, path_inside, write_json
from fedlas._core.progress import steps
from fedlas._core.terminal import Console
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.summary import STAGES, FinishedRun, RunEstimates, Summary
from fedlas.predictions import Predictions
from fedlas.present.stages import SEED
from fedlas.stats.estimates import (
    CONFIDENCE_LEVEL,
    REPLICATES,
    Estimate,
    check_replicates,
    estimated,
    measurable,
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
        summary: From :func:`fedlas.lab.runs.collection.collect`.
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
    stored = {run.name: _stored(run) for run in summary.runs}
    todo = {
        run.name
        for run in summary.runs
        if replicates and _is_stale(run, stored[run.name], replicates)
    }
    runs = []
    total = sum(len(_stages(run)) for run in summary.runs if run.name in todo)
    with steps("intervals", total, on=console) as advance:
        for run in summary.runs:
            content = stored[run.name]
            unsaved: tuple[str, ...] = ()
            if run.name in todo:
                content = _computed(run, replicates, advance) or content
                unsaved = _save(run, content, summary.folder)
            checked = _checked(run, content, computed=replicates > 0)
            runs.append(
                replace(run, estimates=replace(checked, reasons=(*checked.reasons, *unsaved)))
            )
    return replace(summary, runs=tuple(runs))


def keep_estimates(run: FinishedRun, *, replicates: int = REPLICATES) -> None:
    """Compute the estimates of a run and write ``intervals.json``, unless the file is up to date."""
    if lacks_estimates(run, replicates=replicates):
        _save(run, _computed(run, replicates, lambda *_: None), run.path)


def lacks_estimates(run: FinishedRun, *, replicates: int = REPLICATES) -> bool:
    """Return whether a run has test predictions but no up-to-date ``intervals.json``."""
    return _is_stale(run, _stored(run), replicates)


def scaled(run: FinishedRun, predictions: Predictions) -> Predictions | None:
    """Return the predictions with logits divided by the run's temperature, or None if it has none."""
    if run.temperature is None or run.temperature <= 0:
        return None
    return predictions.with_logits(predictions.logits / run.temperature)


def failure_reasons(summary: Summary) -> list[str]:
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


def _stages(run: FinishedRun) -> list[str]:
    return [stage for stage in STAGES if run.measured.get(stage)]


def _stored(run: FinishedRun) -> dict[str, Any] | None:
    """Return the contents of ``intervals.json``, or None if the file is missing or unusable."""
    try:
        content = parse_json(run.folder.text(run.folder.intervals_path) or "null")
    except (OSError, ValueError):
        return None
    usable = isinstance(content, dict) and content.get("format") == FORMAT
    return content if usable and isinstance(content.get("stages"), dict) else None


def _about(run: FinishedRun, replicates: int) -> dict[str, Any]:
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
        content.get(key) != value for key, value in _about(run, replicates).items()
    ):
        return True
    stages = content["stages"]
    # Metrics that cannot be measured are listed in the file; otherwise they would be computed again each time.
    omitted = {
        stage: names
        for stage, names in _dict(content.get("left_out")).items()
        if isinstance(names, list)
    }
    stored = {
        stage: {*_dict(stages.get(stage)), *map(str, omitted.get(stage, []))} for stage in STAGES
    }
    return any(not stored[stage].issuperset(run.measured.get(stage, {})) for stage in STAGES)


def _computed(
    run: FinishedRun, replicates: int, advance: Callable[[str, float], None]
) -> dict[str, Any] | None:
    """Compute the contents of ``intervals.json``, or None if test predictions are unreadable or fewer than 2."""
    predictions = run.folder.test_predictions()
    if not isinstance(predictions, Predictions) or predictions.num_samples < 2:
        advance(run.name, len(_stages(run)))
        return None
    content = {
        **_about(run, replicates),
        "samples": predictions.num_samples,
        "left_out": {},
        "stages": {},
    }
    for stage, each in (("test", predictions), ("test_calibrated", scaled(run, predictions))):
        # A recorded metric may be one that this installation lacks, or that the saved predictions do not allow.
        recorded = list(run.measured.get(stage, {}))
        names = [] if each is None else measurable(recorded, each)
        estimates, classes = estimated(
            each or predictions,
            names,
            num_bins=run.folder.num_bins,
            replicates=replicates,
            by_class=stage == "test",
            seed=SEED,
            advance=partial(advance, run.name) if recorded else None,
        )
        content["left_out"][stage] = [name for name in recorded if name not in names]
        content["stages"][stage] = {name: estimate.plain() for name, estimate in estimates.items()}
        if stage == "test":
            content["classes"] = {
                str(label): estimate.plain() for label, estimate in classes.items()
            }
    return content


def _save(run: FinishedRun, content: dict[str, Any] | None, folder: Path) -> tuple[str, ...]:
    if content is None:
        return ()
    try:
        write_json(path_inside(folder, run.folder.intervals_path), content)
    except InputError:
        return (f"{FILE} cannot be written, so intervals are computed again each time",)
    except ValueError:
        return (f"an interval is not a finite number, so there is no {FILE}",)
    return ()


def _checked(
    run: FinishedRun, content: Mapping[str, Any] | None, *, computed: bool
) -> RunEstimates:
    """Return the stored estimates whose values agree with ``metrics.json``."""
    if content is None:
        predictions = run.folder.test_predictions()
        why = (
            predictions.partition(": ")[2]
            if isinstance(predictions, str)
            else "it has fewer than 2 test samples"
        )
        if isinstance(predictions, Predictions) and not computed:
            why = "replicates is 0"
        return RunEstimates(reasons=(f"no intervals: {why}, and there is no usable {FILE}",))
    stages: dict[str, dict[str, Estimate]] = {}
    apart: dict[str, None] = {}
    for stage in STAGES:
        recorded = run.measured.get(stage, {})
        stages[stage] = {}
        for name, estimate in _estimates(content["stages"].get(stage)).items():
            if name not in recorded:
                continue
            # A value that is not the recorded one means that predictions and metrics may be of different trainings.
            if abs(estimate.value - recorded[name]) > _TOLERANCE * max(1.0, abs(recorded[name])):
                apart[name] = None
            else:
                stages[stage][name] = estimate
    reasons = (
        [f"its predictions give other values than metrics.json for {', '.join(apart)}"]
        if apart
        else []
    )
    classes = {
        int(label): estimate for label, estimate in _estimates(content.get("classes")).items()
    }
    return RunEstimates(stages, tuple(reasons), classes)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _estimates(entries: object) -> dict[str, Estimate]:
    """Return the valid estimates in a section of the file, by name."""
    estimates = {}
    for name, entry in _dict(entries).items():
        with suppress(InputError):
            estimates[name] = Estimate.of(_dict(entry))
    return estimates
