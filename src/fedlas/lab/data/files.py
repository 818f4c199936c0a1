"""Images of one part that stay on disk and are read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.lab.data.pipeline.view import View
from fedlas.lab.data.readers.image_files import open_picture
from fedlas.lab.data.shift import Corruption


@dataclass(frozen=True, eq=False)
class Files:
    """Image files and labels of one part; the counterpart of :class:`~fedlas.lab.data.Images` for large images.

    Args:
        folder: What the names are relative to.
        names: File names ``(N,)``, as bytes: a million of them take a tenth of what Python's strings do.
        target: Class of each image, ``(N,)`` int64.
        view: How a file becomes a square of one size.
        channels: 3 for colour, 1 for grey.
        device: Where batches go.
        corruption: Done to each image after it is cropped; None leaves it as it is.

    Raises:
        InputError: If names and target do not fit each other, or there are none.
    """

    folder: Path
    names: NDArray[np.bytes_]
    target: Tensor
    view: View
    channels: int = 3
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    corruption: Corruption | None = None

    def __post_init__(self) -> None:
        if self.target.shape != (len(self.names),) or self.target.dtype != torch.int64 or not len(self.names):
            raise InputError(
                "Files",
                f"target must be int64 ({len(self.names)},) like the names, of which there must be one at least",
                describe(self.target),
                "Pass one class index per file.",
            )

    @classmethod
    def of(cls, folder: Path, names: Sequence[str], target: Sequence[int], view: View, *, channels: int = 3) -> Files:
        """Files from plain lists."""
        encoded = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
        return cls(folder, encoded, torch.tensor(target, dtype=torch.int64), view, channels)

    def __len__(self) -> int:
        return int(self.target.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, H, W)`` of an image as the model gets it."""
        return self.channels, self.view.crop, self.view.crop

    @property
    def label_probs(self) -> None:
        """Never known for photographs; there because :class:`~fedlas.lab.data.Images` has it."""
        return None

    def path(self, row: int) -> Path:
        """Where the image at a position is."""
        return self.folder / os.fsdecode(bytes(self.names[row]))

    def open(self, row: int) -> Any:
        """The image file at a position as a PIL image, decoded, neither resized nor cropped.

        Raises:
            InputError: If it cannot be read; the file is named.
        """
        return open_picture("data", self.path(row), channels=self.channels, upright=self.view.upright)

    def image(self, row: int) -> Tensor:
        """One image as the model gets it in testing but for the normalisation, uint8 ``(channels, H, W)``.

        Raises:
            InputError: If it cannot be read.
        """
        pixels = self.view.pipeline(augment=False, flip=False)(self.open(row))
        return pixels if self.corruption is None else self.corruption(pixels, row)

    def take(self, indices: Tensor) -> Files:
        """The files at ``indices`` (int64), in that order."""
        rows = indices.cpu()
        return replace(self, names=self.names[rows.numpy()], target=self.target[indices.to(self.target.device)])

    def to(self, device: torch.device | str) -> Files:
        """The same part with labels, and later batches, on ``device``."""
        return replace(self, target=self.target.to(device), device=torch.device(device))

    def with_target(self, target: Tensor) -> Files:
        """The same files with other labels ``(N,)`` int64."""
        return replace(self, target=target)

    def sizes(self) -> NDArray[np.int64]:
        """Bytes in each file, ``(N,)``: what tells two downloads apart without reading them.

        Raises:
            InputError: If a file is gone.
        """
        try:
            return np.array([self.path(row).stat().st_size for row in range(len(self))], dtype=np.int64)
        except OSError as error:
            raise InputError("data", "every image must be there", error, "Extract the archive again.") from error
