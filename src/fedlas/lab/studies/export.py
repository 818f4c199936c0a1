"""Exports the model of a finished run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fedlas
from fedlas._core.check import InputError
from fedlas._core.pixels import multiply_add
from fedlas.deploy.calibration import Calibration, fit_calibration
from fedlas.deploy.export import OWNER, Exported, export_model
from fedlas.lab.models import build_model
from fedlas.lab.runs.build import Trained, load_trained
from fedlas.lab.runs.data import as_tested
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.card import run_card
from fedlas.present.card import CalibrationCard
from fedlas.stats.estimates import REPLICATES


def export_run(
    folder: Path, out: Path, *, form: str, calibrate: str, data: str | None = None, replicates: int = REPLICATES
) -> tuple[str, Calibration, Exported, CalibrationCard]:
    """Write a run's model to a file, its calibration folded in, and make the card of that file.

    Args:
        folder: Folder of a finished run with validation and test predictions.
        out: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        calibrate: Calibrator to fold in or to put behind the model, fitted on the run's validation predictions.
        data: Where the run's data is; None searches the usual places.
        replicates: Of the intervals on the card; 0 computes none.

    Returns:
        Name of the run, its calibration, the file, and the card.

    Raises:
        InputError: As :func:`~fedlas.deploy.export.export_model`, or if the run, its predictions or its data cannot be
            used.
    """
    run = RunFolder(folder, data_root=data)
    trained = load_trained(run)
    if trained.run.recipe.model.bayesian is not None:
        fix = "Export a run without model.bayesian."
        raise InputError(OWNER, "the model must say the same each time", f"{run.path}, which draws weights", fix)
    calibration = fit_calibration(calibrate, run.predictions("val"))
    # The graph takes raw pixels, so the normalization goes into it.
    mean, std = _normalization(trained)
    exported = export_model(
        _plain_model(trained),
        out,
        form=form,
        calibration=calibration,
        mean=mean,
        std=std,
        images=partial(test_images, trained),
        expected=run.predictions("test"),
        build=build_model,
        about=_description(run, trained),
    )
    # The card describes the exported file, whose calibration may not be that of the run.
    classes = trained.splits.classes
    card = run_card(run, calibration, replicates=replicates, classes=classes, exported=exported.plain())
    return trained.run.name, calibration, exported, card


def test_images(trained: Trained) -> Iterator[Tensor]:
    """The test images as uint8 ``(n, channels, H, W)``, in the order of the predictions."""
    splits = trained.splits
    scale, shift = multiply_add(splits.mean, splits.std, channels=splits.in_channels, device=torch.device("cpu"))
    for images, *_ in splits.batches(splits.test, batch_size=trained.run.recipe.train.batch_size):
        yield ((images.cpu() - shift) / scale).round().clamp(0, 255).to(torch.uint8)


def _plain_model(trained: Trained) -> nn.Module:
    """The run's model built anew, so that it carries none of the hooks that a loss may have put into it."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(trained.run.recipe.model.name, **_shape(trained), **trained.run.recipe.model.options).eval()
    model.load_state_dict(trained.objective.model.state_dict())
    return model


def _description(folder: RunFolder, trained: Trained) -> dict[str, Any]:
    run, last = trained.run, folder.starts[-1] if folder.starts else {}
    return {
        "run": run.name,
        "recipe": run.recipe.name,
        "loss": run.loss,
        "seed": run.seed,
        **{key: last.get(key) for key in ("commit", "dirty")},
        "fedlas": fedlas.__version__,
        "classes": list(trained.splits.classes),
        "model": {"name": run.recipe.model.name, **_shape(trained), "options": dict(run.recipe.model.options)},
    }


def _shape(trained: Trained) -> dict[str, int]:
    splits = trained.splits
    return {"num_classes": splits.num_classes, "in_channels": splits.in_channels, "image_size": splits.image_size}


def _normalization(trained: Trained) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels, as the run's test images had them."""
    tested = as_tested(trained.run, trained.splits)
    return tested.mean, tested.std
