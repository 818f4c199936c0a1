"""TensorBoard tracker: one folder of event files per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas._core.files import remove
from fedlas.lab.trackers.base import EXTRA, TRACKERS, Held, Place, Tracker


@TRACKERS.register("tensorboard", url="https://www.tensorflow.org/tensorboard")
class TensorBoard(Tracker):
    """TensorBoard: event files in ``.trackers/tensorboard/PROJECT/RUN``.

    Args:
        project: Folder of the runs; None is the recipe's name.

    Raises:
        MissingExtraError: If TensorBoard is not installed.

    Note:
        Event files cannot be continued after a kill, so every start writes them anew from the log.
    """

    def __init__(self, *, project: str | None = None) -> None:
        super().__init__(project=project)
        require("tensorboard", extra=EXTRA)

    def open(self, place: Place) -> Held:
        """Begin a run anew."""
        folder = place.folder / "tensorboard" / self.project_of(place)
        remove(folder / place.name, inside=place.folder.parent)
        trackers = require("accelerate.tracking", extra="bench")
        self._tracker = trackers.TensorBoardTracker(place.name, str(folder))
        self._tracker.start()
        self._tracker.store_init_configuration(dict(place.config))
        return Held()

    def picture(self, name: str, figure: Any, epoch: int) -> None:
        """Show a ``matplotlib`` figure among the images."""
        self._tracker.tracker.add_figure(name, figure, global_step=epoch, close=False)

    def where(self, folder: Path) -> str:
        """The command that starts TensorBoard."""
        return f"tensorboard --logdir {folder / 'tensorboard'}"
