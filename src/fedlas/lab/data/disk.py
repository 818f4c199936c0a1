"""Files of data sets on disk: folders, text files and images, and the damage of unreadable files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import is_file

T = TypeVar("T")
DATA_VARIABLE = "FEDLAS_DATA"
_LFS_POINTER = (
    "it is a pointer of Git LFS, not the file itself",
    "Run 'git lfs pull' in its repository.",
)
_WEB_PAGE = "it is a web page", "The download got an error page: fetch it again."
_DAMAGE_BY_FIRST_BYTES = {
    b"version https://git-lfs": _LFS_POINTER,
    b"<!doctype": _WEB_PAGE,
    b"<html": _WEB_PAGE,
}


def data_folder(root: str | None) -> Path | None:
    """Return ``root``, else ``$FEDLAS_DATA``, with ``~`` expanded; None if neither is set."""
    place = root if root is not None else os.environ.get(DATA_VARIABLE)
    return Path(place).expanduser() if place else None


def require_root(root: str | None, kind: str) -> Path:
    """Return ``root`` as an existing path.

    Args:
        root: Path from the user.
        kind: Kind of file or folder that is expected, e.g. ``"an .npz file"``.

    Raises:
        InputError: If ``root`` is None or does not exist.
    """
    expected = f"root must be the path of {kind}"
    if root is None:
        raise InputError(
            expected, "no root", f"Pass root=PATH of {kind} (--data PATH on the command line)."
        )
    path = Path(root).expanduser()
    try:
        problem = "" if path.exists() else ", which does not exist"
    except OSError as error:  # a folder on the way cannot be entered
        problem = f" ({error.strerror})"
    if problem:
        raise InputError(expected, f"{path}{problem}", "Check the path.")
    return path


def find_dataset_folder(
    root: str | None, folder_names: Sequence[str], required_names: Sequence[str], instructions: str
) -> Path:
    """Return the folder of a published data set: ``root``, by default ``$FEDLAS_DATA``, or a usual subfolder.

    Args:
        root: Path from the user.
        folder_names: Usual names of the folder, the published one first.
        required_names: Files and folders that the folder must contain.
        instructions: Where to get the data set, as a full sentence.

    Raises:
        InputError: If the folder is missing or incomplete; the message names what is missing.
    """
    folder = data_folder(root)
    expected = f"the folder of the data set must hold {', '.join(required_names)}"
    if folder is None:
        raise InputError(
            expected,
            f"no root, and ${DATA_VARIABLE} is not set",
            f"Pass root=FOLDER or set {DATA_VARIABLE}. {instructions}",
        )
    candidates = [folder, *(folder / name for name in folder_names)]
    missing = {
        place: [mark for mark in required_names if not os.path.exists(place / mark)]  # noqa: PTH110
        for place in candidates
    }
    most_complete = min(candidates, key=lambda place: len(missing[place]))
    if len(missing[most_complete]) == len(required_names):
        raise InputError(
            expected,
            f"none of them in {folder}",
            f"Check the path, and extract archives first. {instructions}",
        )
    if missing[most_complete]:
        raise InputError(
            expected,
            f"{most_complete} without {', '.join(missing[most_complete])}",
            f"The archive was extracted only in part: extract it again. {instructions}",
        )
    return most_complete


def require_listed_files(folder: Path, names: Sequence[str], list_name: str) -> None:
    """Raise InputError unless every listed file exists.

    Args:
        folder: Folder that the names are relative to.
        names: Relative paths.
        list_name: Name of the list.

    Raises:
        InputError: If some are missing, with their number and the first name.
    """
    if missing := [name for name in names if not os.path.isfile(folder / name)]:  # noqa: PTH113 - as is_file of files
        raise InputError(
            f"every image listed in {list_name} must exist",
            f"{len(missing)} of {len(names)} missing in {folder}, the first {missing[0]}",
            "The archive was extracted only in part, or images were moved: extract it again.",
        )


def diagnose_damage(path: Path) -> tuple[str, str]:
    """Return what is wrong with an unreadable file, judged by its first bytes, and how to fix it.

    Args:
        path: A path that exists but could not be read.

    Returns:
        The damage as a clause and the remedy as a sentence; two empty strings if the damage is not recognized.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
            return "it is not a regular file", "Remove it."
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return "", ""
    if not head:
        return "it is empty", "The download or the extraction was cut off: do it again."
    return next(
        (kind for start, kind in _DAMAGE_BY_FIRST_BYTES.items() if head.lower().startswith(start)),
        ("", ""),
    )


def unreadable_file_error(expected: str, path: Path, error: Exception, fix: str) -> InputError:
    """Return the error for an unreadable file, with the kind of damage if it is recognized.

    Args:
        expected: Kind of file that is expected.
        path: The file.
        error: Error of reading it.
        fix: Fix to suggest if the damage is not recognized.
    """
    what, better_fix = diagnose_damage(path)
    reason = str(error).replace(f" {str(path)!r}", "")  # Pillow and the system name the file again
    return InputError(
        expected, f"{path} ({what or f'{type(error).__name__}: {reason}'})", better_fix or fix
    )


