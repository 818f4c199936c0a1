"""MNIST, from its four IDX files."""

from __future__ import annotations

from fedlas._core.check import InputError
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.idx import idx_places, read_idx
from fedlas.lab.data.readers.layout import misplaced
from fedlas.lab.data.readers.roots import ENVIRONMENT, data_folder
from fedlas.lab.data.sets.npz import images_from_arrays

_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
_MISTAKEN = (("2", "7"), ("3", "8"), ("5", "6"), ("6", "5"), ("7", "1"))  # Patrini et al. 2017, section 5
_FETCH = "torchvision.datasets.MNIST(FOLDER, download=True) fetches them."


@DATASETS.register(
    "mnist",
    paper="LeCun et al. 1998",
    url="https://doi.org/10.1109/5.726791",
    files="the four IDX files, raw or .gz",
    expected=Expected(train=60_000, test=10_000, classes=10, per_class=(5421, 6742)),
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
    folder = data_folder(root)
    places = [folder / below for below in ("mnist", "MNIST/raw", "")] if folder else []
    found = next(idx_places(places), None)
    if found is None:
        got = f"none in {', '.join(map(str, places))}" if places else f"no root, and ${ENVIRONMENT} is not set"
        fix = "Put train-images-idx3-ubyte.gz and the other three into FOLDER/mnist and pass root=FOLDER or set "
        near = misplaced(folder, lambda place: any(idx_places([place])), ("mnist",)) if folder else None
        raise InputError(
            "mnist", "its four IDX files must be on disk", *(near or (got, f"{fix}{ENVIRONMENT}. {_FETCH}"))
        )
    arrays = {key: read_idx("mnist", path, 3 if "images" in key else 1) for key, path in found.items()}
    train, test = (images_from_arrays("mnist", arrays, part) for part in ("train", "test"))
    # Only the class counts reveal Fashion-MNIST: its files, shapes and number of images are the same.
    if len(train) == sum(_COUNTS) and train.target.bincount().tolist() != _COUNTS:
        raise InputError(
            "mnist",
            f"its training part must have {_COUNTS} images of its classes",
            f"{next(iter(found.values())).parent} with other counts (Fashion-MNIST's files have the same names)",
            f"Keep the two in separate folders, mnist and fashion-mnist below the root. {_FETCH}",
        )
    classes = tuple(str(digit) for digit in range(10))
    return Source("mnist", train, test, classes, mean=(0.1307,), std=(0.3081,), mistaken_for=_MISTAKEN)
