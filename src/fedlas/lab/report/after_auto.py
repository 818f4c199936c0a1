"""Test metrics of finished runs after ``auto``, which is fitted on each run's validation predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import file_digest
from typing import Any

import fedlas
from fedlas._core.check import InputError
from fedlas._core.files import is_file, parse_json, path_inside, write_json
from fedlas._core.terminal import status
from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators.base import fit_with_notes
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.measure import recorded
from fedlas.lab.runs.summary import FinishedRun, Summary

AUTO = "auto"
"""The stage in addition to those of ``metrics.json``; also the calibrator's name."""
_FORMAT = "fedlas.auto/1"


def with_auto(summary: Summary) -> Summary:
    """Return the summary with metrics at the stage ``"auto"``; unchanged if a trained run lacks them and predictions.

    State:
        Keeps the metrics of each run in its ``auto.json``, where that can be written, until its predictions or the
        version of fedlas change.
        A pack has that file and no predictions.
    """
    runs = []
    with status() as show:
        for run in summary.runs:
            values = after_auto(run, show)
            if values is None and run.made_by is None:
                return summary
            runs.append(replace(run, measured={**run.measured, AUTO: values or {}}))
    return replace(summary, runs=tuple(runs))


def after_auto(
    run: FinishedRun, show: Callable[[str], None] = lambda _: None
) -> Mapping[str, float] | None:
    """Return metrics after auto, from the run's file or computed and kept there; None without file and predictions."""
    folder = run.folder
    about, metrics = _stored(folder)
    parts = {part: folder.part_path(part) for part in ("val", "test")}
    if not all(map(is_file, parts.values())):
        return metrics
    now = {"format": _FORMAT, "fedlas": fedlas.__version__, "num_bins": folder.num_bins}
    for part, file in parts.items():
        with file.open("rb") as content:
            now[part] = file_digest(content, "sha256").hexdigest()
    if about == now:
        return metrics
    show(f"{AUTO} of {run.name}")
    try:
        val, test = (folder.predictions(part) for part in parts)
        calibrator, _ = fit_with_notes(CALIBRATORS[AUTO].value(), val, unlabeled=test)
        values = recorded(calibrator.transform(test), folder.num_bins)
    except InputError:  # none, damaged or unlabeled ones: the report lists such runs elsewhere
        return None
    # read-only folders and infinite values: computed again each time
    with suppress(InputError, ValueError):
        # A run's folder may itself be a link that leads out of the bench.
        write_json(path_inside(folder.path.parent, folder.auto_path), {**now, "metrics": values})
    return values


def _stored(folder: RunFolder) -> tuple[Mapping[str, Any], Mapping[str, float] | None]:
    """Return the origin and the metrics in ``auto.json``; empty and None if it cannot be read."""
    try:
        content = parse_json(folder.text(folder.auto_path) or "{}")
        metrics = {str(name): float(value) for name, value in content.pop("metrics").items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return {}, None
    return (content, metrics) if content.get("format") == _FORMAT else ({}, None)
