"""Intervals and noise floors of a run, computed once and kept in its folder as ``intervals.json``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import is_file, write_json
from fedlas._core.terminal import Bar, say
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.summary import STAGES, FinishedRun, Summary
from fedlas.predictions import Predictions
from fedlas.stats.noise import (
    CONFIDENCE,
    REPLICATES,
    Noise,
    RunNoise,
    check_replicates,
    class_noise,
    is_unbiased,
    least_p_value,
    measurable,
    noise_of,
)

FILE = RunFolder.intervals_path.name
FORMAT = 2
"""Since 2 with ``least_p``, with centred intervals of unbiased metrics, and with intervals of calibration errors that
allow for a bias between none and the noise floor, and reach 0 unless the test at ``LEVEL`` (not half of it) rejects."""
_READABLE = (1, FORMAT)
SEED = 0
"""Of the replicates of every run: runs on the same test set are resampled alike."""
_TOLERANCE = 1e-4
"""Difference up to which a recomputed metric is the recorded one: another machine rounds otherwise."""
_QUIET = 10.0
"""Seconds between two lines where there is no terminal for a bar."""


def with_noise(summary: Summary, *, replicates: int = REPLICATES, console: Any = None) -> Summary:
    """``summary`` with the :class:`RunNoise` of each run, from its ``intervals.json`` or computed and kept there.

    Args:
        summary: From :func:`fedlas.lab.runs.collect.collect`.
        replicates: Of what must be computed; 0 computes nothing and takes what is there.
        console: A ``rich.console.Console`` for the progress bar; None makes one on standard error.

    Raises:
        InputError: If ``replicates`` is too small for an interval.

    State:
        Writes ``intervals.json`` into run folders that can be written to. One that is there is kept as long as the
        predictions, the temperature, the bins and ``replicates`` are the same; without predictions it is taken as it
        is, and what disagrees with ``metrics.json`` is left out.
    """
    check_replicates("intervals", replicates)
    stored = {run.name: _stored(run) for run in summary.runs}
    todo = [run for run in summary.runs if replicates and _is_stale(run, stored[run.name], replicates)]
    found: dict[str, RunNoise] = {}
    with noise_bar(sum(len(_wanted(run, stage)) for run in todo for stage in STAGES), console) as advance:
        for run in summary.runs:
            content = stored[run.name]
            unsaved: tuple[str, ...] = ()
            if run in todo:
                content = _computed(run, replicates, advance) or content
                unsaved = _kept(run, content)
            noise = _checked(run, content, asked=replicates > 0)
            found[run.name] = replace(noise, reasons=(*noise.reasons, *unsaved))
    return replace(summary, runs=tuple(replace(run, noise=found[run.name]) for run in summary.runs))


def noise_by_stage(
    stages: Mapping[str, Predictions],
    metrics: Sequence[str],
    *,
    num_bins: int,
    replicates: int,
    console: Any = None,
) -> dict[str, dict[str, Noise]]:
    """:class:`Noise` by stage, then by registry name, of predictions that belong to no run; with a progress bar.

    Args:
        stages: Predictions by stage.
        metrics: What to compute, where it can be.
        num_bins: Bins of the metrics that have any.
        replicates: 0 computes nothing; nor are intervals of a single sample.
        console: A ``rich.console.Console``; None makes one on standard error.
    """
    if not replicates:
        return {}
    wanted = {stage: measurable(metrics, each) if each.num_samples > 1 else [] for stage, each in stages.items()}
    found: dict[str, dict[str, Noise]] = {}
    with noise_bar(sum(map(len, wanted.values())), console) as advance:
        for stage, names in wanted.items():
            found[stage] = {}
            for name, noise in noise_of(stages[stage], names, num_bins=num_bins, replicates=replicates, seed=SEED):
                found[stage][name] = noise
                advance(stage, 1)
    return found


def scaled(run: FinishedRun, predictions: Predictions) -> Predictions | None:
    """Test predictions after the run's temperature; None if it has none."""
    if run.temperature is None or run.temperature <= 0:
        return None
    return predictions.with_logits(predictions.logits / run.temperature)


def reasons(summary: Summary) -> list[str]:
    """Why intervals are missing, each reason once with the runs that it is about."""
    about: dict[str, list[str]] = {}
    for run in summary.runs:
        for reason in run.noise.reasons if run.noise else ():
            about.setdefault(reason, []).append(run.name)
    return [f"{', '.join(_few(names))}: {reason}" for reason, names in about.items()]


def _few(names: list[str], most: int = 6) -> list[str]:
    return names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]


def _wanted(run: FinishedRun, stage: str) -> list[str]:
    return list(run.measured.get(stage, {}))


