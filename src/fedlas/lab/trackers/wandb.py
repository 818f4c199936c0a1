"""Weights & Biases tracker: offline by default, for ``wandb sync`` to send."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from fedlas._core.check import check_choice
from fedlas._core.extras import require
from fedlas._core.files import remove
from fedlas.lab.trackers.base import EXTRA, FINAL, TRACKERS, Held, Place, Tracker, pixels_of

Mode = Literal["offline", "online", "disabled"]


@TRACKERS.register("wandb", url="https://docs.wandb.ai")
class WandB(Tracker):
    """Weights & Biases: offline runs in ``.trackers/wandb``, or online runs.

    Args:
        project: Project; None is the recipe's name.
        entity: User or team; None is your own user.
        mode: ``offline``, ``online`` or ``disabled``; None is ``$WANDB_MODE``, else ``offline``.
        tags: Tags of the runs.

    Raises:
        MissingExtraError: If wandb is not installed.
        InputError: For an unknown mode.

    Note:
        An offline run cannot be continued, so every start writes it anew from the log, under the same id. An online run
        continues after its last epoch.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        mode: Mode | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        super().__init__(project=project)
        self.mode = check_choice(
            "tracker wandb", "mode", mode or os.environ.get("WANDB_MODE", "offline"), get_args(Mode)
        )
        self.entity, self.tags = entity, list(tags)
        require("wandb", extra=EXTRA)

    def open(self, place: Place) -> Held:
        """Begin an offline run anew, or continue an online run."""
        place.folder.mkdir(parents=True, exist_ok=True)
        online = self.mode == "online"
        # An offline run cannot be resumed, so it is written anew from the log.
        if not online:
            for old in (place.folder / "wandb").glob(f"offline-run-*-{glob.escape(place.id)}"):
                remove(old, inside=place.folder.parent)
        self._tracker = require("accelerate.tracking", extra="bench").WandBTracker(
            self.project_of(place),
            entity=self.entity,
            mode=self.mode,
            tags=self.tags,
            dir=str(place.folder),
            id=place.id,
            name=place.name,
            resume="allow" if online else None,
            settings=require("wandb", extra=EXTRA).Settings(silent=True, console="off"),
        )
        self._tracker.start()
        self._tracker.store_init_configuration(dict(place.config))
        # The step before the first epoch holds the configuration.
        run = self._tracker.tracker
        if not (online and run.resumed):
            return Held()
        return Held(epoch=max(run.step - 1, 0), final=FINAL in run.summary)

    def picture(self, name: str, figure: Any, epoch: int) -> None:
        """Show a ``matplotlib`` figure among the media."""
        self._tracker.log({name: require("wandb", extra=EXTRA).Image(pixels_of(figure))}, step=epoch)

    def where(self, folder: Path) -> str:
        """The command that sends offline runs, or the mode of others."""
        if self.mode != "offline":
            return f"wandb, mode {self.mode}"
        return f"wandb sync {folder / 'wandb' / 'offline-run-*'}"
