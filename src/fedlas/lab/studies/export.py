"""Files of a finished run for other users: its exported model and its calibration card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fedlas
from fedlas._core.check import InputError
from fedlas._core.pixels import normalization_scale_shift
from fedlas.deploy.calibration import Calibration, fit_calibration
from fedlas.deploy.exported import Exported
from fedlas.deploy.model_files import export_model
from fedlas.lab.models import build_model
from fedlas.lab.runs.collection import read_finished_run
from fedlas.lab.runs.data import with_test_normalization
from fedlas.lab.runs.folder import RunFolder, UnreadableError
from fedlas.lab.runs.load import TrainedRun, load_splits_if_available, load_trained_run
from fedlas.present.card import CalibrationCard, build_card
from fedlas.stats.estimates import REPLICATES
from fedlas.stats.selective_risk import DEFAULT_RISKS


def export_run(
    folder: Path,
    out: Path,
    *,
    form: str,
    calibrate: str,
    data: str | None = None,
    replicates: int = REPLICATES,
) -> tuple[str, Calibration, Exported, CalibrationCard]:
    """Export the calibrated model of a run to a file, and return the file with its calibration card.

    Args:
        folder: Folder of a finished run with validation and test predictions.
        out: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        calibrate: Calibrator to put behind the model, fitted on the run's validation predictions.
        data: Where the run's data is; None searches the usual places.
        replicates: Replicates of the intervals on the card; 0 computes none.

    Returns:
        Name of the run, its calibration, the file, and the card.

    Raises:
        InputError: As :func:`~fedlas.deploy.export_model`, or if the run, its predictions or its data cannot be
            used.
    """
    run = RunFolder(folder, data_root=data)
    trained = load_trained_run(run)
    if trained.run.recipe.model.bayesian is not None:
        raise InputError(
            "the model must be deterministic",
            f"{run.path}, which draws weights",
            "Export a run without model.bayesian.",
        )
    calibration = fit_calibration(calibrate, run.predictions("val"))
    # The graph takes raw pixels, so the normalization goes into it.
    tested = with_test_normalization(trained.run, trained.splits)
    exported = export_model(
        _model_without_hooks(trained),
        out,
        form=form,
        calibration=calibration,
        mean=tested.mean,
        std=tested.std,
        images=partial(iter_test_images, trained),
        expected=run.predictions("test"),
        about=_model_description(run, trained),
    )
    # The card describes the exported file, whose calibration may not be that of the run.
    classes = trained.splits.classes
    card = run_card(
        run, calibration, replicates=replicates, classes=classes, exported=exported.to_dict()
    )
    return trained.run.name, calibration, exported, card


def iter_test_images(trained: TrainedRun) -> Iterator[Tensor]:
    """Yield batches of the test images as uint8 ``(n, channels, H, W)``, in the order of the predictions."""
    splits = trained.splits
    scale, shift = normalization_scale_shift(
        splits.mean, splits.std, channels=splits.in_channels, device=torch.device("cpu")
    )
    for images, *_ in splits.batches(splits.test, batch_size=trained.run.recipe.train.batch_size):
        yield ((images.cpu() - shift) / scale).round().clamp(0, 255).to(torch.uint8)


def _model_without_hooks(trained: TrainedRun) -> nn.Module:
    """Return the run's model, rebuilt without the hooks that a loss may have added."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            trained.run.recipe.model.name,
            **_model_sizes(trained),
            **trained.run.recipe.model.options,
        ).eval()
    model.load_state_dict(trained.objective.model.state_dict())
    return model


def _model_description(folder: RunFolder, trained: TrainedRun) -> dict[str, Any]:
    run = trained.run
    last = folder.starts[-1] if folder.starts else {}
    return {
        "run": run.name,
        "recipe": run.recipe.name,
        "loss": run.loss,
        "seed": run.seed,
        **{key: last.get(key) for key in ("commit", "dirty")},
        "fedlas": fedlas.__version__,
        "classes": list(trained.splits.classes),
        "model": {
            "name": run.recipe.model.name,
            **_model_sizes(trained),
            "options": dict(run.recipe.model.options),
        },
    }


def _model_sizes(trained: TrainedRun) -> dict[str, int]:
    splits = trained.splits
    return {
        "num_classes": splits.num_classes,
        "in_channels": splits.in_channels,
        "image_size": splits.image_size,
    }


def fit_run_card(
    folder: Path, *, calibrate: str, data: str | None = None, **options: Any
) -> CalibrationCard:
    """Fit a calibrator to a finished run, and return the calibration card.

    Args:
        folder: The run folder.
        calibrate: Calibrator to fit to the run's validation predictions, or ``none``.
        data: Where its data is, for the names of its classes; None searches the usual places.
        **options: Options of :func:`run_card`.

    Raises:
        InputError: As :func:`run_card`, or for an unknown calibrator.
    """
    run = RunFolder(folder)
    calibration = fit_calibration(calibrate, run.predictions("val"))
    # Class names need the data set, which may be on another machine; the card can do without them.
    splits, _ = load_splits_if_available(folder, data=data)
    return run_card(run, calibration, classes=None if splits is None else splits.classes, **options)


def run_card(
    folder: RunFolder,
    calibration: Calibration,
    *,
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    exported: Mapping[str, Any] | None = None,
) -> CalibrationCard:
    """Return the calibration card of a finished run and its calibration.

    Args:
        folder: The run, with validation and test predictions.
        calibration: Fitted on its validation predictions.
        risks: Target risks, each in (0, 1).
        replicates: Replicates of intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        exported: The exported file that the card belongs to, and how it was checked.

    Raises:
        InputError: If the run is not finished, its files cannot be read, or an option is out of range.
    """
    try:
        run = read_finished_run(folder)
    except ValueError as error:
        raise InputError(
            "a card requires the folder of a finished run",
            f"{folder.path}: {error}",
            "Rerun its fedlas command: it resumes.",
        ) from error
    # The run's own files hold the card's facts about the model and its data.
    config = folder.config or {}
    last = folder.starts[-1] if folder.starts else {}
    return build_card(
        folder.predictions("val"),
        folder.predictions("test"),
        calibration,
        model={
            "run": run.name,
            **{
                key: getattr(run, key)
                for key in ("recipe", "loss", "seed", "parameters", "best_epoch", "selected_by")
            },
            "architecture": config.get("model"),
            **{key: last.get(key) for key in ("commit", "dirty", "fedlas")},
            "classes": list(classes) if classes is not None else None,
        },
        data={
            "name": (config.get("data") or {}).get("name"),
            "settings": config.get("data"),
            "fingerprint": folder.data or {},
            "samples": _split_sizes(folder),
        },
        num_bins=folder.num_bins,
        risks=risks,
        replicates=replicates,
        exported=exported,
    )


def _split_sizes(folder: RunFolder) -> dict[str, int]:
    """Return the number of samples of each part, or an empty dict if the split was not saved."""
    try:
        return {part: len(indices) for part, indices in folder.splits.items()}
    except UnreadableError:
        return {}
