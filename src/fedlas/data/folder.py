"""The user's own images, one folder a class."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.extras import require
from fedlas.data.base import DATASETS, Images, Source
from fedlas.data.places import required_root
from fedlas.data.stratify import hold_out
from fedlas.data.streams import Purpose, stream

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
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
    images = _read_all(files, image_size, channels, max_gib)
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
                f"every class folder must hold images ({', '.join(sorted(_SUFFIXES))})",
                f"none in {place / name}",
                "Add images, or remove the folder if it is not a class.",
            )
    return found


def _subfolders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _read_all(files: list[Path], image_size: int | None, channels: int, max_gib: float) -> NDArray[np.uint8]:
    """All files as ``(N, channels, S, S)``."""
    first = _read(files[0], image_size, channels)
    gib = first.nbytes * len(files) / 2**30
    if gib > max_gib:
        raise InputError(
            "folder",
            f"the images must fit into max_gib={max_gib:g} GiB of memory",
            f"{len(files)} images of {first.shape[1]} x {first.shape[2]} x {channels} = {gib:.3g} GiB",
            "Choose a smaller image_size, or a larger max_gib if you have the memory (training needs it twice).",
        )
    images = np.empty((len(files), *first.shape), dtype=np.uint8)

    def fill(row: int) -> None:
        image = _read(files[row], image_size, channels)
        if image.shape != first.shape or image.shape[1] != image.shape[2]:
            raise InputError(
                "folder",
                "without image_size all images must be square and of one size",
                f"{files[row]} with {image.shape[1]} x {image.shape[2]}, after {files[0]} with "
                f"{first.shape[1]} x {first.shape[2]}",
                "Pass image_size, e.g. image_size=32.",
            )
        images[row] = image

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter lock
        for _ in pool.map(fill, range(len(files))):
            pass
    return images


def _read(file: Path, image_size: int | None, channels: int) -> NDArray[np.uint8]:
    """One image as ``(channels, H, W)``."""
    pil: Any = require("PIL.Image", extra="data")
    ops: Any = require("PIL.ImageOps", extra="data")
    try:
        with pil.open(file) as opened:
            if opened.mode.startswith(("I", "F")):  # Pillow would clip such values to 255, not scale them
                raise InputError("folder", "images must have 8 bits a channel", f"{file} in mode {opened.mode}", _DEPTH)
            image = ops.exif_transpose(opened).convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, EOFError, pil.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "folder",
            "every file with an image suffix must be a readable image",
            f"{file} ({type(error).__name__}: {error})",
            "Repair or remove the file.",
        ) from error
    if image_size is not None:
        image = _shorter_side(image, image_size, pil.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


_DEPTH = "Convert it to 8 bits, choosing yourself which value becomes white."


def _shorter_side(image: Any, size: int, resampling: Any) -> Any:
    """``image`` resized until its shorter side is ``size``, then its centre square."""
    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if image.size != (width, height):
        image = image.resize((width, height), resampling)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
