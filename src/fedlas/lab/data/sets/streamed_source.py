"""Sources of large images on disk, with ImageNet's statistics."""

from __future__ import annotations

from pathlib import Path

from fedlas.lab.data.base import Source
from fedlas.lab.data.files import Files
from fedlas.lab.data.pipeline.view import View
from fedlas.lab.data.readers.class_folders import Listed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of ImageNet's training images in [0, 1] units, which pre-trained models expect."""


def streamed_source(
    name: str, folder: Path, parts: tuple[Listed, Listed], classes: tuple[str, ...], view: View, *, channels: int = 3
) -> Source:
    """A source of images on disk, with flips and ImageNet's statistics.

    Args:
        name: Registry name or path.
        folder: The paths are relative to it.
        parts: Images of the training and of the test part.
        classes: Class names.
        view: Resizing and cropping.
        channels: 3 for color, 1 for gray (with statistics 0.5 and 0.25).

    Raises:
        InputError: As :class:`Source`.
    """
    train, test = (
        Files.of(folder, [path for path, _ in part], [label for _, label in part], view, channels=channels)
        for part in parts
    )
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.25,))
    return Source(name, train, test, classes, flip=True, mean=mean, std=std)
