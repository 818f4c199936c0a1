"""Fashion-MNIST, from its four IDX files; torchvision downloads them on request."""

from __future__ import annotations

from pathlib import Path

from fedlas._core.check import InputError, describe
from fedlas._core.extras import MissingExtraError, require
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.idx import idx_places, read_idx
from fedlas.lab.data.readers.roots import ENVIRONMENT, data_folder
from fedlas.lab.data.sets.npz import images_from_arrays

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@DATASETS.register(
    "fashion-mnist",
    paper="Xiao, Rasul and Vollgraf 2017",
    url="https://arxiv.org/abs/1708.07747",
    files="the four IDX files, raw or .gz",
    expected=Expected(train=60_000, test=10_000, classes=10, per_class=(6_000, 6_000)),
)
def load_fashion_mnist(root: str | None = None, *, download: bool = False) -> Source:
    """70,000 gray images of clothes, 28 x 28 pixels in 10 classes: 60,000 to train, 10,000 to test.

    Args:
        root: Folder with the four IDX files, raw or gzipped, or with ``fashion-mnist`` or ``FashionMNIST/raw`` that
            holds them. None: ``$FEDLAS_DATA``, then the folder of Debian's package ``dataset-fashion-mnist``.
        download: If the files are missing, let torchvision download them into ``root`` or ``$FEDLAS_DATA``. Nothing is
            downloaded otherwise.

    Raises:
        InputError: If the files are missing (the message says how to get them) or damaged, or ``download`` is not a
            bool.
    """
    if not isinstance(download, bool):
        raise InputError("fashion-mnist", "download must be true or false", describe(download), "Pass a bool.")
    # Find the files, or download them.
    folder = data_folder(root)
    places = [folder / below for below in ("", "fashion-mnist", "FashionMNIST/raw")] if folder else []
    if root is None:
        places.append(DEBIAN_FOLDER)
    found = next(idx_places(places), None)
    problem = ""
    if found is None and download:
        problem = _download(folder) if folder else f"; no folder to download into, since ${ENVIRONMENT} is not set"
        found = next(idx_places(places), None)
    if found is None:
        raise InputError(
            "fashion-mnist",
            "its four IDX files must be on disk",
            f"none in {', '.join(map(str, places))}{problem}",
            f"Either put the files (train-images-idx3-ubyte.gz and the other three) into a folder and set "
            f"{ENVIRONMENT} to it, or install Debian's package (apt install dataset-fashion-mnist), or set "
            f"{ENVIRONMENT} to a writable folder and let torchvision download them: data.download=true in a recipe, "
            f"--set download=true with fedlas data check.",
        )
    # Read them; MNIST's files differ in their counts only.
    arrays = {key: read_idx("fashion-mnist", path, 3 if "images" in key else 1) for key, path in found.items()}
    train, test = (images_from_arrays("fashion-mnist", arrays, part) for part in ("train", "test"))
    if len(train) == 60_000 and int(train.target.bincount().max()) != 6_000:
        raise InputError(
            "fashion-mnist",
            "its training part must have 6,000 images of each class",
            f"{next(iter(found.values())).parent} with other counts (MNIST's files have the same names)",
            "Keep the two in separate folders, fashion-mnist and mnist below the root.",
        )
    return Source("fashion-mnist", train, test, _CLASSES, flip=True, mean=(0.2860,), std=(0.3530,))


def _download(folder: Path) -> str:
    """Let torchvision download the files into ``folder``; returns what went wrong, to end a sentence with."""
    try:
        for train in (True, False):
            require("torchvision.datasets", extra="data").FashionMNIST(str(folder), train=train, download=True)
    except (OSError, RuntimeError, EOFError, MissingExtraError) as error:  # URLError is an OSError
        return f"; the download into {folder} failed ({type(error).__name__}: {error})"
    return ""
