"""Survey of image folders: parts, classes, sizes, colors, unreadable files and duplicates."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedlas._core.check import InputError
from fedlas.lab.data.class_folders import is_image_name, list_images_by_part
from fedlas.lab.data.disk import map_in_threads, open_image

_LAYOUT = (
    "Arrange the images as FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, or as FOLDER/CLASS/*."
)
_COLOR_GRID = 64
"""Pixels per side that are sampled to detect color."""


@dataclass(frozen=True)
class Survey:
    """Contents of a folder of images.

    Attributes:
        root: The folder, absolute.
        counts: Images by part (``""`` in a folder without parts) and class.
        sizes: Number of images by height and width in pixels.
        gray: Number of images without color.
        nested: Whether some images are in folders below the class folders.
        others: Number of files that are not images, by suffix.
        copies: Pairs of files with the same content, relative to ``root``: first pairs across parts, then pairs
            across classes, then the rest.
    """

    root: Path
    counts: dict[str, dict[str, int]]
    sizes: Counter[tuple[int, int]]
    gray: int
    nested: bool
    others: Counter[str]
    copies: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted."""
        return tuple(next(iter(self.counts.values())))

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(sum(by_class.values()) for by_class in self.counts.values())

    @property
    def channels(self) -> int:
        """1 if all images are gray, else 3."""
        return 1 if self.gray == self.images else 3

    @property
    def shorter_side(self) -> int:
        """Median length of the shorter image side in pixels."""
        return round(median(min(size) for size in self.sizes.elements()))

    @property
    def per_class(self) -> dict[str, int]:
        """Number of images per class over all parts."""
        return {
            name: sum(by_class[name] for by_class in self.counts.values()) for name in self.classes
        }

    def copies_between_parts(self) -> list[tuple[str, str]]:
        """Return duplicate pairs across parts, such as a test image that is also in the training part."""
        return [pair for pair in self.copies if not _same_part_and_class(self.counts, pair)[0]]

    def copies_between_classes(self) -> list[tuple[str, str]]:
        """Return duplicate pairs across classes, where at least one label is wrong."""
        return [pair for pair in self.copies if not _same_part_and_class(self.counts, pair)[1]]


def survey_images(
    root: str | Path, *, on_image: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every image in class folders, with or without folders ``train``, ``val`` and ``test`` around them.

    Args:
        root: The folder.
        on_image: Called as ``on_image(done, total)`` while images are read.

    Raises:
        InputError: If folders or images are missing, there is only one class, or the parts differ in their classes;
            or if images cannot be read: the first are named, with the reasons.

    Example:
        >>> from tempfile import mkdtemp
        >>> from PIL import Image
        >>> folder = Path(mkdtemp())
        >>> for name in ("ant", "bee"):
        ...     (folder / name).mkdir()
        ...     Image.new("L", (8, 6)).save(folder / name / "1.png")
        >>> contents = survey_images(folder)
        >>> contents.classes, contents.images, contents.channels
        (('ant', 'bee'), 2, 1)
    """
    place, parts = list_images_by_part(str(root), layout=_LAYOUT, recursive=True)
    place = place.resolve()
    # Every image is decoded once: a damaged one would otherwise stop training in the middle of an epoch.
    names = [name for by_class in parts.values() for listed in by_class.values() for name in listed]
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable: list[str] = []
    gray = 0

    def inspect_image(name: str) -> tuple[tuple[int, int], bool] | str:
        """Return the image's height and width and whether it is gray, or the reason why it cannot be read."""
        try:
            image = open_image(place / name)
        except InputError as error:
            return error.parts[1]
        return (image.height, image.width), _is_gray(image)

    for done, result in enumerate(map_in_threads(inspect_image, names), start=1):
        if isinstance(result, str):
            unreadable.append(result)
        else:
            sizes[result[0]] += 1
            gray += result[1]
        if on_image is not None:
            on_image(done, len(names))
    if unreadable:
        shown = "; ".join(unreadable[:5]) + (
            f"; and {len(unreadable) - 5:,} more" if len(unreadable) > 5 else ""
        )
        raise InputError(
            "every file with an image suffix must be a readable image",
            f"{len(unreadable):,} of {len(names):,} unreadable: {shown}",
            "Repair or remove them: training would fail on them.",
        )
    counts = {
        part: {name: len(listed) for name, listed in by_class.items()}
        for part, by_class in parts.items()
    }
    nested = any(name.count("/") > (1 if "" in parts else 2) for name in names)
    return Survey(
        place,
        counts,
        sizes,
        gray,
        nested,
        _count_other_files(place),
        _find_copies(place, names, counts),
    )


def _is_gray(image: Any) -> bool:
    """Return whether the sampled pixels have equal channels."""
    step = max(1, min(image.size) // _COLOR_GRID)
    pixels = np.asarray(image)[::step, ::step]
    return bool((pixels == pixels[..., :1]).all())


def _find_copies(
    folder: Path, names: list[str], counts: dict[str, dict[str, int]]
) -> tuple[tuple[str, str], ...]:
    """Return pairs of duplicate files: the first file of a content, and each later one."""
    by_size: dict[int, list[str]] = {}
    for name in names:
        by_size.setdefault((folder / name).stat().st_size, []).append(name)
    first: dict[bytes, str] = {}
    pairs = []
    for name in sorted(name for alike in by_size.values() if len(alike) > 1 for name in alike):
        with (folder / name).open("rb") as file:
            earlier = first.setdefault(file_digest(file, "sha256").digest(), name)
        if earlier != name:
            pairs.append((earlier, name))
    return tuple(sorted(pairs, key=partial(_same_part_and_class, counts)))


def _same_part_and_class(counts: Mapping[str, object], pair: tuple[str, str]) -> tuple[bool, bool]:
    """Return whether two files are in the same part, and whether they have the same class."""
    (part, label), (other_part, other_label) = (
        (f"/{name}" if "" in counts else name).split("/")[:2] for name in pair
    )
    return part == other_part, label == other_label


def _count_other_files(folder: Path) -> Counter[str]:
    """Return the number of visible files that are not images, by suffix."""
    suffixes: Counter[str] = Counter()
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        suffixes.update(
            Path(name).suffix.lower() or name
            for name in files
            if not name.startswith(".") and not is_image_name(name)
        )
    return suffixes
