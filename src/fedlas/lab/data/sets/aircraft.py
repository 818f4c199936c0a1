"""FGVC-Aircraft, from the folders and lists of its archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from fedlas._core.check import InputError, check_choice
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.pipeline.view import Interpolation, TrainCrop, View
from fedlas.lab.data.readers.class_folders import Listed
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.layout import Layout, require_listed
from fedlas.lab.data.readers.unreadable import read_lines, read_table
from fedlas.lab.data.sets.streamed_source import streamed_source

_FETCH = (
    "It is fgvc-aircraft-2013b.tar.gz, https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/; "
    "torchvision.datasets.FGVCAircraft(FOLDER, download=True) fetches it."
)
_NAMES = ("fgvc-aircraft-2013b/data", "data", "aircraft", "fgvc-aircraft")
Level = Literal["variant", "family", "manufacturer"]
_CLASS_LISTS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
_BANNER = 20
"""Rows at the bottom of each image with the photographer's name."""


@DATASETS.register(
    "aircraft",
    paper="Maji et al. 2013",
    url="https://arxiv.org/abs/1306.5151",
    files="the folder fgvc-aircraft-2013b/data of its archive",
    expected=Expected(train=6_667, test=3_333, classes=100, per_class=(66, 67)),
)
def load_aircraft(
    root: str | None = None,
    *,
    level: Level = "variant",
    resize: int = 448,
    crop: int = 384,
    train_crop: TrainCrop = "random",
    squash: bool = False,
    min_area: float = 0.08,
    interpolation: Interpolation = "bilinear",
) -> Source:
    """10,000 photographs of aircraft in 100 variants (FGVC-Aircraft): 6,667 to train, 3,333 to test; read when needed.

    The official parts ``train`` and ``val`` together (``trainval``) are the training part, from which the seed draws
    validation images. The banner of 20 pixels at the bottom of each image is removed.

    Args:
        root: The folder ``fgvc-aircraft-2013b/data``, or one that holds it (None: ``$FEDLAS_DATA``).
        level: ``variant`` (100 classes), ``family`` (70) or ``manufacturer`` (30).
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
    check_choice("aircraft", "level", level, get_args(Level))
    view = View(resize, crop, train_crop, squash, min_area, interpolation, cut_bottom=_BANNER)
    lists = {part: f"images_{level}_{part}.txt" for part in ("train", "val", "trainval", "test")}
    marks = (_CLASS_LISTS[level], *lists.values(), "images")
    folder = Layout("aircraft", marks, _NAMES, ("fgvc", "aircraft"), _FETCH).locate(root)
    classes = tuple(read_lines("aircraft", folder / _CLASS_LISTS[level]))
    # trainval must be the union of train and val, or a list is cut off.
    parts = {part: _listed(folder, name, classes) for part, name in lists.items()}
    if sorted(parts["trainval"]) != sorted([*parts["train"], *parts["val"]]):
        raise InputError(
            "aircraft",
            f"{lists['trainval']} must hold the images of train and val",
            f"{len(parts['trainval'])} where those are {len(parts['train'])} and {len(parts['val'])} in {folder}",
            f"A list is cut off: extract the archive again. {_FETCH}",
        )
    return streamed_source("aircraft", folder / "images", (parts["trainval"], parts["test"]), classes, view)


def _listed(folder: Path, name: str, classes: tuple[str, ...]) -> Listed:
    rows = read_table("aircraft", folder / name, 2)
    if foreign := [row[1] for row in rows if row[1] not in classes]:
        fix = f"The list or that of the classes is cut off: extract the archive again. {_FETCH}"
        got = f"{foreign[0]!r} in {folder / name}"
        raise InputError("aircraft", "every image must be of a class of the list of classes", got, fix)
    number = {label: place for place, label in enumerate(classes)}
    listed = [(f"{row[0]}.jpg", number[row[1]]) for row in rows]
    require_listed("aircraft", folder / "images", [path for path, _ in listed], name)
    return listed
