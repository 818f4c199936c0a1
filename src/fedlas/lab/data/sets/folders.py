"""The user's images: arrays in an ``.npz`` file, or one folder per class, in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from fedlas._core.arrays import open_arrays
from fedlas._core.check import InputError, check_choice, check_count, check_number, describe
from fedlas._core.streams import Purpose, seeded_generator
from fedlas.lab.data.base import DATASETS, Images, Part, Source, require_condition
from fedlas.lab.data.class_folders import LabeledPaths, list_train_test_images
from fedlas.lab.data.disk import (
    check_channels,
    read_images,
    require_listed_files,
    require_root,
    unreadable_file_error,
)
from fedlas.lab.data.files import ImageFiles, View, add_view_options
from fedlas.lab.data.sets.tables import (
    TEST_FRACTION,
    encode_labels,
    read_arrow_table,
    require_column,
)
from fedlas.lab.data.splits import hold_out

_REQUIRED_ARRAYS = ("train_images", "train_target", "test_images", "test_target")
_VAL_ARRAYS = ("val_images", "val_target")
_NPZ_INSTRUCTIONS = (
    "Write it with numpy.savez(path, train_images=..., train_target=..., test_images=..., test_target=...): "
    "images (N, H, W, 3), (N, 3, H, W) or (N, H, W), or rows of features (N, D); targets whole numbers (N,). "
    "data.arrays={train_images: NAME, ...} names other arrays."
)
Channels = Literal["auto", "last", "first"]


@DATASETS.register("npz", files="an .npz file with {train,test}_images and {train,test}_target")
def load_npz(
    root: str | None = None,
    *,
    arrays: Mapping[str, str] | None = None,
    channels: Channels = "auto",
) -> Source:
    """Your own arrays: an .npz file with {train,test}_images and {train,test}_target.

    Args:
        root: Path of the file. Images are square, ``(N, H, W)`` or with channels; uint8 or, in any other numbers, as
            they are. Arrays ``(N, D)`` are rows of features. Targets are whole numbers from 0 without gaps. Arrays
            ``val_images`` and ``val_target`` are the validation part; ``classes``, strings, names the classes.
        arrays: Other names in the file, such as ``{train_images: X_train, train_target: y_train}``.
        channels: Axis of the channels: ``last``, ``first``, or ``auto``, first where the second axis has at most 4
            entries and the last more.

    Raises:
        InputError: If the file is missing, truncated, holds pickled objects or arrays of another shape or dtype.
    """
    check_choice("channels", channels, get_args(Channels))
    array_names = {} if arrays is None else arrays
    require_condition(
        isinstance(array_names, Mapping),
        "data.arrays must map array names to names in the file",
        describe(array_names),
        "Write e.g. {train_images: X_train}.",
    )
    for key in array_names:
        check_choice("data.arrays", key, _ARRAY_KEYS)
    return read_npz("npz", require_root(root, "an .npz file"), array_names, channels)


def read_npz(
    name: str, path: Path, array_names: Mapping[str, str] | None = None, channels: str = "auto"
) -> Source:
    """Return a source from the arrays in an ``.npz`` file; see :func:`load_npz`."""
    names_in_file = {key: str((array_names or {}).get(key, key)) for key in _ARRAY_KEYS}
    try:
        with open_arrays(path) as archive:
            missing = [
                names_in_file[key] for key in _REQUIRED_ARRAYS if names_in_file[key] not in archive
            ]
            arrays: dict[str, np.ndarray] = (
                {}
                if missing
                else {
                    key: archive[place] for key, place in names_in_file.items() if place in archive
                }
            )
            names = archive.names
    except (OSError, ValueError) as error:
        raise unreadable_file_error(
            "the file must be an .npz of plain arrays",
            path,
            error,
            f"The file may be truncated, or hold pickled objects, which are refused. {_NPZ_INSTRUCTIONS}",
        ) from error
    if missing:
        raise InputError(
            f"the file must hold {', '.join(names_in_file[key] for key in _REQUIRED_ARRAYS)}",
            f"{path} with {names}",
            _NPZ_INSTRUCTIONS,
        )
    part_names = ["train", "test", *(["val"] if arrays.keys() >= {*_VAL_ARRAYS} else [])]
    parts: dict[str, Part] = {
        part: images_from_arrays(arrays, part, channels) for part in part_names
    }
    classes = _read_class_names(arrays.get("classes"), int(parts["train"].target.max()) + 1)
    return Source(name, parts["train"], parts["test"], classes, val=parts.get("val"))


_ARRAY_KEYS = (*_REQUIRED_ARRAYS, *_VAL_ARRAYS, "classes")


def images_from_arrays(arrays: dict[str, Any], part: str, channels: str = "auto") -> Images:
    """Return a part from ``{part}_images`` and ``{part}_target``, checked and with channels second."""
    images = arrays[f"{part}_images"]
    target = arrays[f"{part}_target"]
    if images.dtype.kind not in "buif" or images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise InputError(
            f"{part}_images must be numbers (N, D), (N, H, W) or (N, H, W, channels), at least one image",
            describe(images),
            "Convert them.",
        )
    if images.dtype != np.uint8 or images.ndim == 2:
        images = images.astype(np.float32)
    if target.shape != (len(images),) or target.dtype.kind not in "iu":
        raise InputError(
            f"{part}_target must be whole numbers ({len(images)},) like the {len(images)} {part}_images",
            describe(target),
            "Pass one class index per image.",
        )
    # A second axis of at most 4 before a long last one is most likely the channels.
    looks_channels_first = images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]
    channels_first = looks_channels_first if channels == "auto" else channels == "first"
    with_channels = images[:, None] if images.ndim == 3 else images
    if images.ndim == 4 and not channels_first:
        with_channels = images.transpose(0, 3, 1, 2)
    return Images(
        torch.from_numpy(np.ascontiguousarray(with_channels)),
        torch.from_numpy(target.astype(np.int64)),
    )


def _read_class_names(names: np.ndarray | None, count: int) -> tuple[str, ...]:
    """Return the class names in an array, or the class indices as names if there is none."""
    if names is None:
        return tuple(str(label) for label in range(count))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(
            "classes must be a one-dimensional array of strings",
            describe(names),
            "Convert it, or leave it out.",
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
    val_from_train: bool = True,
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
        val_from_train: Whether the seed draws validation images from the training part; false uses the folder ``val``
            in their place, and ``val_size`` not at all.

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
    place, labeled_paths, classes = list_train_test_images(
        root, layout=_LAYOUT, recursive=False, val_from_train=val_from_train
    )
    parts = read_images_by_part(
        place, labeled_paths, image_size=image_size, channels=channels, max_gib=max_gib
    )
    return Source(f"folder {place}", parts["train"], parts["test"], classes, val=parts.get("val"))


def read_images_by_part(
    folder: Path, parts: Mapping[str, LabeledPaths], **options: Any
) -> dict[str, Images]:
    """Read the images of all parts into memory; ``options`` are passed to ``read_images``."""
    listed = [image for part in parts.values() for image in part]
    images = torch.from_numpy(read_images([folder / name for name, _ in listed], **options))
    target = torch.tensor([label for _, label in listed])
    sizes = [len(part) for part in parts.values()]
    return dict(zip(parts, map(Images, images.split(sizes), target.split(sizes)), strict=True))


@DATASETS.register(
    "image-folder",
    files="images in ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or in ROOT/CLASS/**",
)
@add_view_options(View(upright=True))
def load_image_folder(
    root: str | None = None, *, channels: int = 3, val_from_train: bool = True, view: View
) -> Source:
    """Your own large images, read when needed: ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or ROOT/CLASS/**.

    As in torchvision's ``ImageFolder``, classes are the names of the folders, sorted, and images may be in folders
    below them. EXIF rotation is applied. For small images the data set ``folder`` is faster: it reads them into memory.

    Args:
        root: The folder.
        view: Resizing and cropping; each field of :class:`~fedlas.lab.data.files.View` is an option.
        channels: 3 for color, 1 for gray.
        val_from_train: As for ``folder``.

    Returns:
        A source with flips and ImageNet's mean and standard deviation. The folders ``train`` and ``test`` are its
        parts; a folder ``val`` next to them joins the training part, from which the seed draws validation images. With
        ``train`` and ``val`` alone, ``val`` is the test part. Without them a stratified fifth is, the same for every
        seed.

    Raises:
        InputError: If folders or images are missing, there is only one class, or the parts have other classes.
    """
    check_channels(channels)
    place, parts, classes = list_train_test_images(
        root, layout=_LAYOUT, recursive=True, val_from_train=val_from_train
    )
    return streamed_source(f"image-folder {place}", place, parts, classes, view, channels=channels)


def streamed_source(
    name: str,
    folder: Path,
    parts: Mapping[str, LabeledPaths],
    classes: tuple[str, ...],
    view: View,
    *,
    channels: int = 3,
) -> Source:
    """Return a source of images on disk, with flips and ImageNet's mean and standard deviation.

    Args:
        name: Registry name or path.
        folder: The paths are relative to it.
        parts: Images of the parts ``train``, ``test`` and perhaps ``val``.
        classes: Class names.
        view: Resizing and cropping.
        channels: 3 for color, 1 for gray (with statistics 0.5 and 0.25).

    Raises:
        InputError: As :class:`Source`.
    """
    files: dict[str, Part] = {}
    for label, part in parts.items():
        paths, target = zip(*part, strict=True)
        files[label] = ImageFiles.from_lists(folder, paths, target, view, channels=channels)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.25,))
    val = files.get("val")
    return Source(
        name, files["train"], files["test"], classes, flip=True, mean=mean, std=std, val=val
    )


@DATASETS.register("image-list", files="a .csv file of paths and labels, next to the images")
@add_view_options(View(upright=True))
def load_image_list(
    root: str | None = None,
    *,
    path: str = "path",
    target: str = "label",
    part: str | None = None,
    channels: int = 3,
    view: View,
) -> Source:
    """Your own large images, read when needed, with their labels in a .csv file of paths and labels.

    Args:
        root: Path of the file. Paths of images are relative to its folder.
        path: Column of the paths.
        target: Column of the labels.
        part: Column that says ``train``, ``val`` or ``test``; null takes a stratified fifth as the test part, the same
            for every seed. Rows of ``val`` are the validation part.
        channels: 3 for color, 1 for gray.
        view: Resizing and cropping; each field of :class:`~fedlas.lab.data.files.View` is an option.

    Returns:
        A source with flips and ImageNet's mean and standard deviation; classes are sorted.

    Raises:
        InputError: If the file cannot be read, a column or an image is missing, or a part has another name.
    """
    check_channels(channels)
    file = require_root(root, "a .csv file")
    table = read_arrow_table(file)
    names = [str(name) for name in require_column(table, path, "path").to_pylist()]
    require_listed_files(file.parent, names, file.name)
    targets, classes = encode_labels([require_column(table, target, "target").to_pylist()], target)
    rows = list(zip(names, targets[0].tolist(), strict=True))
    if part is None:
        size = round(TEST_FRACTION * len(rows))
        train, test = hold_out(targets[0], size, classes, seeded_generator(Purpose.FIXED_TEST))
        rows_by_part = {"train": [rows[row] for row in train], "test": [rows[row] for row in test]}
    else:
        parts = require_column(table, part, "part").to_pylist()
        rows_by_part = {}
        for name, row in zip(parts, rows, strict=True):
            rows_by_part.setdefault(str(name), []).append(row)
        if not {"train", "test"} <= rows_by_part.keys() <= {"train", "val", "test"}:
            raise InputError(
                f"column {part!r} must have the values train, test and optionally val",
                ", ".join(rows_by_part),
                "Rename the values.",
            )
    return streamed_source(
        f"image-list {file}", file.parent, rows_by_part, classes, view, channels=channels
    )
