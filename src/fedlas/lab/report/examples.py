"""The test images that a run was most over- and most under-confident of, where its data is available."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedlas.lab.report.thumbnails import thumbnail
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import splits_at_hand
from fedlas.lab.runs.summary import FinishedRun
from fedlas.predictions import Predictions

_SHOWN = 12


@dataclass(frozen=True)
class Case:
    """One test image.

    Attributes:
        index: Its position in the test set.
        image: PNG as a data URI; empty where the data is not available.
        target: Name of its class.
        predicted: Name of the predicted class.
        confidence: Of that, in percent.
    """

    index: int
    image: str
    target: str
    predicted: str
    confidence: str

    @property
    def head(self) -> str:
        """Predicted class and its confidence."""
        return f"{self.predicted} {self.confidence} %"

    @property
    def text(self) -> str:
        """The true class, where it is another."""
        return "" if self.target == self.predicted else f"is {self.target} ·"


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
    splits, missing = splits_at_hand(_trained(run.folder), data=data)
    if splits is not None:
        # Images beside the wrong predictions would mislead, so the labels must agree one by one.
        labels = splits.test.target.cpu()
        if len(splits.classes) != predictions.num_classes or not torch.equal(labels, predictions.target.cpu()):
            splits, missing = None, "the test set found is not the one that was predicted"
    classes = tuple(map(str, range(predictions.num_classes))) if splits is None else splits.classes
    confidence, correct = predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()

    def chosen(kind: Any, sign: float) -> tuple[Case, ...]:
        # A stable sort keeps equal confidences in the order of the data, so the page is the same each time.
        among = np.flatnonzero(kind)
        rows = among[np.argsort(sign * confidence[among], kind="stable")][:_SHOWN].tolist()
        images = [""] * len(rows) if splits is None else [thumbnail(splits.test, row) for row in rows]
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


def _trained(folder: RunFolder) -> RunFolder:
    """The folder itself, or of one of the runs that it is made of, where that lies beside it."""
    names = (folder.config or {}).get("runs") or () if folder.is_derived else ()
    members = [RunFolder(folder.path.parent / str(name)) for name in names]
    return next((member for member in members if member.config_path.is_file()), folder)
