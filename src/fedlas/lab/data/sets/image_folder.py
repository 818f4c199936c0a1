"""The user's own large images, one folder a class, read when they are needed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.pipeline.stratify import hold_out
from fedlas.lab.data.pipeline.view import View
from fedlas.lab.data.readers.layout import class_folders, is_image_name
from fedlas.lab.data.readers.roots import required_root
from fedlas.lab.data.sets.streamed_source import streamed_source

_TEST_FRACTION = 0.2
_LAYOUT = "Arrange the images as ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or as ROOT/CLASS/**."


@DATASETS.register(
    "image-folder", files="images in ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or in ROOT/CLASS/**"
)
def load_image_folder(
    root: str | None = None,
    *,
    resize: int = 256,
    crop: int = 224,
    train_crop: str = "random-resized",
    squash: bool = False,
    min_area: float = 0.08,
    interpolation: str = "bilinear",
    channels: int = 3,
) -> Source:
    """Your own large images, read when needed: ROOT/train/CLASS/** and ROOT/val/CLASS/** (or test), or ROOT/CLASS/**.

    As torchvision's ``ImageFolder``: classes are the names of the folders, sorted, and images may lie deeper. EXIF
    rotation is applied. For small images the data set ``folder`` is faster: it reads them into memory.

    Args:
        root: The folder.
        resize: Shorter side in pixels before a crop.
        crop: Height and width that the model gets.
        train_crop: ``random-resized``, ``random`` or ``centre``; see :class:`~fedlas.lab.data.pipeline.view.View`.
        squash: Resize to a square whatever the aspect ratio.
        min_area: Least share of the area that ``random-resized`` keeps.
        interpolation: ``bilinear`` or ``bicubic``.
        channels: 3 for colour, 1 for grey.

    Returns:
        A source with flips and ImageNet's mean and standard deviation. With folders ``train`` and ``test`` those are
        its parts, and a folder ``val`` beside them joins the training part, of which images to validate on are taken by
        seed. With ``train`` and ``val`` alone, ``val`` is the test part. Without them a stratified fifth is, the same
        for every seed.

    Raises:
        InputError: If folders or images are missing, there is only one class, or the parts have other classes.
    """
    if channels not in (1, 3):
        raise InputError("image-folder", "channels must be 1 (grey) or 3 (colour)", repr(channels), "Choose one.")
    view = View(resize, crop, train_crop, squash, min_area, interpolation, upright=True)
    place = required_root("image-folder", root, "a folder of images")
    if not place.is_dir():
        raise InputError("image-folder", "root must be a folder", f"the file {place}", _LAYOUT)
    try:
        held = [part for part in ("train", "val", "test") if _divided(place / part)]
        if held and ("train" not in held or len(held) == 1):
            raise InputError("image-folder", "there must be train, and val or test beside it", held, _LAYOUT)
        found = {part: _images(place, part) for part in held or [""]}
    except OSError as error:
        raise InputError("image-folder", "every folder must be readable", error, "Change its permissions.") from error
    classes = tuple(next(iter(found.values())))
    for part, by_class in found.items():
        if differing := sorted(set(classes) ^ set(by_class)):
            got = f"{len(differing)} in one of them only, such as {differing[0]!r}"
            fix = "Rename, add or remove class folders until both agree."
            raise InputError("image-folder", f"train and {part} must have the same classes", got, fix)
    listed = {
        part: [(name, label) for label, names in enumerate(by_class.values()) for name in names]
        for part, by_class in found.items()
    }
    if not held:
        target = np.array([label for _, label in listed[""]], dtype=np.int64)
        size = round(_TEST_FRACTION * len(target))
        kept, held_out = hold_out("image-folder", target, size, classes, stream(Purpose.FIXED_TEST))
        train, test = ([listed[""][row] for row in rows] for rows in (kept, held_out))
    else:
        test = listed["test" if "test" in held else "val"]
        train = listed["train"] + (listed["val"] if len(held) == 3 else [])
    name = f"image-folder {place}"
    return streamed_source(name, place, (train, test), classes, view, channels=channels)


def _divided(place: Path) -> bool:
    """Whether a folder is a part, not a class of that name: it has folders in it."""
    if not place.is_dir():
        return False
    with os.scandir(place) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _images(root: Path, part: str) -> dict[str, list[str]]:
    """Class -> paths of its images relative to ``root``, sorted."""
    found: dict[str, list[str]] = {}
    for folder in class_folders("image-folder", root / part):
        names = []
        for inner, _, files in os.walk(folder):
            below = Path(inner).relative_to(root).as_posix()
            names += [f"{below}/{file}" for file in files if is_image_name(file)]
        if not names:
            fix = "Add images, or remove the folder if it is not a class; archives in it must be extracted first."
            raise InputError("image-folder", "every class folder must hold images", f"none in {folder}", fix)
        found[folder.name] = sorted(names)
    return found
