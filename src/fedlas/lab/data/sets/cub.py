"""CUB-200-2011, from the folders and lists of its archive."""

from __future__ import annotations

from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.pipeline.view import Interpolation, TrainCrop, View
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.layout import Layout, require_listed
from fedlas.lab.data.readers.unreadable import read_table
from fedlas.lab.data.sets.streamed_source import streamed_source

_FETCH = "It is CUB_200_2011.tgz, https://data.caltech.edu/records/65de6-vp158."
_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
_LAYOUT = Layout("cub", (*_LISTS, "images"), ("CUB_200_2011", "CUB_200_2011/CUB_200_2011", "cub"), ("cub",), _FETCH)
_AGAIN = f"The lists are cut off or of different versions: extract the archive again. {_FETCH}"


@DATASETS.register(
    "cub",
    paper="Wah et al. 2011",
    url="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    files="the folder CUB_200_2011 of its archive",
    expected=Expected(train=5_994, test=5_794, classes=200, per_class=(29, 30)),
)
def load_cub(
    root: str | None = None,
    *,
    resize: int = 448,
    crop: int = 384,
    train_crop: TrainCrop = "random",
    squash: bool = False,
    min_area: float = 0.08,
    interpolation: Interpolation = "bilinear",
) -> Source:
    """11,788 photographs of birds in 200 species (CUB-200-2011): 5,994 to train, 5,794 to test; read when needed.

    Args:
        root: The folder ``CUB_200_2011``, or one that holds it (None: ``$FEDLAS_DATA``).
        resize: Shorter side in pixels before a crop.
        crop: Height and width that the model gets.
        train_crop: ``random``, ``random-resized`` or ``center``; see :class:`~fedlas.lab.data.View`.
        squash: Resize to a square whatever the aspect ratio.
        min_area: Least share of the area that ``random-resized`` keeps.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        A source with flips and ImageNet's mean and standard deviation.

    Raises:
        InputError: If the folder is missing or incomplete, or its lists disagree.
    """
    # The four lists of the archive, which must agree.
    view = View(resize, crop, train_crop, squash=squash, min_area=min_area, interpolation=interpolation)
    folder = _LAYOUT.locate(root)
    paths, labels, splits, names = (_by_id(folder / name) for name in _LISTS)
    if not paths.keys() == labels.keys() == splits.keys():
        got = f"{len(paths)}, {len(labels)} and {len(splits)} in {folder}"
        raise InputError("cub", f"{', '.join(_LISTS[:3])} must list the same images", got, _AGAIN)
    # Labels follow the numbers of the classes.
    number = {identity: label for label, identity in enumerate(sorted(names, key=int))}
    if strange := sorted(set(labels.values()) - names.keys()) or sorted(set(splits.values()) - {"0", "1"}):
        raise InputError("cub", "the lists must name classes of classes.txt, and splits 0 or 1", strange[0], _AGAIN)
    require_listed("cub", folder / "images", list(paths.values()), "images.txt")
    # The published split: 1 is training.
    train, test = (
        [(paths[identity], number[labels[identity]]) for identity in paths if splits[identity] == part]
        for part in ("1", "0")
    )
    classes = tuple(names[identity].partition(".")[2].replace("_", " ") or names[identity] for identity in number)
    return streamed_source("cub", folder / "images", (train, test), classes, view)


def _by_id(path: Path) -> dict[str, str]:
    rows = read_table("cub", path, 2)
    if bad := [row[0] for row in rows if not row[0].isdecimal()]:
        raise InputError("cub", f"each line of {path.name} must begin with a number", repr(bad[0]), _AGAIN)
    return {row[0]: row[1] for row in rows}
