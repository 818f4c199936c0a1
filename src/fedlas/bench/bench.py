"""Runs all runs of a plan, one after the other, and reports over them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas.bench.plan import Run
from fedlas.bench.run import build_objective, data_fingerprint, execute, prepare_data
from fedlas.bench.run_folder import BusyError, check_alike, check_claim, check_data, read_config
from fedlas.bench.uncertainty.comparable import is_derived
from fedlas.train import read_log
from fedlas.train.ranks import is_main_process


@dataclass
class Outcome:
    """What became of the runs of a bench, by run name.

    Attributes:
        finished: Runs that have metrics, those of earlier starts included.
        failed: Error of each run that failed.
        busy: Runs that another process is working on.
    """

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)


def run_all(runs: Sequence[Run], *, console: Any = None) -> Outcome:
    """Do every run that is not finished; one that fails is noted in its folder and does not stop the others.

    Args:
        runs: From :func:`fedlas.bench.plan`.
        console: ``rich.console.Console`` for a line a run; None makes one on standard error.

    Raises:
        InputError: Before any run starts: if a folder holds a run of another configuration or on other data, or data or
            model cannot be had.
    """
    console = console or require("rich.console", extra="bench").Console(stderr=True)
    outcome, started, trained = Outcome(), time.monotonic(), 0
    _check_folders(runs)
    todo = [run for run in runs if not (run.folder / "metrics.json").exists()]
    for run in todo[:1]:
        build_objective(run, prepare_data(run))
        for folder in _siblings(runs):
            check_data(folder, data_fingerprint(run))
    for number, run in enumerate(runs, start=1):
        label = f"[{number}/{len(runs)}] {run.name}"
        fresh, resumed = run in todo, len(read_log(run.folder / "log.jsonl"))
        if fresh and resumed:
            console.print(f"{label}  going on after epoch {resumed}", highlight=False, soft_wrap=True, markup=False)
        try:
            line = _line(execute(run, label=label))
        except BusyError as error:
            outcome.busy.append(run.name)
            console.print(f"{label}  skipped: {error}", highlight=False, soft_wrap=True, markup=False, style="yellow")
            continue
        except Exception as error:  # noqa: BLE001 - whatever one run dies of, the others must go on
            outcome.failed[run.name] = f"{type(error).__name__}: {error}"
            if is_main_process():
                _note_failure(run.folder, error)
            console.print(f"{label}  failed: {error}", highlight=False, soft_wrap=True, markup=False, style="red")
            continue
        outcome.finished.append(run.name)
        trained += fresh
        console.print(f"{label}  {line}", highlight=False, soft_wrap=True, markup=False, style=None if fresh else "dim")
        left = sum(other in todo for other in runs[number:])
        if fresh and left:
            seconds = (time.monotonic() - started) / trained * left
            console.print(f"  about {_duration(seconds)} for {left} more", style="dim", highlight=False, soft_wrap=True)
    return outcome


def _check_folders(runs: Sequence[Run]) -> None:
    """Refuse to put runs beside others that the report could not compare them with."""
    for run in runs:
        check_claim(run)
    planned = {run.folder for run in runs}
    others: list[tuple[str, dict[str, Any]]] = []
    for folder in _siblings(runs):
        if folder not in planned:
            with suppress(InputError):  # what cannot be read is no part of the report either
                config = read_config(folder) or {}
                others += [] if is_derived(config) else [(folder.name, config)]
    check_alike(
        "bench",
        [*((name, config) for name, config in others if config), *((run.name, run.config()) for run in runs)],
        "Use the old settings, or another --out for the new ones.",
    )


def _siblings(runs: Sequence[Run]) -> list[Path]:
    """The run folders of the bench, those of other losses and seeds included."""
    found = {path for run in runs for path in run.folder.parent.glob("*") if path.is_dir() and path.name[0] != "."}
    return sorted(found)


def _line(metrics: dict[str, Any]) -> str:
    test = metrics["test"]
    scaled = metrics["test_scaled"]["ece"]
    return (
        f"test accuracy {test['accuracy']:.2%}  ECE {test['ece']:.2%} "
        f"(after temperature {metrics['temperature']:.2f}: {scaled:.2%})  {metrics['seconds']:.0f} s"
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def _note_failure(folder: Path, error: Exception) -> None:
    try:
        write_text(folder / "error.txt", "".join(traceback.format_exception(error)))
    except InputError:
        return  # the folder itself is what failed: there is nowhere to note it but the outcome
