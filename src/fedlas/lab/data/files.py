"""Images of one part on disk, read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.lab.data.pipeline.view import View
from fedlas.lab.data.readers.image_files import open_image
from fedlas.lab.data.shift import Corruption


@dataclass(frozen=True, eq=False)
class Files:
    """Image files and labels of one part; the counterpart of :class:`~fedlas.lab.data.Images` for large images.

    Args:
        folder: What the names are relative to.
        names: File names ``(N,)``, as bytes, which take a tenth of the memory of Python strings.
        target: Class of each image, ``(N,)`` int64, on the device of the batches.
        view: Resizing and cropping.
        channels: 3 for color, 1 for gray.
        corruption: Applied to each image after it is cropped; None for none.

    Raises:
        InputError: If names and target differ in length, or are empty.
    """

    folder: Path
    names: NDArray[np.bytes_]
    target: Tensor
    view: View
    channels: int = 3
    corruption: Corruption | None = None

    def __post_init__(self) -> None:
        if self.target.shape != (len(self.names),) or self.target.dtype != torch.int64 or not len(self.names):
            raise InputError(
                "Files",
                f"target must be int64 ({len(self.names)},) like the names, at least one",
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
        """``(channels, H, W)`` of an image after the crop."""
        return self.channels, self.view.crop, self.view.crop

    @property
    def label_probs(self) -> None:
        """None: true probabilities of photographs are unknown; :class:`~fedlas.lab.data.Images` may have them."""
        return None

    def path(self, row: int) -> Path:
        """Path of the image at a position."""
        return self.folder / os.fsdecode(bytes(self.names[row]))

    def open(self, row: int) -> Any:
        """The image at a position as a decoded PIL image, neither resized nor cropped.

        Raises:
            InputError: If it cannot be read; the message names the file.
        """
        return open_image("data", self.path(row), channels=self.channels, upright=self.view.upright)

    def image(self, row: int) -> Tensor:
        """One image, cropped as for testing and not normalized, uint8 ``(channels, H, W)``.

        Raises:
            InputError: If it cannot be read.
        """
        pixels = self.view.pipeline(augment=False, flip=False)(self.open(row))
        return pixels if self.corruption is None else self.corruption(pixels, row)

    def take(self, indices: Tensor) -> Files:
        """The files at ``indices`` (int64), in that order."""
        rows = indices.cpu()  # names are on the CPU, labels maybe not
        return replace(self, names=self.names[rows.numpy()], target=self.target[indices.to(self.target.device)])

    def to(self, device: torch.device | str) -> Files:
        """The same part with labels, and so batches, on ``device``."""
        return replace(self, target=self.target.to(device))

    def with_target(self, target: Tensor) -> Files:
        """The same files with other labels ``(N,)`` int64."""
        return replace(self, target=target)

    def sizes(self) -> NDArray[np.int64]:
        """Size of each file in bytes, ``(N,)``: it identifies a download without reading it.

        Raises:
            InputError: If a file is missing.
        """
        try:
            return np.array([self.path(row).stat().st_size for row in range(len(self))], dtype=np.int64)
        except OSError as error:
            raise InputError("data", "every image must be there", error, "Extract the archive again.") from error
