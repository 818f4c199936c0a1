"""Check whether the files of a data set are present, complete and readable."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas._core.text import printable
from fedlas.lab.data.base import DATASETS, PublishedCounts, Source, load_dataset
from fedlas.lab.data.disk import diagnose_damage, map_in_threads
from fedlas.lab.data.files import ImageFiles

_MAX_NAMED = 10
"""Most files or classes that a problem lists."""


@dataclass(frozen=True)
class DatasetCheck:
    """Result of a data set check.

    Attributes:
        source: The data set.
        sizes: For each part: height and width in pixels of the images that were read, with counts; empty
            for rows of features.
        expected: Published counts; None for the user's own data, and with options, which may choose a part.
        problems: One sentence for each problem; empty if there is none.
        decoded: Whether every image was decoded.
    """

    source: Source
    sizes: dict[str, Counter[tuple[int, ...]]]
    expected: PublishedCounts | None
    problems: list[str]
    decoded: bool

    def counts(self, part: str) -> Tensor:
        """Return the number of samples per class in a part, ``(C,)``."""
        return getattr(self.source, part).target.bincount(minlength=self.source.num_classes)


def check_dataset(
    name: str,
    root: str | None = None,
    *,
    quick: bool = False,
    options: dict[str, Any] | None = None,
    on_image: Callable[[int, int], None] = lambda _done, _total: None,
) -> DatasetCheck:
    """Load a data set, compare its counts with the published ones, and decode every image.

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
    parts = source.parts
    total = sum(len(part) for part in parts.values() if isinstance(part, ImageFiles))
    expected: PublishedCounts | None = None if options else entry.metadata.get("expected")
    checked = DatasetCheck(source, {}, expected, [], decoded=not quick or not total)
    done = count(1)
    for label, part in parts.items():
        images = len(part.shape) == 3
        checked.sizes[label] = Counter({part.shape[1:]: len(part)} if images else {})
        if isinstance(part, ImageFiles):
            checked.sizes[label], unreadable = _decode_images(
                part, quick, lambda: on_image(next(done), total)
            )
            if unreadable:
                more = (
                    f"\n  and {len(unreadable) - _MAX_NAMED} more"
                    if len(unreadable) > _MAX_NAMED
                    else ""
                )
                listed = "\n  ".join(map(printable, unreadable[:_MAX_NAMED]))
                text = f"{len(unreadable):,} of {len(part):,} images are unreadable in {label}:\n  {listed}{more}"
                checked.problems.append(text)
    if expected is not None:
        checked.problems.extend(_compare_with_published(checked, expected))
    return checked


def _decode_images(
    part: ImageFiles, quick: bool, on_image: Callable[[], None]
) -> tuple[Counter[tuple[int, ...]], list[str]]:
    """Return the sizes of readable images with their counts, and one line per unreadable image."""
    sizes: Counter[tuple[int, ...]] = Counter()
    problems: list[str] = []

    def check_image(row: int) -> tuple[int, int] | str | None:
        """Return the image's size, a text if it is unreadable, or None if only its first bytes were read."""
        if quick:
            what, _ = diagnose_damage(part.path(row))
            return f"{part.path(row)} ({what})" if what else None
        try:
            image = part.open(row)
        except InputError as error:
            return error.parts[1]
        return int(image.height), int(image.width)

    for result in map_in_threads(check_image, range(len(part))):
        if isinstance(result, str):
            problems.append(result)
        elif result is not None:
            sizes[result] += 1
        on_image()
    return sizes, problems


def _compare_with_published(checked: DatasetCheck, expected: PublishedCounts) -> list[str]:
    """Return one sentence per difference from the published counts."""
    source = checked.source
    problems = []
    if source.num_classes != expected.classes:
        problems.append(
            f"There are {source.num_classes:,} classes; the published data set has {expected.classes:,}."
        )
    for label, published in (("train", expected.train), ("test", expected.test)):
        if (images := int(checked.counts(label).sum())) != published:
            problems.append(
                f"There are {images:,} images in {label}; the published data set has {published:,}."
            )
    if expected.per_class is not None:
        counts, (low, high) = checked.counts("train"), expected.per_class
        if outside := torch.nonzero((counts < low) | (counts > high)).flatten().tolist():
            named = ", ".join(
                f"{source.classes[label]} {int(counts[label]):,}" for label in outside[:_MAX_NAMED]
            )
            more = f" and {len(outside) - _MAX_NAMED} more" if len(outside) > _MAX_NAMED else ""
            published_counts = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            what = f"{len(outside):,} classes have another number of training images than {published_counts}"
            problems.append(f"{what}: {named}{more}.")
    return problems
