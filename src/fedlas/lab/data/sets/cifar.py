"""CIFAR-10 and CIFAR-100, from torchvision's files or from one ``.npz`` file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.layout import misplaced
from fedlas.lab.data.readers.roots import ENVIRONMENT, data_folder
from fedlas.lab.data.sets.cifar_mistaken import CIFAR10_MISTAKEN, CIFAR100_MISTAKEN
from fedlas.lab.data.sets.npz import images_from_arrays, read_npz

_PAPER: dict[str, Any] = {"paper": "Krizhevsky 2009", "url": "https://www.cs.toronto.edu/~kriz/cifar.html"}


@DATASETS.register(
    "cifar10",
    files="cifar10.npz, or torchvision's folder cifar-10-batches-py",
    expected=Expected(train=50_000, test=10_000, classes=10, per_class=(5_000, 5_000)),
    **_PAPER,
)
def load_cifar10(root: str | None = None) -> Source:
    """60,000 color photographs of 32 x 32 pixels in 10 classes: 50,000 to train, 10,000 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) that holds ``cifar10.npz`` (see the data set ``npz``) or torchvision's
            ``cifar-10-batches-py``; or the path of such an ``.npz`` file.

    Raises:
        InputError: If neither is there, or it is damaged.
    """
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _load("cifar10", root, "cifar-10-batches-py", 10, mean=mean, std=std, mistaken_for=CIFAR10_MISTAKEN)


@DATASETS.register(
    "cifar100",
    files="cifar100.npz, or torchvision's folder cifar-100-python",
    expected=Expected(train=50_000, test=10_000, classes=100, per_class=(500, 500)),
    **_PAPER,
)
def load_cifar100(root: str | None = None) -> Source:
    """60,000 color photographs of 32 x 32 pixels in 100 classes: 50,000 to train, 10,000 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) that holds ``cifar100.npz`` (see the data set ``npz``) or torchvision's
            ``cifar-100-python``; or the path of such an ``.npz`` file.

    Raises:
        InputError: If neither is there, or it is damaged.
    """
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _load("cifar100", root, "cifar-100-python", 100, mean=mean, std=std, mistaken_for=CIFAR100_MISTAKEN)


def _load(name: str, root: str | None, batches: str, num_classes: int, **published: Any) -> Source:
    folder = data_folder(root)
    # One archive, or the folder that torchvision extracts.
    if folder is not None and folder.is_file():
        source = read_npz(name, folder)
    elif folder is not None and (folder / f"{name}.npz").is_file():
        source = read_npz(name, folder / f"{name}.npz")
    elif folder is not None and (folder / batches).is_dir():
        source = _read_torchvision(name, folder)
    else:
        raise _missing(name, folder, batches)
    if source.num_classes != num_classes:
        raise InputError(
            name,
            f"the files must hold {num_classes} classes",
            f"{source.num_classes} in {folder}",
            "Use the data set 'npz' for arrays of your own.",
        )
    return replace(source, flip=True, crop_padding=4, **published)


def _missing(name: str, folder: Path | None, batches: str) -> InputError:
    expected = f"there must be a file {name}.npz or torchvision's folder {batches}"
    fetch = f"torchvision.datasets.{name.upper()}(FOLDER, download=True) fetches the files."
    fix = f"Pass root=FOLDER or set {ENVIRONMENT}; {fetch}"
    if folder is None:
        return InputError(name, expected, f"no root, and ${ENVIRONMENT} is not set", fix)

    def holds(place: Path) -> bool:
        return (place / f"{name}.npz").is_file() or (place / batches).is_dir()

    archive = f"{name.replace('cifar', 'cifar-')}-"  # the archives are called cifar-10-python.tar.gz, for example
    return InputError(name, expected, *(misplaced(folder, holds, (archive,)) or (f"neither in {folder}", fix)))


def _read_torchvision(name: str, folder: Path) -> Source:
    reader = getattr(require("torchvision.datasets", extra="data"), name.upper())
    try:
        # These files are pickles, so torchvision checks their MD5 sums before it opens them.
        parts = {part: reader(str(folder), train=part == "train", download=False) for part in ("train", "test")}
    except RuntimeError as error:
        raise InputError(
            name,
            "torchvision must find all files intact",
            f"{folder} ({error})",
            f"Fetch them again with torchvision.datasets.{name.upper()}({str(folder)!r}, download=True).",
        ) from error
    arrays = {f"{part}_images": data.data for part, data in parts.items()}
    arrays |= {f"{part}_target": np.asarray(data.targets) for part, data in parts.items()}
    train, test = (images_from_arrays(name, arrays, part) for part in ("train", "test"))
    return Source(name, train, test, tuple(parts["train"].classes))