def _stored(run: FinishedRun) -> dict[str, Any] | None:
    """Contents of the file; None if there is none that can be used."""
    try:
        content = json.loads(run.folder.intervals_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    usable = isinstance(content, dict) and content.get("format") in _READABLE
    return content if usable and isinstance(content.get("stages"), dict) else None


def _about(run: FinishedRun, replicates: int) -> dict[str, Any]:
    """What the numbers in the file depend on."""
    return {
        "format": FORMAT,
        "predictions": run.folder.fingerprint,
        "temperature": run.temperature,
        "num_bins": run.folder.num_bins,
        "level": CONFIDENCE,
        "replicates": replicates,
        "seed": SEED,
    }


def _is_stale(run: FinishedRun, content: Mapping[str, Any] | None, replicates: int) -> bool:
    if not is_file(run.folder.part_path("test")):
        return False
    if content is None or any(content.get(key) != value for key, value in _about(run, replicates).items()):
        return True
    if "classes" not in content:
        return True
    stages = content["stages"]
    left_out = {stage: names for stage, names in _dict(content.get("left_out")).items() if isinstance(names, list)}
    known = {stage: {*_dict(stages.get(stage)), *map(str, left_out.get(stage, []))} for stage in STAGES}
    return any(not known[stage].issuperset(_wanted(run, stage)) for stage in STAGES)


def _computed(run: FinishedRun, replicates: int, advance: Callable[[str, int], None]) -> dict[str, Any] | None:
    """Contents of the file, freshly computed; None if the predictions cannot be read or are too few."""
    predictions = run.folder.test_predictions()
    total = sum(len(_wanted(run, stage)) for stage in STAGES)
    if not isinstance(predictions, Predictions) or predictions.num_samples < 2:
        advance(run.name, total)
        return None
    stages: dict[str, dict[str, Any]] = {}
    left_out: dict[str, list[str]] = {}
    for stage, each in (("test", predictions), ("test_scaled", scaled(run, predictions))):
        wanted = _wanted(run, stage)
        names = [] if each is None else measurable(wanted, each)
        left_out[stage] = [name for name in wanted if name not in names]
        advance(run.name, len(left_out[stage]))
        stages[stage] = {}
        if each is not None:
            for name, noise in noise_of(each, names, num_bins=run.folder.num_bins, replicates=replicates, seed=SEED):
                stages[stage][name] = noise.plain()
                advance(run.name, 1)
    classes = class_noise(predictions, num_bins=run.folder.num_bins, replicates=replicates, seed=SEED)
    return {
        **_about(run, replicates),
        "samples": predictions.num_samples,
        "left_out": left_out,
        "stages": stages,
        "classes": {str(label): noise.plain() for label, noise in classes.items()},
    }


def _kept(run: FinishedRun, content: dict[str, Any] | None) -> tuple[str, ...]:
    if content is None:
        return ()
    try:
        write_json(run.folder.intervals_path, content)
    except InputError:
        return (f"{FILE} cannot be written, so intervals are computed anew each time",)
    except ValueError:
        return (f"an interval is not a finite number, so there is no {FILE}",)
    return ()


def _checked(run: FinishedRun, content: Mapping[str, Any] | None, *, asked: bool) -> RunNoise:
    """What the file holds and ``metrics.json`` agrees with."""
    if content is None:
        predictions = run.folder.test_predictions()
        why = predictions.partition(": ")[2] if isinstance(predictions, str) else "it has fewer than 2 test samples"
        if isinstance(predictions, Predictions) and not asked:
            why = "none were computed, as no replicates were asked for"
        return RunNoise(reasons=(f"no intervals: {why}, and there is no usable {FILE}",))
    stages: dict[str, dict[str, Noise]] = {}
    apart: dict[str, None] = {}
    outdated: dict[str, None] = {}
    for stage in STAGES:
        kept = {name: _noise(name, entry) for name, entry in _dict(content["stages"].get(stage)).items()}
        if content["format"] != FORMAT:  # there are no predictions to compute it anew from
            outdated.update(dict.fromkeys(name for name in kept if is_unbiased(name)))
            kept = {name: noise for name, noise in kept.items() if name not in outdated}
        recorded = run.measured.get(stage, {})
        stages[stage] = {}
        for name, noise in kept.items():
            if noise is None or name not in recorded:
                continue
            if abs(noise.value - recorded[name]) > _TOLERANCE * max(1.0, abs(recorded[name])):
                apart[name] = None
            else:
                stages[stage][name] = noise
    reasons = [f"its predictions give other values than metrics.json for {', '.join(apart)}"] if apart else []
    if outdated:
        reasons.append(f"its {FILE} is of an earlier version, whose intervals of {', '.join(outdated)} are not used")
    classes = {int(label): _noise("classwise_ece", entry) for label, entry in _dict(content.get("classes")).items()}
    return RunNoise(stages, tuple(reasons), {label: noise for label, noise in classes.items() if noise is not None})


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _noise(metric: str, entry: object) -> Noise | None:
    """The entry of a file as :class:`Noise`; None if it is something else."""
    content = _dict(entry)
    numbers = {each.name: content.get(each.name) for each in fields(Noise)}
    for name, number in numbers.items():
        if number is None and name in ("floor", "p_value", "least_p"):
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            return None
    noise = Noise(**numbers)  # type: ignore[arg-type]  # just checked
    if noise.p_value is not None and noise.least_p is None:  # the first format did without
        noise = replace(noise, least_p=least_p_value(metric, noise.replicates))
    return noise


@contextmanager
def noise_bar(total: int, console: Any = None) -> Iterator[Callable[[str, int], None]]:
    """A function ``advance(name, steps)`` that moves a bar with the time left; plain lines where there is no terminal.

    Args:
        total: Steps in all; a bar of 0 is not shown.
        console: A ``rich.console.Console``; None makes one on standard error.
    """
    done, shown = 0, time.monotonic()

    def advance(name: str, steps: int) -> None:
        nonlocal done, shown
        done += steps
        bar.advance(steps)
        bar.update(text=name)
        if not bar.live and time.monotonic() - shown > _QUIET:
            shown = time.monotonic()
            say(f"intervals: {done} of {total}, {name}", on=bar.console)

    with Bar("intervals", total=total, on=console, quiet=total == 0) as bar:
        yield advance
