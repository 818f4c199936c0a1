"""Experiment trackers of accelerate (TensorBoard, Weights & Biases, MLflow and others) for the log of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedlas._core.check import InputError, check_choice, one_line_error
from fedlas._core.extras import MissingExtraError, require
from fedlas._core.files import remove, require_inside
from fedlas._core.text import printable
from fedlas.lab.train.log import LOG, iter_leaves, read_log

TRACKERS = {
    "aim": "",
    "clearml": "task_name",
    "comet_ml": "",
    "dvclive": "",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "tensorboard": "",
    "trackio": "name",
    "wandb": "name",
}
"""Accelerate's trackers, each with its option for the name of a run; without one the name is part of the project."""


def check_trackers(trackers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError if a tracker is unknown or not installed.

    Raises:
        InputError: For an unknown tracker or a missing package.
    """
    for name in trackers:
        check_choice("a tracker", name, list(TRACKERS))
        try:
            require(name, extra="trackers")
        except MissingExtraError as error:
            raise InputError(
                f"the package of the tracker {name} must be installed",
                "no such package",
                f"Run: pip install {name.replace('_', '-')}",
            ) from error


class Tracking:
    """Trackers that receive the log of a run. A context manager.

    Args:
        trackers: Options by tracker: ``project`` (the recipe's name by default), and options of the tool itself.
        folder: Folder of the run, which holds its log.
        project: Name that the runs of a recipe share.
        name: Name of the run.
        config: Resolved configuration of the run.

    State:
        Every start begins a new run in the tool, and shows the epochs of earlier starts first, from ``log.jsonl``.

    Note:
        A tracker that fails (a full disk, a lost connection) is dropped with a warning; the run continues. One that
        cannot be opened is an error, before anything is trained.
    """

    def __init__(
        self,
        trackers: Mapping[str, Mapping[str, Any]],
        folder: Path,
        *,
        project: str,
        name: str,
        config: Any,
    ) -> None:
        self.options = trackers
        self.folder = folder
        self.project = project
        self.name = name
        self.config = config
        self._trackers: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for name, options in self.options.items():
            try:
                self._trackers[name] = self._start(name, dict(options))
            except Exception as error:
                self._close()
                raise InputError(
                    f"the tracker {name} must start",
                    f"{type(error).__name__}: {one_line_error(error, 300)}",
                    f"See the documentation of {name}, or train without it; log.jsonl has all records.",
                ) from error
        for record in read_log(self.folder / LOG):
            self.epoch(record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Send the log record of an epoch to the trackers."""
        self._log(record, int(record["epoch"]))

    def final(self, metrics: Mapping[str, Any]) -> None:
        """Send the metrics of the finished run to the trackers."""
        values = {
            key: metrics[key] for key in ("test", "test_calibrated", "temperature", "best_epoch")
        }
        self._log(values, int(metrics["epochs"]))

    def _start(self, name: str, options: dict[str, Any]) -> Any:
        """Return a started tracker of accelerate."""
        kind = require("accelerate.tracking", extra="bench").LOGGER_TYPE_TO_CLASS[name]
        # tools allow no slash in it
        project = str(options.pop("project", self.project)).replace("/", "-")
        if TRACKERS[name]:
            options.setdefault(TRACKERS[name], self.name)
        else:
            project = f"{project}/{self.name}"
        if kind.requires_logging_directory:
            folder = self.folder.parent / ".trackers" / name
            require_inside(self.folder.parent, folder / project / "file")  # tools follow links
            remove(folder / project, inside=folder)  # the files of an earlier start
            tracker = kind(project, str(folder), **options)
        else:
            tracker = kind(project, **options)
        tracker.start()
        plain = {
            key: v if isinstance(v, bool | int | float | str) else str(v)
            for key, v in iter_leaves(self.config)
        }
        tracker.store_init_configuration(plain)
        return tracker

    def _log(self, record: Mapping[str, Any], step: int) -> None:
        for name, tracker in list(self._trackers.items()):
            self._drop_on_error(name, partial(tracker.log, tracked_values(record), step=step))

    def _close(self) -> None:
        for name, tracker in list(self._trackers.items()):
            self._drop_on_error(name, tracker.finish)
        self._trackers = {}

    def _drop_on_error(self, name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - training must survive the failure of a tool
            # or the tool would take the next run of this process for the same one
            with suppress(Exception):
                self._trackers.pop(name).finish()
            logging.getLogger("fedlas").warning(
                "tracker %s of %s failed and is dropped: %s: %s. The run continues; its log has everything.",
                *(printable(str(part)) for part in (name, self.name, type(error).__name__, error)),
            )


def tracked_values(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a log record under names such as ``val/ece``, and the number of alarms.

    Example:
        >>> tracked_values({"epoch": 2, "val": {"ece": 0.1, "mce": None}, "alarms": ["stuck"]})
        {'epoch': 2, 'val/ece': 0.1, 'alarms': 1}
    """
    numbers: dict[str, float] = {}
    for name, value in iter_leaves(record, "/"):
        if name == "alarms" and isinstance(value, list):
            numbers[name] = len(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0:
            numbers[name] = value
    return numbers
