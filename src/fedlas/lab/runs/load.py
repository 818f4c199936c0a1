"""Loading of finished runs: the model with its best weights, and the data."""

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
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.begin import check_same_data, require_finished
from fedlas.lab.runs.data import data_fingerprint, prepare_data
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.train import build_objective, build_run_model
from fedlas.lab.train.checkpoint import load_checkpoint, restore_module
from fedlas.objective import Objective

ENCODER_VARIABLE = "FEDLAS_ENCODER"
"""Environment variable that names the one text encoder that a run folder may import."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run in memory: its model with the best weights, and its data.

    Attributes:
        run: The plan of the run.
        objective: Model and loss with the weights of the best epoch, in ``eval()``.
        splits: Data of the run, split as in training.
        metrics: Contents of its ``metrics.json``.
    """

    run: Run
    objective: Objective
    splits: Splits
    metrics: dict[str, Any]

    def to(self, device: torch.device | str) -> TrainedRun:
        """Return a copy with model and data on a device."""
        return replace(self, objective=self.objective.to(device), splits=self.splits.to(device))


def load_trained_run(folder: Path | RunFolder, *, data: str | None = None) -> TrainedRun:
    """Load a finished run with its best weights and its data.

    Args:
        folder: A run folder.
        data: Path of the data, unless ``folder`` has it; None tries the path at training, then the usual places.

    Raises:
        InputError: If the folder is not of a finished run, its files cannot be read, or the data differs from that of
            the training.
    """
    folder = _as_run_folder(folder, data)
    metrics = require_finished(folder)
    folder = _locate_data(folder)
    run = folder.run
    check_same_data(folder, data_fingerprint(run))
    splits = prepare_data(run)
    path = folder.checkpoint_path
    if is_file(path):  # else reading it says so
        _check_model_size(run, splits, path)
    objective = build_objective(run, splits, pretrained=False)
    restore_module(objective, load_checkpoint(path, run.config())["best"]["objective"], path)
    return TrainedRun(run, objective.eval(), splits, metrics)


def load_splits_if_available(
    folder: Path | RunFolder, *, data: str | None = None
) -> tuple[Splits | None, str]:
    """Return the data of a run, or None and the reason why it is not available.

    Args:
        folder: A run folder.
        data: As :func:`load_trained_run`.

    Returns:
        The splits and an empty string; or None and the reason: the data is missing, differs from the training data, or
        cannot be read.
    """
    try:
        opened = _locate_data(_as_run_folder(folder, data))
        check_same_data(opened, data_fingerprint(opened.run))
        return prepare_data(opened.run), ""
    except (InputError, MissingExtraError) as error:
        return None, str(error)
    except (KeyError, TypeError, AttributeError, OSError) as error:  # an edited configuration
        return None, f"its configuration cannot be read ({type(error).__name__}: {error})"


def _as_run_folder(folder: Path | RunFolder, data: str | None) -> RunFolder:
    if isinstance(folder, RunFolder):
        return folder if data is None else replace(folder, data_root=data)
    return RunFolder(folder, data_root=data)


def _check_encoder(run: Run) -> None:
    """Raise InputError if the configuration names a text encoder that the environment variable does not."""
    options = run.recipe.data.options
    encoder = options.get("encoder") or options.get("tokenizer")
    if encoder is not None and os.environ.get(ENCODER_VARIABLE) != encoder:
        raise InputError(
            f"{ENCODER_VARIABLE} must name the text encoder of the run, whose code is executed",
            f"{encoder} in {run.folder}",
            f"If you trust it, set {ENCODER_VARIABLE}={encoder}.",
        )


def _locate_data(folder: RunFolder) -> RunFolder:
    """Return the run folder with its data root: as given, else as saved, else None for the usual places."""
    # A stranger's folder may name any place: what is there must have the fingerprint of the run's data.
    if folder.config and not folder.is_derived:
        _check_encoder(folder.run)
    root = folder.saved_data_root if folder.data_root is None else None
    if root is None or folder.data is None:
        return folder
    if os.path.isdir(root) or is_file(Path(root)):  # noqa: PTH112 - Path.is_dir raises where it may not search
        return replace(folder, data_root=root)
    try:
        data_fingerprint(folder.run)
    except InputError as error:
        raise InputError(
            "the data of the run must be available",
            f"{root}, which does not exist",
            "Pass its path: --data PATH, or data=PATH in Python.",
        ) from error
    return folder


def _check_model_size(run: Run, splits: Splits, checkpoint: Path) -> None:
    """Raise InputError if the model is larger than its checkpoint: a stranger's file could exhaust the memory."""
    with torch.device("meta"):
        size = sum(
            each.numel() * each.element_size() for each in build_run_model(run, splits).parameters()
        )
    if size > checkpoint.stat().st_size:
        raise InputError(
            "the model must not be larger than its checkpoint",
            f"{size:,} bytes of weights for {checkpoint}",
            "Use the configuration that it was trained with.",
        )
