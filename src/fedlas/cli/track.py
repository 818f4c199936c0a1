"""``fedlas track``: shows runs to experiment trackers afterward, from their logs."""

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
from fedlas.cli.arguments import AddSubcommand
from fedlas.cli.bench_group import add_set
from fedlas.lab.recipes.recipe import parse_options
from fedlas.lab.runs.claim import finished
from fedlas.lab.runs.find import find_runs
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.tracking import Tracking, hints
from fedlas.lab.trackers.base import trackers_of


def add_track(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(lambda args: track(args.runs, to=args.to, options=args.set), "RUN [RUN ...]")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders of a bench")
    parser.add_argument(
        "--to",
        nargs="+",
        default=["tensorboard"],
        metavar="NAME",
        help="trackers, see 'fedlas list trackers' (default: tensorboard)",
    )
    add_set(parser, "NAME.KEY=VALUE", "set an option of a tracker, e.g. wandb.project=calibration")


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
    for bench in dict.fromkeys(run.path.parent for run in runs):
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


def _runs(folders: Sequence[Path]) -> list[RunFolder]:
    found, _ = find_runs("fedlas track", folders, _why_not, wanted="runs that were trained")
    runs = list({folder.path.resolve(): folder for folder in found if folder.run}.values())
    for folder in runs:
        if not folder.log:
            fix = "Leave it out, or train it."
            raise InputError("fedlas track", "a run must have logged an epoch", folder.path, fix)
    return runs


def _why_not(folder: RunFolder) -> str | None:
    """Why a run in a bench is not shown: it is no trained run."""
    if folder.config is None or folder.is_derived:
        return None
    finished(folder.run, folder)
    return ""


def _show(folder: RunFolder, chosen: dict[str, dict[str, Any]]) -> bool:
    """Show one run; whether every tracker took it."""
    run = replace(folder.run, folder=folder.path.absolute())
    metrics = finished(run, folder)
    tracking = Tracking(run, trackers_of(chosen))
    with tracking:
        tracking.epoch()
        if metrics is not None:
            tracking.final(metrics, folder.predictions("test") if is_file(folder.part_path("test")) else None)
    return not tracking.failed
