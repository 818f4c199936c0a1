"""MNIST and Fashion-MNIST, each from its four IDX files: big-endian sizes, then bytes; often gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.lab.data.base import DATASETS, Images, PublishedCounts, Source
from fedlas.lab.data.disk import DATA_VARIABLE, data_folder, unreadable_file_error
from fedlas.lab.data.sets.folders import images_from_arrays

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_target": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_target": "t10k-labels-idx1-ubyte",
}
_MNIST_CLASS_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
# Patrini et al. 2017, section 5
_MISTAKEN_FOR = (("2", "7"), ("3", "8"), ("5", "6"), ("6", "5"), ("7", "1"))
_ALWAYS_ALLOWED_BYTES = 2**26
_MAX_COMPRESSION_RATIO = 20
"""Largest factor by which a file above ``_ALWAYS_ALLOWED_BYTES`` may unpack; published files grow fivefold."""
_CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


@DATASETS.register(
    "mnist",
    paper="LeCun et al. 1998",
    url="https://doi.org/10.1109/5.726791",
    files="the four IDX files, raw or .gz",
    expected=PublishedCounts(train=60_000, test=10_000, classes=10, per_class=(5421, 6742)),
)
def load_mnist(root: str | None = None) -> Source:
    """70,000 gray handwritten digits, 28 x 28 pixels in 10 classes: 60,000 to train, 10,000 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) with the four IDX files, raw or gzipped, or with ``mnist`` or
            ``MNIST/raw`` that holds them.

    Returns:
        A source without flips and crops, which would change the digits.

    Raises:
        InputError: If the files are missing or damaged, or are those of Fashion-MNIST, which have the same names.
    """
    train, test = _load_parts("mnist", "MNIST", root, _MNIST_CLASS_COUNTS)
    return Source(
        "mnist",
        train,
        test,
        tuple("0123456789"),
        mean=(0.1307,),
        std=(0.3081,),
        mistaken_for=_MISTAKEN_FOR,
    )


@DATASETS.register(
    "fashion-mnist",
    paper="Xiao, Rasul and Vollgraf 2017",
    url="https://arxiv.org/abs/1708.07747",
    files="the four IDX files, raw or .gz",
    expected=PublishedCounts(train=60_000, test=10_000, classes=10, per_class=(6_000, 6_000)),
)
def load_fashion_mnist(root: str | None = None) -> Source:
    """70,000 gray images of clothes, 28 x 28 pixels in 10 classes: 60,000 to train, 10,000 to test.

    Args:
        root: Folder with the four IDX files, raw or gzipped, or with ``fashion-mnist`` or ``FashionMNIST/raw`` that
            holds them. None: ``$FEDLAS_DATA``, then the folder of Debian's package ``dataset-fashion-mnist``.

    Raises:
        InputError: If the files are missing or damaged, or are those of MNIST, which have the same names.
    """
    train, test = _load_parts("fashion-mnist", "FashionMNIST", root, [6_000] * 10)
    return Source(
        "fashion-mnist",
        train,
        test,
        tuple(_CLOTHES.split(",")),
        flip=True,
        mean=(0.2860,),
        std=(0.3530,),
    )


def _load_parts(
    name: str, torchvision_name: str, root: str | None, class_counts: Sequence[int]
) -> tuple[Images, Images]:
    """Return the training and test part; ``class_counts`` are the published training images per class."""
    folder = data_folder(root)
    debian = name == "fashion-mnist" and root is None
    places = [folder / below for below in (name, f"{torchvision_name}/raw", "")] if folder else []
    places += [DEBIAN_FOLDER] if debian else []
    paths = next(filter(None, map(_find_idx_files, places)), None)
    if paths is None:
        got = (
            f"none in {', '.join(map(str, places))}"
            if places
            else f"no root, and ${DATA_VARIABLE} is not set"
        )
        fix = f"Put train-images-idx3-ubyte.gz and the other three into FOLDER/{name} and pass root=FOLDER or set "
        fix += f"{DATA_VARIABLE}. torchvision.datasets.{torchvision_name}(FOLDER, download=True) fetches them"
        fix += (
            ", and so does Debian's package (apt install dataset-fashion-mnist)." if debian else "."
        )
        raise InputError("the four IDX files of the data set must be on disk", got, fix)
    arrays = {key: _read_idx(path) for key, path in paths.items()}
    train, test = (images_from_arrays(arrays, part) for part in ("train", "test"))
    # Only the class counts distinguish the two: files, shapes and number of images are the same.
    if len(train) == 60_000 and train.target.bincount().tolist() != [*class_counts]:
        raise InputError(
            f"the training part must have {[*class_counts]} images per class",
            f"{paths['train_target'].parent} with other counts",
            "Keep MNIST and Fashion-MNIST, whose files have the same names, in folders mnist and fashion-mnist.",
        )
    return train, test


def _find_idx_files(folder: Path) -> dict[str, Path] | None:
    """Return the paths of the four IDX files in a folder by content, or None if one is missing."""
    paths = {}
    for key, name in _FILES.items():
        candidates = (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx"))
        if (path := next((path for path in candidates if path.is_file()), None)) is None:
            return None
        paths[key] = path
    return paths


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in a raw or gzipped IDX file."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            # Magic number: two zero bytes, 8 (unsigned bytes), the number of dimensions. Each size has four bytes.
            dimensions = 3 if "images" in path.name else 1
            magic = file.read(4)
            if magic != bytes((0, 0, 8, dimensions)):
                raise ValueError(f"its magic number is {magic.hex(' ')}")
            shape = np.frombuffer(file.read(4 * dimensions), ">u4", dimensions).tolist()
            claimed = math.prod(shape)
            if claimed > max(_ALWAYS_ALLOWED_BYTES, _MAX_COMPRESSION_RATIO * path.stat().st_size):
                raise ValueError(f"its header claims {claimed:,} bytes")
            content = file.read(claimed + 1)
        array = np.frombuffer(content, np.uint8).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise unreadable_file_error(
            f"{path.name} must be the published IDX file",
            path,
            error,
            "The file is truncated or a different one: fetch it again.",
        ) from error
    return array.copy()  # torch needs a writable array
