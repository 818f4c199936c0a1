"""The user's images: arrays in one ``.npz`` file, or one folder a class, in memory or on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedlas._core.arrays import open_arrays
from fedlas._core.check import InputError, check_count, check_number, describe
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.class_folders import Listed, divided_images
from fedlas.lab.data.disk import check_channels, read_images, required_root, unreadable
from fedlas.lab.data.files import Files, View, with_view

_NEEDED = ("train_images", "train_target", "test_images", "test_target")
_RECIPE = (
    "Write it with numpy.savez(path, train_images=..., train_target=..., test_images=..., test_target=...): "
    "images uint8 (N, H, W, 3) or (N, H, W), targets whole numbers (N,)."
)


@DATASETS.register("npz", files="an .npz file with {train,test}_images and {train,test}_target")
def load_npz(root: str | None = None) -> Source:
    """Your own arrays: an .npz file with {train,test}_images and {train,test}_target.

    Args:
        root: Path of the file. Images are uint8 ``(N, H, W, channels)`` or gray ``(N, H, W)``, square; targets are
            whole numbers from 0 without gaps. An optional array ``classes`` of strings names the classes.

    Raises:
        InputError: If the file is missing, truncated, holds pickled objects or arrays of another shape or dtype.
    """
    return read_npz("npz", required_root(root, "an .npz file"))


def read_npz(name: str, path: Path) -> Source:
    """Return the source called ``name`` in the file ``path``; see :func:`load_npz`."""
    try:
        with open_arrays(path) as archive:
            missing = [key for key in _NEEDED if key not in archive]
            arrays: dict[str, np.ndarray] = (
                {} if missing else {key: archive[key] for key in _KEYS if key in archive}
            )
            names = archive.names
    except (OSError, ValueError) as error:
        fix = f"The file may be truncated, or hold pickled objects, which are refused. {_RECIPE}"
        raise unreadable("the file must be an .npz of plain arrays", path, error, fix) from error
    if missing:
        raise InputError(
            f"the file must hold {', '.join(_NEEDED)}", f"{path} with {names}", _RECIPE
        )
    train, test = (images_from_arrays(arrays, part) for part in ("train", "test"))
    classes = _class_names(arrays.get("classes"), int(train.target.max()) + 1)
    return Source(name, train, test, classes)


_KEYS = (*_NEEDED, "classes")


def images_from_arrays(arrays: dict[str, Any], part: str) -> Images:
    """Check ``{part}_images`` and ``{part}_target`` and return them with the channels second."""
    images = arrays[f"{part}_images"]
    target = arrays[f"{part}_target"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        expected = (
            f"{part}_images must be uint8 (N, H, W, channels) or (N, H, W) with at least one image"
        )
        raise InputError(
            expected, describe(images), "Scale to 0..255 and convert with .astype(numpy.uint8)."
        )
    # A second axis of at most 4 before a long last one is most likely the channels.
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise InputError(
            f"{part}_images must have the channels last",
            describe(images),
            "Use .transpose(0, 2, 3, 1).",
        )
    if target.shape != (len(images),) or target.dtype.kind not in "iu":
        expected = f"{part}_target must be whole numbers ({len(images)},) like the {len(images)} {part}_images"
        raise InputError(expected, describe(target), "Pass one class index per image.")
    stacked = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Images(
        torch.from_numpy(np.ascontiguousarray(stacked)), torch.from_numpy(target.astype(np.int64))
    )


def _class_names(names: np.ndarray | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(label) for label in range(count))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(
            "classes must be a one-dimensional array of strings",
            describe(names),
            "Or leave it out.",
        )
    return tuple(
        np.char.decode(names, "utf-8").tolist() if names.dtype.kind == "S" else names.tolist()
    )


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of ImageNet's training images in [0, 1] units, which pre-trained models expect."""
_LAYOUT = (
    "Arrange the images as ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or as ROOT/CLASS/*."
)


@DATASETS.register(
    "folder",
    files="images in ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val), or in ROOT/CLASS/*",
)
def load_folder(
    root: str | None = None,
    *,
    image_size: int | None = None,
    channels: int = 3,
    max_gib: float = 4.0,
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
    check_channels(channels)
    if image_size is not None:
        check_count("image_size", image_size)
    check_number("max_gib", max_gib, low=0, low_open=True)
    place, parts, classes = divided_images(root, layout=_LAYOUT, deep=False)
    files = [place / name for part in parts for name, _ in part]
    target = torch.tensor([label for part in parts for _, label in part])
    images = torch.from_numpy(
        read_images(files, image_size=image_size, channels=channels, max_gib=max_gib)
    )
    border = len(parts[0])
    train = Images(images[:border], target[:border])
    test = Images(images[border:], target[border:])
    return Source(f"folder {place}", train, test, classes)


@DATASETS.register(
    "image-folder",
    files="images in ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or in ROOT/CLASS/**",
)
@with_view(View(upright=True))
def load_image_folder(root: str | None = None, *, channels: int = 3, view: View) -> Source:
    """Your own large images, read when needed: ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or ROOT/CLASS/**.

    As in torchvision's ``ImageFolder``, classes are the names of the folders, sorted, and images may be in folders
    below them. EXIF rotation is applied. For small images the data set ``folder`` is faster: it reads them into memory.

    Args:
        root: The folder.
        view: Resizing and cropping; each field of :class:`~fedlas.lab.data.files.View` is an option.
        channels: 3 for color, 1 for gray.

    Returns:
        A source with flips and ImageNet's mean and standard deviation. The folders ``train`` and ``test`` are its
        parts; a folder ``val`` next to them joins the training part, from which the seed draws validation images. With
        ``train`` and ``val`` alone, ``val`` is the test part. Without them a stratified fifth is, the same for every
        seed.

    Raises:
        InputError: If folders or images are missing, there is only one class, or the parts have other classes.
    """
    check_channels(channels)
    place, parts, classes = divided_images(root, layout=_LAYOUT, deep=True)
    return streamed_source(f"image-folder {place}", place, parts, classes, view, channels=channels)


def streamed_source(
    name: str,
    folder: Path,
    parts: tuple[Listed, Listed],
    classes: tuple[str, ...],
    view: View,
    *,
    channels: int = 3,
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
        Files.of(
            folder,
            [path for path, _ in part],
            [label for _, label in part],
            view,
            channels=channels,
        )
        for part in parts
    )
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.25,))
    return Source(name, train, test, classes, flip=True, mean=mean, std=std)
