"""Check of a data set: whether its files are there, complete and readable."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas._core.text import printable
from fedlas.lab.data.base import DATASETS, Expected, Part, Source, load_dataset
from fedlas.lab.data.files import Files
from fedlas.lab.data.readers.places import damage

_MOST = 10
"""Number of files or classes that a problem names."""


@dataclass(frozen=True)
class PartFacts:
    """Counts of one part.

    Attributes:
        images: Number of images.
        fewest: Images of the smallest class.
        most: Images of the largest class.
        sizes: Height and width in pixels of the stored images that were read, each with its count, most frequent first.
    """

    images: int
    fewest: int
    most: int
    sizes: tuple[tuple[tuple[int, int], int], ...]


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        source: The data set.
        parts: Counts of ``train`` and ``test``.
        expected: Published counts; None for the user's own data, and with options, which may choose a part.
        problems: One sentence for each problem; empty if there is none.
        decoded: Whether every image was decoded.
    """

    source: Source
    parts: dict[str, PartFacts]
    expected: Expected | None
    problems: list[str]
    decoded: bool


def check_dataset(
    name: str,
    root: str | None = None,
    *,
    quick: bool = False,
    options: dict[str, Any] | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> Checked:
    """Load a data set, count it, and decode every image of it.

    Args:
        name: A name in :data:`~fedlas.lab.data.DATASETS`.
        root: Folder or file of the data set; None searches the usual places.
        quick: Do not decode images on disk. Empty files, Git LFS pointers and web pages are still found.
        options: Options of the data set.
        on_image: Called as ``on_image(done, total)`` while images on disk are read.

    Raises:
        InputError: If it cannot be loaded: files are missing or misplaced, or a file that it needs is damaged.

    Example:
        >>> check_dataset("digits").problems
        []
    """
    entry = DATASETS[name]
    accept = {"partial": True} if "partial" in inspect.signature(entry.value).parameters else {}
    source = load_dataset(name, root, **{**accept, **(options or {})})
    # Read both parts.
    parts = {"train": source.train, "test": source.test}
    total = sum(len(part) for part in parts.values() if isinstance(part, Files))
    facts, problems, done = {}, [], 0

    def count(images: int) -> None:
        if on_image is not None:
            on_image(done + images, total)

    for label, part in parts.items():
        if isinstance(part, Files):
            sizes, broken = _decode(part, quick, count)
            done += len(part)
            problems += _summary(f"unreadable in {label}", broken, len(part))
        else:
            sizes = Counter({(part.shape[1], part.shape[2]): len(part)})
        counts = part.target.bincount(minlength=source.num_classes)
        facts[label] = PartFacts(len(part), int(counts.min()), int(counts.max()), tuple(sizes.most_common()))
    # Compare with the published counts.
    expected: Expected | None = None if options else entry.metadata.get("expected")
    if expected is not None:
        problems += _differences(source, facts, expected)
    return Checked(source, facts, expected, problems, decoded=not quick or not total)


def _decode(part: Files, quick: bool, count: Callable[[int], None]) -> tuple[Counter[tuple[int, int]], list[str]]:
    """Counts of the sizes of readable images, and a line for each unreadable one."""
    sizes: Counter[tuple[int, int]] = Counter()
    broken: list[str] = []

    # The size of an image, what is wrong with it, or nothing if it was only looked at.
    def look(row: int) -> tuple[int, int] | str | None:
        try:
            # The first bytes reveal an empty file and the usual failed downloads, without decoding an image.
            if quick:
                what, _ = damage(part.path(row))
                return f"{part.path(row)} ({what})" if what else None
            image = part.open(row)
        except InputError as error:
            return error.parts[2]
        return int(image.height), int(image.width)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(part), 1000):  # a million futures at once take a gigabyte
            rows = range(start, min(start + 1000, len(part)))
            for found in pool.map(look, rows):
                if isinstance(found, str):
                    broken.append(found)
                elif found is not None:
                    sizes[found] += 1
            count(rows.stop)
    return sizes, broken


def _summary(what: str, items: list[str], of: int) -> list[str]:
    if not items:
        return []
    more = f"\n  and {len(items) - _MOST} more" if len(items) > _MOST else ""
    listed = "\n  ".join(map(printable, items[:_MOST]))
    return [f"{len(items):,} of {of:,} images are {what}:\n  {listed}{more}"]


def _differences(source: Source, facts: dict[str, PartFacts], expected: Expected) -> list[str]:
    problems = []
    if source.num_classes != expected.classes:
        problems.append(f"There are {source.num_classes:,} classes, published are {expected.classes:,}.")
    # The number of images, as a whole and of each class.
    for label, count in (("train", expected.train), ("test", expected.test)):
        if facts[label].images != count:
            problems.append(f"There are {facts[label].images:,} images in {label}, published are {count:,}.")
    if expected.per_class is not None:
        counts = source.train.target.bincount(minlength=source.num_classes)
        low, high = expected.per_class
        outside = torch.nonzero((counts < low) | (counts > high)).flatten().tolist()
        if outside:
            named = ", ".join(f"{source.classes[label]} {int(counts[label]):,}" for label in outside[:_MOST])
            more = f" and {len(outside) - _MOST} more" if len(outside) > _MOST else ""
            published = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            what = f"{len(outside):,} classes have another number of training images than {published}"
            problems.append(f"{what}: {named}{more}.")
    return problems


def where(part: Part) -> str:
    """Where the images of a part are: ``"on disk"`` or ``"in memory"``."""
    return "on disk" if isinstance(part, Files) else "in memory"
