"""The user's own large images on disk, one folder a class."""

from __future__ import annotations

from functools import partial

from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.pipeline.view import Interpolation, TrainCrop, View
from fedlas.lab.data.readers.class_folders import count_training, divided_images
from fedlas.lab.data.readers.image_files import check_channels
from fedlas.lab.data.sets.streamed_source import streamed_source

_LAYOUT = "Arrange the images as ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or as ROOT/CLASS/**."


@DATASETS.register(
    "image-folder",
    files="images in ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or in ROOT/CLASS/**",
    count=partial(count_training, "image-folder", others=["val", "test"], layout=_LAYOUT, deep=True),
)
def load_image_folder(
    root: str | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    train_crop: TrainCrop = "random-resized",
    squash: bool = False,
    min_area: float = 0.08,
    interpolation: Interpolation = "bilinear",
    channels: int = 3,
) -> Source:
    """Your own large images, read when needed: ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or ROOT/CLASS/**.

    As in torchvision's ``ImageFolder``, classes are the names of the folders, sorted, and images may be in folders
    below them. EXIF rotation is applied. For small images the data set ``folder`` is faster: it reads them into memory.

    Args:
        root: The folder.
        resize: Shorter side in pixels before a crop.
        crop: Height and width that the model gets.
        train_crop: ``random-resized``, ``random`` or ``center``; see :class:`~fedlas.lab.data.View`.
        squash: Resize to a square whatever the aspect ratio.
        min_area: Least share of the area that ``random-resized`` keeps.
        interpolation: ``bilinear`` or ``bicubic``.
        channels: 3 for color, 1 for gray.

    Returns:
        A source with flips and ImageNet's mean and standard deviation. The folders ``train`` and ``test`` are its
        parts; a folder ``val`` next to them joins the training part, from which the seed draws validation images. With
        ``train`` and ``val`` alone, ``val`` is the test part. Without them a stratified fifth is, the same for every
        seed.

    Raises:
        InputError: If folders or images are missing, there is only one class, or the parts have other classes.
    """
    check_channels("image-folder", channels)
    view = View(resize, crop, train_crop, squash, min_area, interpolation, upright=True)
    place, parts, classes = divided_images("image-folder", root, ["val", "test"], layout=_LAYOUT, deep=True)
    return streamed_source(f"image-folder {place}", place, parts, classes, view, channels=channels)
