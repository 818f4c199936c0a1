"""MLflow tracker: a database next to the runs, or the server at ``$MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas.lab.trackers.base import EXTRA, FINAL, TRACKERS, Held, Place, Tracker

_TAG = "fedlas.run"


@TRACKERS.register("mlflow", url="https://mlflow.org/docs/latest/ml/tracking")
class MLflow(Tracker):
    """MLflow: a database in ``.trackers/mlflow.db``, or a server.

    Args:
        project: Experiment; None is the recipe's name.
        tracking_uri: Server or database; None is ``$MLFLOW_TRACKING_URI``, else a SQLite database next to the runs.

    Raises:
        MissingExtraError: If MLflow is not installed.

    Note:
        A run is found by its tag ``fedlas.run``, and continues after its last epoch. MLflow's tracking address and
        active run belong to the process, so the program must not use MLflow for anything else at the same time.
    """

    def __init__(self, *, project: str | None = None, tracking_uri: str | None = None) -> None:
        super().__init__(project=project)
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        require("mlflow", extra=EXTRA)

    def open(self, place: Place) -> Held:
        """Begin a run, or continue the run of the same id."""
        mlflow, trackers = require("mlflow", extra=EXTRA), require("accelerate.tracking", extra="bench")
        place.folder.mkdir(parents=True, exist_ok=True)
        local = self.tracking_uri is None
        lock = require("filelock", extra="bench").FileLock(place.folder / ".mlflow.lock")
        # Without the lock, two workers that start together would both create the database and the experiment.
        with lock, _quietly():
            mlflow.set_tracking_uri(self._uri(place.folder))
            experiment = self.project_of(place)
            old = mlflow.search_runs(
                experiment_names=[experiment], filter_string=f"tags.`{_TAG}` = '{place.id}'", output_format="list"
            )
            self._tracker = trackers.MLflowTracker(
                experiment,
                logging_dir=(place.folder / "mlflow-artifacts").absolute().as_uri() if local else None,
                run_id=old[0].info.run_id if old else None,
                run_name=None if old else place.name,
                tags={_TAG: place.id},
            )
            self._tracker.start()
        # A run that MLflow knows already tells how far it was shown.
        if not old:
            self._tracker.store_init_configuration(dict(place.config))
            return Held()
        latest = old[0].data.metrics
        return Held(epoch=int(latest.get("epoch", 0)), final=FINAL in latest)

    def picture(self, name: str, figure: Any, epoch: int) -> None:
        """Save a ``matplotlib`` figure as an artifact."""
        self._tracker.log_figure(figure, f"{name}-{epoch}.png")

    def where(self, folder: Path) -> str:
        """The command that starts MLflow's server."""
        return f"mlflow ui --backend-store-uri {self._uri(folder)}"

    def _uri(self, folder: Path) -> str:
        return self.tracking_uri or f"sqlite:///{(folder / 'mlflow.db').absolute()}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the lines that MLflow and its tools log for every table they create."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
