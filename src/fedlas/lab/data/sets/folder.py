"""The user's own images in memory, one folder a class."""

from __future__ import annotations

from functools import partial

import torch

from fedlas._core.check import check_count, check_number
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.readers.class_folders import count_training, divided_images
from fedlas.lab.data.readers.image_files import check_channels, read_images

_LAYOUT = "Arrange the images as ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or as ROOT/CLASS/*."


@DATASETS.register(
    "folder",
    files="images in ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or in ROOT/CLASS/*",
    count=partial(count_training, "folder", others=["val", "test"], layout=_LAYOUT, deep=False),
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
    place, parts, classes = divided_images("folder", root, ["val", "test"], layout=_LAYOUT, deep=False)
    files = [place / name for part in parts for name, _ in part]
    target = torch.tensor([label for part in parts for _, label in part])
    images = torch.from_numpy(read_images("folder", files, image_size=image_size, channels=channels, max_gib=max_gib))
    border = len(parts[0])
    train, test = Images(images[:border], target[:border]), Images(images[border:], target[border:])
    return Source(f"folder {place}", train, test, classes)
