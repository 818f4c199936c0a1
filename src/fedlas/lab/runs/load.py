"""A trained run, back from its folder: model, loss and data as they were."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import is_file
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.claim import check_data, must_be_finished
from fedlas.lab.runs.data import data_fingerprint, prepare_data
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train import load_checkpoint
from fedlas.lab.train.restore import restore_module
from fedlas.objective import Objective


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: What it was.
        objective: Model and loss with the weights of the best epoch, in ``eval()``.
        splits: Its data, split as it was.
        metrics: Contents of its ``metrics.json``.
    """

    run: Run
    objective: Objective
    splits: Splits
    metrics: dict[str, Any]

    def to(self, device: torch.device | str) -> Trained:
        """The same with model and data on a device."""
        return replace(self, objective=self.objective.to(device), splits=self.splits.to(device))


def load_trained(folder: Path | RunFolder, *, data: str | None = None) -> Trained:
    """A finished run with its best weights.

    Args:
        folder: A run folder.
        data: Where its data is, unless ``folder`` says so; None looks where it was, then in the usual places.

    Raises:
        InputError: If it is no folder of a finished run, its files cannot be read, or the data is not what it was
            trained on.
    """
    folder = _opened(folder, data)
    metrics = must_be_finished("run", folder)
    folder = _with_data(folder)
    run = folder.run
    check_data(folder, data_fingerprint(run))
    splits = prepare_data(run)
    objective = build_objective(run, splits, pretrained=False)
    path = folder.checkpoint_path
    restore_module(objective, load_checkpoint(path, run.config())["best"]["objective"], path)
    return Trained(run, objective.eval(), splits, metrics)


def splits_at_hand(folder: Path | RunFolder, *, data: str | None = None) -> tuple[Splits | None, str]:
    """The data of a run, for what is better shown than not, such as images and names of classes.

    Args:
        folder: A run folder.
        data: As :func:`load_trained`.

    Returns:
        The splits, and why there are none: the data is not there, is not what the run was trained on, or cannot be
        read; the caller says if it shows less.
    """
    try:
        known = _with_data(_opened(folder, data))
        check_data(known, data_fingerprint(known.run))
        return prepare_data(known.run), ""
    except (InputError, MissingExtraError) as error:
        return None, str(error)
    except (KeyError, TypeError, AttributeError, OSError) as error:  # a configuration that somebody edited
        return None, f"its configuration cannot be read ({type(error).__name__}: {error})"


def _opened(folder: Path | RunFolder, data: str | None) -> RunFolder:
    if isinstance(folder, RunFolder):
        return folder if data is None else replace(folder, data_root=data)
    return RunFolder(folder, data_root=data)


def _with_data(folder: RunFolder) -> RunFolder:
    """The same folder with the place of its data: as told, else where it was, else in the usual places.

    A stranger's folder may name any place. What is there is used only if it has the fingerprint of the run's data.
    """
    kept = folder.kept_root if folder.data_root is None else None
    if kept is None or folder.data is None:
        return folder
    if os.path.isdir(kept) or is_file(Path(kept)):  # noqa: PTH112 - Path.is_dir raises where it may not search
        return replace(folder, data_root=kept)
    try:
        data_fingerprint(folder.run)
    except InputError as error:
        raise InputError(
            "run",
            "its data must be where it was trained on",
            f"{kept}, which does not exist",
            "Say where it is now: --data PATH, or data=PATH in Python.",
        ) from error
    return folder
