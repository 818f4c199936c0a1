"""``fedlas track``: shows runs to experiment trackers afterwards, from their logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import is_file
from fedlas._core.ranks import new_accelerator
from fedlas._core.terminal import say
from fedlas._core.terminal import track as tracked
from fedlas.lab.recipes.plan import Run
from fedlas.lab.recipes.recipe import parse_options
from fedlas.lab.runs.comparable import is_derived
from fedlas.lab.runs.folder import finished, leave_out, read_config, run_like
from fedlas.lab.runs.load import load_plan
from fedlas.lab.runs.tracking import Tracking, hints
from fedlas.lab.trackers.base import trackers_of
from fedlas.lab.train.log import read_log
from fedlas.predictions import Predictions


def track(folders: Sequence[Path], *, to: Sequence[str], options: Iterable[str] = ()) -> int:
    """Show runs to trackers: every epoch of their logs, and the metrics of the finished ones.

    Args:
        folders: Run folders, or folders of a bench.
        to: Names of trackers.
        options: Options of trackers, ``NAME.KEY=VALUE``.

    Returns:
        0, or 1 if a tracker failed (a warning says why).

    Raises:
        InputError: For an unknown tracker or option, a folder that is no run's and holds none, or a run without a log.
    """
    chosen = _chosen(to, options)
    trackers_of(chosen)  # nothing is begun if one of them cannot be
    runs = _runs(folders)
    new_accelerator()  # accelerate's trackers ask it which process they are in
    whole = True
    for run in tracked(runs, "showing runs"):
        whole &= _show(run, chosen)
    say(f"{len(runs)} runs shown")
    for bench in dict.fromkeys(run.folder.parent for run in runs):
        say(*hints(chosen, bench))
    return 0 if whole else 1


def _chosen(to: Sequence[str], options: Iterable[str]) -> dict[str, dict[str, Any]]:
    given = parse_options(options)
    for name, own in given.items():
        if name not in to or not isinstance(own, dict):
            raise InputError(
                "fedlas track",
                "options must be NAME.KEY=VALUE with the name of a tracker in --to",
                f"{name}={own}" if not isinstance(own, dict) else name,
                f"Write e.g. --set {to[0]}.project=NAME.",
            )
    return {name: given.get(name, {}) for name in to}


def _runs(folders: Sequence[Path]) -> list[Run]:
    found: list[Run] = []
    for folder in folders:
        trained: list[Run] = []
        if (folder / "config.yaml").exists():
            trained += [] if is_derived(read_config(folder) or {}) else [load_plan(folder)]
        else:
            for path in run_like(folder) if folder.is_dir() else ():
                try:
                    config = read_config(path)
                    if config is not None and not is_derived(config):
                        run = load_plan(path)
                        finished(run)
                        trained.append(run)
                except InputError as error:
                    leave_out(path.name, error)
        if not trained:
            raise InputError(
                "fedlas track", "a folder must be a run's, or hold runs", folder, "Pass one of fedlas train or bench."
            )
        found += trained
    for run in found:
        if not read_log(run.folder / "log.jsonl"):
            raise InputError(
                "fedlas track", "a run must have logged an epoch", run.folder, "Leave it out, or train it."
            )
    return list({run.folder.resolve(): run for run in found}.values())


def _show(run: Run, chosen: dict[str, dict[str, Any]]) -> bool:
    """Show one run; whether every tracker took it."""
    run = replace(run, folder=run.folder.absolute())
    metrics, test = finished(run), run.folder / "predictions" / "test.npz"
    tracking = Tracking(run, trackers_of(chosen))
    with tracking:
        tracking.epoch()
        if metrics is not None:
            tracking.final(metrics, Predictions.load(test) if is_file(test) else None)
    return not tracking.failed
