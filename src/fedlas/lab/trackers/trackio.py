"""Trackio tracker: a database in ``$TRACKIO_DIR``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas.lab.trackers.base import EXTRA, FINAL, TRACKERS, Held, Place, Tracker, pixels_of


@TRACKERS.register("trackio", url="https://huggingface.co/docs/trackio")
class Trackio(Tracker):
    """Trackio: a database in ``$TRACKIO_DIR``, else in trackio's usual place.

    Args:
        project: Project; None is the recipe's name.
        space_id: Hugging Face Space to send to; None is ``$TRACKIO_SPACE_ID``, else a server at
            ``$TRACKIO_SERVER_URL``, else nowhere.

    Raises:
        MissingExtraError: If trackio is not installed.

    Note:
        A run is called ``RUN-ID``, because trackio identifies runs by name alone. It continues after its last epoch.
        Trackio's output goes to standard error.
    """

    def __init__(self, *, project: str | None = None, space_id: str | None = None) -> None:
        super().__init__(project=project)
        self.space_id = space_id
        with redirect_stdout(sys.stderr):
            require("trackio", extra=EXTRA)

    def open(self, place: Place) -> Held:
        """Begin a run, or continue the run of the same name."""
        project, name = self.project_of(place), f"{place.name}-{place.id}"
        storage = require("trackio.sqlite_storage", extra=EXTRA).SQLiteStorage
        # Only a local database can be asked what it holds.
        known = [] if self.space_id else storage.get_logs(project, name)
        self._tracker = require("accelerate.tracking", extra="bench").TrackioTracker(
            project,
            name=name,
            space_id=self.space_id,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        with redirect_stdout(sys.stderr):
            self._tracker.start()
        if not known:
            self._tracker.store_init_configuration(dict(place.config))
        # What the tracker already holds is not sent again when a run resumes.
        final = any(FINAL in entry for entry in known)
        return Held(epoch=max((int(entry["epoch"]) for entry in known if "epoch" in entry), default=0), final=final)

    def picture(self, name: str, figure: Any, epoch: int) -> None:
        """Show a ``matplotlib`` figure among the media."""
        self._tracker.log({name: require("trackio", extra=EXTRA).Image(pixels_of(figure))}, step=epoch)

    def close(self) -> None:
        """Write what is pending."""
        with redirect_stdout(sys.stderr):
            super().close()

    def where(self, folder: Path) -> str:  # noqa: ARG002 (trackio has its own folder)
        """The command that shows the runs."""
        return f"trackio show --project {self.project}" if self.project else "trackio show"
