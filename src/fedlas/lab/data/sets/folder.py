"""The user's own images, one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.pipeline.stratify import hold_out
from fedlas.lab.data.readers.image_files import read_pictures
from fedlas.lab.data.readers.layout import SUFFIXES, is_image_name
from fedlas.lab.data.readers.roots import required_root

_TEST_FRACTION = 0.2
_LAYOUT = "Arrange the images as ROOT/train/CLASS/* and ROOT/test/CLASS/*, or as ROOT/CLASS/*."


@DATASETS.register("folder", files="images in ROOT/train/CLASS/* and ROOT/test/CLASS/*, or in ROOT/CLASS/*")
def load_folder(
    root: str | None = None, *, image_size: int | None = None, channels: int = 3, max_gib: float = 4.0
) -> Source:
    """Your own images: ROOT/train/CLASS/* and ROOT/test/CLASS/*, or ROOT/CLASS/*.

    Files are read once into memory. Hidden files and files without an image suffix are passed over; images lying deeper
    than in their class folder are not looked for. EXIF rotation is applied. Without folders ``train`` and ``test``, a
    stratified fifth of the images, the same for every seed, becomes the test part.

    Args:
        root: The folder.
        image_size: Resize the shorter side to this many pixels and cut the centre square. None: as they are, all square
            and of one size.
        channels: 3 for colour, 1 for grey.
        max_gib: Most memory the images may take, in GiB.

    Returns:
        A source with the folder names, sorted, as classes. No flips, no crops unless asked for: only you know whether
        they leave the class of your images alone.

    Raises:
        InputError: If folders or images are missing, unreadable (the file is named), of different sizes, deeper than
            8 bits, or too large for ``max_gib``; if there is only one class; if train and test have other classes.
    """
    if channels not in (1, 3):
        raise InputError("folder", "channels must be 1 (grey) or 3 (colour)", repr(channels), "Choose one of them.")
    if image_size is not None:
        check_count("folder", "image_size", image_size)
    check_number("folder", "max_gib", max_gib, low=0, low_open=True)
    place = required_root("folder", root, "a folder of images")
    if not place.is_dir():
        raise InputError("folder", "root must be a folder", f"the file {place}", _LAYOUT)
    try:
        parts = _find(place)
    except OSError as error:
        raise InputError("folder", "every folder must be readable", error, "Change its permissions.") from error
    classes = tuple(parts["train"])
    files = [file for part in parts.values() for paths in part.values() for file in paths]
    target = np.array([label for part in parts.values() for label, name in enumerate(part) for _ in part[name]])
    images = read_pictures("folder", files, image_size=image_size, channels=channels, max_gib=max_gib)
    if "test" in parts:
        kept, held_out = np.split(np.arange(len(files)), [sum(map(len, parts["train"].values()))])
    else:
        random = stream(Purpose.FIXED_TEST)
        kept, held_out = hold_out("folder", target, round(_TEST_FRACTION * len(files)), classes, random)
    train, test = (Images(torch.from_numpy(images[rows]), torch.from_numpy(target[rows])) for rows in (kept, held_out))
    return Source(f"folder {place}", train, test, classes)


def _find(place: Path) -> dict[str, dict[str, list[Path]]]:
    """Part -> class -> files; the only part is ``train`` if the folder is not divided."""
    divided = [part for part in ("train", "test") if (place / part).is_dir() and _subfolders(place / part)]
    if len(divided) == 1:
        other = "test" if divided == ["train"] else "train"
        raise InputError("folder", f"beside {divided[0]} there must be {other}", f"no folder {place / other}", _LAYOUT)
    if not divided:
        return {"train": _find_classes(place)}
    parts = {part: _find_classes(place / part) for part in divided}
    if differing := sorted(set(parts["train"]) ^ set(parts["test"])):
        where = "train" if differing[0] in parts["train"] else "test"
        raise InputError(
            "folder",
            "train and test must have the same classes",
            f"{len(differing)} in one of them only, such as {differing[0]!r} in {where}",
            "Rename, add or remove class folders until both agree.",
        )
    return parts


def _find_classes(place: Path) -> dict[str, list[Path]]:
    folders = _subfolders(place)
    if len(folders) < 2:
        got = ", ".join(folder.name for folder in folders) or "none"
        raise InputError("folder", "there must be at least two class folders", f"{got} in {place}", _LAYOUT)
    found = {folder.name: sorted(path for path in folder.iterdir() if _is_image(path)) for folder in folders}
    for name, files in found.items():
        if not files:
            raise InputError(
                "folder",
                f"every class folder must hold images ({', '.join(sorted(SUFFIXES))})",
                f"none in {place / name}",
                "Add images, or remove the folder if it is not a class.",
            )
    return found


def _subfolders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return is_image_name(path.name) and path.is_file()
