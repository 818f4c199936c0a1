"""The user's own arrays in one ``.npz`` file; other data sets share its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedlas._core.arrays import open_arrays
from fedlas._core.check import InputError, describe
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.readers.places import required_root, unreadable

_NEEDED = ("train_images", "train_target", "test_images", "test_target")
_RECIPE = (
    "Write it with numpy.savez(path, train_images=..., train_target=..., test_images=..., test_target=...): "
    "images uint8 (N, H, W, 3) or (N, H, W), targets whole numbers (N,)."
)


def count_npz(root: str | None) -> tuple[int, int]:
    """Number of training images and of classes; only the labels are read.

    Raises:
        InputError: If the file cannot be read, or has no such labels.
    """
    path = required_root("npz", root, "an .npz file")
    try:
        with open_arrays(path) as archive:
            target = archive["train_target"]
            return len(target), int(target.max()) + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable("npz", "train_target must be readable labels", path, error, _RECIPE) from error


@DATASETS.register("npz", files="an .npz file with {train,test}_images and {train,test}_target", count=count_npz)
def load_npz(root: str | None = None) -> Source:
    """Your own arrays: an .npz file with {train,test}_images and {train,test}_target.

    Args:
        root: Path of the file. Images are uint8 ``(N, H, W, channels)`` or gray ``(N, H, W)``, square; targets are
            whole numbers from 0 without gaps. An optional array ``classes`` of strings names the classes.

    Raises:
        InputError: If the file is missing, truncated, holds pickled objects or arrays of another shape or dtype.
    """
    return read_npz("npz", required_root("npz", root, "an .npz file"))


def read_npz(name: str, path: Path) -> Source:
    """The source called ``name`` in the file ``path``; see :func:`load_npz`."""
    try:
        with open_arrays(path) as archive:
            missing = [key for key in _NEEDED if key not in archive]
            arrays: dict[str, np.ndarray] = {} if missing else {key: archive[key] for key in _KEYS if key in archive}
            names = archive.names
    except (OSError, ValueError) as error:
        fix = f"The file may be truncated, or hold pickled objects, which are refused. {_RECIPE}"
        raise unreadable(name, "the file must be an .npz of plain arrays", path, error, fix) from error
    if missing:
        raise InputError(name, f"the file must hold {', '.join(_NEEDED)}", f"{path} with {names}", _RECIPE)
    train, test = (images_from_arrays(name, arrays, part) for part in ("train", "test"))
    classes = _class_names(name, arrays.get("classes"), int(train.target.max()) + 1)
    return Source(name, train, test, classes)


_KEYS = (*_NEEDED, "classes")


def images_from_arrays(name: str, arrays: dict[str, Any], part: str) -> Images:
    """Check ``{part}_images`` and ``{part}_target`` and return them with the channels second."""
    images, target = arrays[f"{part}_images"], arrays[f"{part}_target"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(
            name,
            f"{part}_images must be uint8 (N, H, W, channels) or (N, H, W) with at least one image",
            describe(images),
            "Scale to 0..255 and convert with .astype(numpy.uint8).",
        )
    # A second axis of at most 4 before a long last one is most likely the channels.
    if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
        raise InputError(
            name, f"{part}_images must have the channels last", describe(images), "Use .transpose(0, 2, 3, 1)."
        )
    if target.shape != (len(images),) or target.dtype.kind not in "iu":
        raise InputError(
            name,
            f"{part}_target must be whole numbers ({len(images)},) like the {len(images)} {part}_images",
            describe(target),
            "Pass one class index per image.",
        )
    stacked = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Images(torch.from_numpy(np.ascontiguousarray(stacked)), torch.from_numpy(target.astype(np.int64)))


def _class_names(name: str, names: np.ndarray | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(label) for label in range(count))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(
            name, "classes must be a one-dimensional array of strings", describe(names), "Or leave it out."
        )
    return tuple(np.char.decode(names, "utf-8").tolist() if names.dtype.kind == "S" else names.tolist())
