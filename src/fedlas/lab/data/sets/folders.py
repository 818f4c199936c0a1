"""The user's own images, one folder a class: small ones in memory, large ones on disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from fedlas._core.check import check_count, check_number
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.files import Files
from fedlas.lab.data.pipeline.view import Interpolation, TrainCrop, View
from fedlas.lab.data.readers.class_folders import Listed, count_training, divided_images
from fedlas.lab.data.readers.image_files import check_channels, read_images

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of ImageNet's training images in [0, 1] units, which pre-trained models expect."""
_LAYOUT = "Arrange the images as ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or as ROOT/CLASS/*."


@DATASETS.register(
    "folder",
    files="images in ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or in ROOT/CLASS/*",
    count=partial(count_training, "folder", layout=_LAYOUT, deep=False),
)
def load_folder(
    root: str | None = None, *, image_size: int | None = None, channels: int = 3, max_gib: float = 4.0
) -> Source:
    """Your own images: ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or ROOT/CLASS/*.

    Files are read once into memory. Hidden files, files without an image suffix and folders below a class folder are
    skipped. EXIF rotation is applied. A folder ``val`` next to ``train`` and ``test`` joins the training part, from
    which the seed draws validation images; with ``train`` and ``val`` alone, ``val`` is the test part. Without these
    folders, a stratified fifth of the images, the same for every seed, becomes the test part.

    Args:
        root: The folder.
        image_size: Resize the shorter side to this many pixels and crop the center square. None: images stay unchanged
            and must all be square and of one size.
        channels: 3 for color, 1 for gray.
        max_gib: Most memory the images may take, in GiB.

    Returns:
        A source with the folder names, sorted, as classes. It has no flips and no crops unless you ask for them, since
        they may change the class of an image.

    Raises:
        InputError: If folders or images are missing, unreadable (the file is named), of different sizes, deeper than
            8 bits, or too large for ``max_gib``; if there is only one class; if train and test have other classes.
    """
    check_channels("folder", channels)
    if image_size is not None:
        check_count("folder", "image_size", image_size)
    check_number("folder", "max_gib", max_gib, low=0, low_open=True)
    place, parts, classes = divided_images("folder", root, layout=_LAYOUT, deep=False)
    files = [place / name for part in parts for name, _ in part]
    target = torch.tensor([label for part in parts for _, label in part])
    images = torch.from_numpy(read_images("folder", files, image_size=image_size, channels=channels, max_gib=max_gib))
    border = len(parts[0])
    train, test = Images(images[:border], target[:border]), Images(images[border:], target[border:])
    return Source(f"folder {place}", train, test, classes)


@DATASETS.register(
    "image-folder",
    files="images in ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or in ROOT/CLASS/**",
    count=partial(count_training, "image-folder", layout=_LAYOUT, deep=True),
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
    place, parts, classes = divided_images("image-folder", root, layout=_LAYOUT, deep=True)
    return streamed_source(f"image-folder {place}", place, parts, classes, view, channels=channels)


def streamed_source(
    name: str, folder: Path, parts: tuple[Listed, Listed], classes: tuple[str, ...], view: View, *, channels: int = 3
) -> Source:
    """Make a source of images on disk, with flips and ImageNet's statistics.

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
