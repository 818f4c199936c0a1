"""The test images that a run was most over- and most under-confident of, where its data is at hand."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError, require
from fedlas.bench.load import load_plan
from fedlas.bench.results import FinishedRun
from fedlas.bench.run import data_fingerprint, prepare_data
from fedlas.bench.run_folder import check_data, read_config
from fedlas.data import Files, Splits
from fedlas.data.base import Part
from fedlas.data.pictures import open_picture
from fedlas.predictions import Predictions

_SHOWN = 12
_PIXELS = 96
"""Larger images are reduced to this, so that a page stays small."""


@dataclass(frozen=True)
class Case:
    """One test image.

    Attributes:
        index: Its position in the test set.
        image: PNG as a data URI; empty where the data is not at hand.
        target: Name of its class.
        predicted: Name of the predicted class.
        confidence: Of that, in percent.
    """

    index: int
    image: str
    target: str
    predicted: str
    confidence: str


@dataclass(frozen=True)
class Cases:
    """What a page shows of single samples.

    Attributes:
        over: Wrong predictions, the most confident first.
        under: Right predictions, the least confident first.
        classes: Names of the classes; numbers where they are not known.
        missing: Why there are no images; empty where there are.
    """

    over: tuple[Case, ...]
    under: tuple[Case, ...]
    classes: tuple[str, ...]
    missing: str = ""


def cases_of(run: FinishedRun, predictions: Predictions, *, data: str | None = None) -> Cases:
    """The samples with the largest signed gaps ``confidence - correct``, with their images if these can be had.

    Args:
        run: The run; one made of other runs shows the images of one that lies beside it.
        predictions: Its predictions on the test set.
        data: Where its data is; None searches the usual places.
    """
    splits, missing = _splits(run, data)
    if splits is not None:
        labels = splits.test.target.cpu()
        if len(splits.classes) != predictions.num_classes or not torch.equal(labels, predictions.target.cpu()):
            splits, missing = None, "the test set found is not the one that was predicted"
    classes = tuple(map(str, range(predictions.num_classes))) if splits is None else splits.classes
    confidence, correct = predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()

    def chosen(kind: Any, sign: float) -> tuple[Case, ...]:
        among = np.flatnonzero(kind)
        rows = among[np.argsort(sign * confidence[among], kind="stable")][:_SHOWN].tolist()
        images = [""] * len(rows) if splits is None or not rows else _images(splits, rows)
        return tuple(
            Case(
                row,
                image,
                classes[int(predictions.target[row])],
                classes[int(predictions.predicted[row])],
                f"{100 * confidence[row]:.1f}",
            )
            for row, image in zip(rows, images, strict=True)
        )

    return Cases(chosen(~correct, -1.0), chosen(correct, 1.0), classes, missing)


def _splits(run: FinishedRun, data: str | None) -> tuple[Splits | None, str]:
    """The run's data, or why it is not at hand."""
    try:
        planned = load_plan(_trained(run.path), data=data)
        check_data(planned.folder, data_fingerprint(planned))
        return prepare_data(planned), ""
    except (InputError, MissingExtraError) as error:
        return None, str(error)
    except (KeyError, TypeError, AttributeError, OSError) as error:  # a configuration that somebody edited
        return None, f"its configuration cannot be read ({type(error).__name__}: {error})"


def _trained(folder: Path) -> Path:
    """The folder itself, or of one of the runs that it is made of, where that lies beside it."""
    config = read_config(folder) or {}
    members = [folder.parent / str(name) for name in config.get("runs") or ()] if "uncertainty" in config else []
    return next((member for member in members if (member / "config.yaml").is_file()), folder)


def _images(splits: Splits, rows: list[int]) -> list[str]:
    return [_uri(image) for image in _pixels(splits.test.take(torch.tensor(rows)))]


def _pixels(part: Part) -> list[Tensor]:
    """Images of a part as the model sees them, ``(channels, H, W)`` uint8."""
    if not isinstance(part, Files):
        return list(part.images.cpu())
    view = part.view.pipeline(augment=False, flip=False)
    return [view(open_picture("report", part.path(row), channels=part.channels)) for row in range(len(part))]


def _uri(image: Tensor) -> str:
    """A PNG of ``(channels, H, W)`` uint8 as a data URI; of two or more than three channels the first."""
    pixels = (image if len(image) == 3 else image[:1]).permute(1, 2, 0).numpy()
    picture = require("PIL.Image", extra="data").fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