def read_text_columns(
    path: Path, num_columns: int = 1, *, separator: str | None = None
) -> list[list[str]]:
    """Return the cells of each non-empty line of a text file; further separators stay in the last cell.

    Args:
        path: The file.
        num_columns: Number of cells in each line.
        separator: Separator of the cells; None is white space.

    Raises:
        InputError: If the file cannot be read, is empty, a Git LFS pointer or a web page, or a line has fewer cells.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if what := diagnose_damage(path)[0]:
            raise ValueError(what)
        rows = [
            line.strip().split(separator, num_columns - 1)
            for line in text.splitlines()
            if line.strip()
        ]
        if short := next((row for row in rows if len(row) != num_columns), None):
            raise ValueError(
                f"{len(short)} of {num_columns} columns in the line {' '.join(short)[:80]!r}"
            )
    except (OSError, ValueError) as error:
        raise unreadable_file_error(
            f"{path.name} must be the readable text file of the data set",
            path,
            error,
            "The data set is incomplete: extract its archive again.",
        ) from error
    return rows


_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of the image suffixes. Pillow recognizes files by content, and would pass PostScript to another program."""
_MAX_PIXELS = 80_000_000
"""Decoded, an image of this size takes 240 MB. Pillow warns from 89 million pixels on."""
_MUST_BE_READABLE = "every file with an image suffix must be a readable image"
_IMAGE_SIZE_FIX = (
    "Pass image_size, e.g. image_size=32 (--set data.image_size=32 on the command line)."
)


def open_image(file: Path | bytes, *, channels: int = 3, upright: bool = True) -> Any:
    """Decode one image file into a PIL image of mode RGB or L.

    Args:
        file: The file, or its content.
        channels: 3 for color, 1 for gray.
        upright: Apply the EXIF rotation.

    Raises:
        InputError: If the file is missing, is not a readable image, or has more than 8 bits per channel.
    """
    pil: Any = require("PIL.Image", extra="bench")
    fix = "Repair or remove the file."
    source: Any = file
    if isinstance(file, bytes):
        source = io.BytesIO(file)
        file = Path(f"image of {len(file):,} bytes")
    elif os.path.exists(file) and not is_file(file):  # noqa: PTH110 - as is_file; a pipe would be waited for
        raise InputError(_MUST_BE_READABLE, f"{file}, which is not a regular file", fix)
    try:
        with pil.open(source, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                raise InputError(
                    f"an image must have at most {_MAX_PIXELS:,} pixels",
                    f"{file} of {opened.width:,} x {opened.height:,}",
                    "Make it smaller.",
                )
            # Pillow would clip such values to 255, not scale them
            if opened.mode.startswith(("I", "F")):
                raise InputError(
                    "images must have 8 bits per channel",
                    f"{file} in mode {opened.mode}",
                    "Convert it to 8 bits, and choose which value becomes white.",
                )
            upright_image = (
                require("PIL.ImageOps", extra="bench").exif_transpose(opened) if upright else opened
            )
            return upright_image.convert("RGB" if channels == 3 else "L")
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, pil.DecompressionBombError) as error:
        raise unreadable_file_error(_MUST_BE_READABLE, file, error, fix) from error


def check_channels(channels: object) -> None:
    """Raise InputError unless ``channels`` is 1 or 3.

    Raises:
        InputError: For any other value.
    """
    if channels not in (1, 3):
        raise InputError(
            "channels must be 1 (gray) or 3 (color)", repr(channels), "Choose one of them."
        )


def read_images(
    files: Sequence[Path | bytes],
    *,
    image_size: int | None = None,
    channels: int = 3,
    upright: bool = True,
    max_gib: float = 4.0,
) -> NDArray[np.uint8]:
    """Decode image files into one array, using all cores.

    Args:
        files: Files or their contents, at least one.
        image_size: Resize the shorter side to this many pixels and crop the center square; None keeps the size.
        channels: 3 for color, 1 for gray.
        upright: Apply the EXIF rotation.
        max_gib: Most memory that the images may take, in GiB.

    Returns:
        ``(N, channels, S, S)``.

    Raises:
        InputError: If a file cannot be read, the images are not square and of one size, or they need more memory.
    """

    def read_pixels(file: Path | bytes) -> NDArray[np.uint8]:
        """Return the pixels of one file, resized if ``image_size`` is set."""
        image = open_image(file, channels=channels, upright=upright)
        if image_size is not None:
            bilinear = require("PIL.Image", extra="bench").Resampling.BILINEAR
            image = require("PIL.ImageOps", extra="bench").fit(
                image, (image_size, image_size), bilinear
            )
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

    # The memory is estimated from the first image, before all files are read.
    first = read_pixels(files[0])
    gib = first.nbytes * len(files) / 2**30
    if gib > max_gib:
        raise InputError(
            f"the images must fit into max_gib={max_gib:g} GiB of memory",
            f"{len(files)} images of {first.shape[1]} x {first.shape[2]} x {channels} = {gib:.3g} GiB",
            "Choose a smaller image_size, or a larger max_gib if you have the memory (training needs it twice).",
        )
    # Decode every file into its place.
    images = np.empty((len(files), *first.shape), dtype=np.uint8)

    def describe_file(row: int) -> object:
        return f"image {row}" if isinstance(files[row], bytes) else files[row]

    def read_into_array(row: int) -> None:
        """Decode one file into its place of the array; raise InputError for another size."""
        image = read_pixels(files[row])
        height, width = image.shape[1:]
        if height != width:
            raise InputError(
                "without image_size all images must be square",
                f"{describe_file(row)} with {height} x {width}",
                _IMAGE_SIZE_FIX,
            )
        if image.shape != first.shape:
            raise InputError(
                "without image_size all images must have the same size",
                f"{describe_file(row)} with {height} x {width} and "
                f"{describe_file(0)} with {first.shape[1]} x {first.shape[2]}",
                _IMAGE_SIZE_FIX,
            )
        images[row] = image

    for _ in map_in_threads(read_into_array, range(len(files))):
        pass
    return images


def map_in_threads(function: Callable[[Any], T], items: Sequence[Any]) -> Iterator[T]:
    """Apply ``function`` to each item in threads, since decoding releases the GIL, and yield the results in order."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), 1000):  # a million futures at once take a gigabyte
            yield from pool.map(function, items[start : start + 1000])
