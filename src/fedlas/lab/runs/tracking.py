"""The trackers of one run: whatever the log says and they do not have yet is shown to them."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import path_inside, read_json, write_json
from fedlas._core.text import printable
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.trackers.base import Held, Place, Tracker, flat, trackers_of, values_of
from fedlas.plots import reliability_diagram
from fedlas.predictions import Predictions


class Tracking:
    """Shows a run to trackers while it trains, or afterward. A context manager.

    Args:
        run: The run; its folder holds the log.
        trackers: By name.

    Attributes:
        failed: Names of trackers that were given up.

    State:
        ``log.jsonl`` is the truth: a tracker is always shown the records that it lacks, so a run that was stopped, or
        was not tracked from the beginning, is shown whole and once. ``trackers.json`` in the run folder keeps the id
        under which the tools know it.

    Note:
        A tracker that fails (a full disk, a lost connection) is dropped with a warning; the run continues, and
        ``fedlas track`` shows it what it missed. One that cannot be opened is an error, before anything is trained.
    """

    def __init__(self, run: Run, trackers: Mapping[str, Tracker]) -> None:
        self.run, self.trackers = run, dict(trackers)
        self.failed: list[str] = []
        self._held: dict[str, Held] = {}

    def __enter__(self) -> Self:
        if not self.trackers:
            return self
        require("matplotlib.figure", extra="plots")  # the diagram at the end is drawn with it
        place = place_of(self.run)
        for name, tracker in self.trackers.items():
            try:
                self._held[name] = tracker.open(place)
            except Exception as error:
                self._close()
                raise InputError(
                    f"tracker {name}",
                    "it must open",
                    f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                    f"See the documentation of {name}, or train without it: the log has everything.",
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def epoch(self, _record: Mapping[str, Any] | None = None) -> None:
        """Show what the log has and a tracker lacks; called when an epoch was logged."""
        if not self._held:
            return
        log = RunFolder(self.run.folder).log
        for name, held in list(self._held.items()):
            for record in log[held.epoch :]:
                if not self._try(name, partial(self.trackers[name].log, values_of(record), record["epoch"])):
                    break
                self._held[name] = Held(record["epoch"], held.final)

    def final(self, metrics: Mapping[str, Any], test: Predictions | None) -> None:
        """Show the metrics of the finished run, and the reliability diagram of its test predictions."""
        self.epoch()
        shown = {key: metrics[key] for key in ("test", "test_calibrated", "temperature", "best_epoch", "seconds")}
        for name, held in list(self._held.items()):
            tracker = self.trackers[name]
            if held.final:
                continue
            # The values come last: a tracker that has them is taken to have everything.
            figure = None if test is None else _diagram(test, num_bins=self.run.recipe.train.num_bins)
            if figure is None or self._try(name, partial(tracker.picture, "reliability", figure, metrics["epochs"])):
                self._try(name, partial(tracker.log, values_of(shown), metrics["epochs"]))

    def _close(self) -> None:
        for name in list(self._held):
            self._try(name, self.trackers[name].close)
        self._held = {}

    def _try(self, name: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tool dies of, training must not
            del self._held[name]
            self.failed.append(name)
            with suppress(Exception):  # or the tool would take the next run of this process for the same one
                self.trackers[name].close()
            logging.getLogger("fedlas").warning(
                "tracker %s of %s failed and is given up: %s: %s. The run continues; 'fedlas track %s --to %s' shows "
                "it the rest.",
                *(printable(str(x)) for x in (name, self.run.name, type(error).__name__, error, self.run.folder, name)),
            )
            return False
        return True


def tracking_of(run: Run, accelerator: Any) -> Tracking:
    """The tracking that a run's recipe asks for; of several processes the main one alone does it."""
    return Tracking(run, trackers_of(run.recipe.trackers) if accelerator.is_main_process else {})


def place_of(run: Run) -> Place:
    """Where trackers put a run, under the id that it got the first time.

    Raises:
        InputError: If ``trackers.json`` is not readable, or the folder cannot be written to.
    """
    path = RunFolder(run.folder).trackers_path
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex[:12]})
    try:
        known = read_json(path)["id"]
        if not (isinstance(known, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", known)):  # it names files of tools
            raise ValueError(f"id {known!r:.80}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = "trackers.json must hold an id of letters, digits, _ and -"
        raise InputError("run", expected, f"{path} ({error})", "Remove it to be tracked as a new run.") from error
    folder = tracked_in(run.folder.parent)
    for inner in (folder, *folder.glob("*")):  # tools follow links, and a stranger's bench may have some
        path_inside(run.folder.parent, inner / "file")
    return Place(folder, run.recipe.name, run.name, known, flat(run.config()))


def tracked_in(bench: Path) -> Path:
    """Where trackers keep the files of all runs in a folder."""
    return bench / ".trackers"


def hints(options: Mapping[str, Mapping[str, Any]], bench: Path) -> Sequence[str]:
    """A line for each tracker that says how to look at what it holds of the runs in a folder."""
    return [f"{name}: {tracker.where(tracked_in(bench))}" for name, tracker in trackers_of(options).items()]


def _diagram(test: Predictions, *, num_bins: int) -> Any:
    figure = require("matplotlib.figure", extra="plots").Figure(figsize=(4.5, 4.5), layout="constrained")
    backend = require("matplotlib.backends.backend_agg", extra="plots")
    backend.FigureCanvasAgg(figure)  # no global state, no window; it can be drawn in a worker
    reliability_diagram(test, num_bins=num_bins, ax=figure.add_subplot())
    return figure
