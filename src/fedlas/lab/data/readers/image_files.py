"""Image files: one decoded, or many read into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import is_file
from fedlas.lab.data.readers.places import unreadable

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Those whose suffixes are image suffixes. Pillow goes by content, and hands PostScript to another program."""
_MOST_PIXELS = 80_000_000
"""Decoded, they take 240 MB. Pillow warns from 89 million on."""
_READABLE = "every file with an image suffix must be a readable image"
_SET_SIZE = "Pass image_size, e.g. image_size=32 (--set data.image_size=32 on the command line)."


def open_image(owner: str, file: Path, *, channels: int = 3, upright: bool = True) -> Any:
    """Decode one image file into a PIL image of mode RGB or L.

    Args:
        owner: Data set, named in errors.
        file: The file.
        channels: 3 for color, 1 for gray.
        upright: Apply the EXIF rotation.

    Raises:
        InputError: If the file is missing, is not a readable image, or has more than 8 bits per channel.
    """
    pil: Any = require("PIL.Image", extra="data")
    fix = "Repair or remove the file."
    if os.path.exists(file) and not is_file(file):  # noqa: PTH110 - as is_file; a pipe would be waited for
        raise InputError(owner, _READABLE, f"{file}, which is no file", fix)
    try:
        with pil.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                got = f"{file} of {opened.width:,} x {opened.height:,}"
                raise InputError(owner, f"an image must have at most {_MOST_PIXELS:,} pixels", got, "Make it smaller.")
            if opened.mode.startswith(("I", "F")):  # Pillow would clip such values to 255, not scale them
                convert = "Convert it to 8 bits, and choose which value becomes white."
                raise InputError(owner, "images must have 8 bits a channel", f"{file} in mode {opened.mode}", convert)
            turned = require("PIL.ImageOps", extra="data").exif_transpose(opened) if upright else opened
            return turned.convert("RGB" if channels == 3 else "L")
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, pil.DecompressionBombError) as error:
        raise unreadable(owner, _READABLE, file, error, fix) from error


def check_channels(owner: str, channels: object) -> None:
    """Refuse another number of channels than 1 or 3.

    Raises:
        InputError: For any other value.
    """
    if channels not in (1, 3):
        raise InputError(owner, "channels must be 1 (gray) or 3 (color)", repr(channels), "Choose one of them.")


def read_images(
    owner: str,
    files: Sequence[Path],
    *,
    image_size: int | None = None,
    channels: int = 3,
    upright: bool = True,
    max_gib: float = 4.0,
) -> NDArray[np.uint8]:
    """Decode all files into memory, on every core.

    Args:
        owner: Data set, named in errors.
        files: At least one.
        image_size: Resize the shorter side to this many pixels and crop the center square; None keeps the size.
        channels: 3 for color, 1 for gray.
        upright: Apply the EXIF rotation.
        max_gib: Most memory they may take, in GiB.

    Returns:
        ``(N, channels, S, S)``.

    Raises:
        InputError: If a file cannot be read, the images are not square and of one size, or they need more memory.
    """

    def read(file: Path) -> NDArray[np.uint8]:
        image = open_image(owner, file, channels=channels, upright=upright)
        if image_size is not None:
            image = _shorter_side(image, image_size)
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

    # Refuse too much memory before all files are read.
    first = read(files[0])
    gib = first.nbytes * len(files) / 2**30
    if gib > max_gib:
        raise InputError(
            owner,
            f"the images must fit into max_gib={max_gib:g} GiB of memory",
            f"{len(files)} images of {first.shape[1]} x {first.shape[2]} x {channels} = {gib:.3g} GiB",
            "Choose a smaller image_size, or a larger max_gib if you have the memory (training needs it twice).",
        )
    # Decode every file into its place.
    images = np.empty((len(files), *first.shape), dtype=np.uint8)

    def fill(row: int) -> None:
        image = read(files[row])
        height, width = image.shape[1:]
        if height != width:
            got = f"{files[row]} with {height} x {width}"
            raise InputError(owner, "without image_size all images must be square", got, _SET_SIZE)
        if image.shape != first.shape:
            got = f"{files[row]} with {height} x {width} and {files[0]} with {first.shape[1]} x {first.shape[2]}"
            raise InputError(owner, "without image_size all images must be of one size", got, _SET_SIZE)
        images[row] = image

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter lock
        for _ in pool.map(fill, range(len(files))):
            pass
    return images


def _shorter_side(image: Any, size: int) -> Any:
    """``image`` resized to a shorter side of ``size``, then its center square."""
    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if image.size != (width, height):
        image = image.resize((width, height), require("PIL.Image", extra="data").Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
