"""List and check images in class folders, and divide them into parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.streams import Purpose, seeded_generator
from fedlas.lab.data.disk import require_root
from fedlas.lab.data.splits import hold_out

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes of image files."""

LabeledPaths = Sequence[tuple[str, int]]
"""Relative path and class of each image of a part."""

_TEST_FRACTION = 0.2
_PARTS = ("train", "val", "valid", "validation", "test")


def is_image_name(name: str) -> bool:
    """Return whether a file name has an image suffix and is not hidden."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122  # called a million times


def image_names(folder: Path) -> list[str]:
    """Return the sorted image names in ``folder``; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image_name(entry.name))


def class_folders(
    parent: Path, *, layout: str = "Arrange the images as PART/CLASS/*."
) -> list[Path]:
    """Return the visible folders in ``parent``, sorted by name.

    Args:
        parent: The folder.
        layout: Sentence that describes the expected arrangement of folders.

    Raises:
        InputError: If there are fewer than two folders.
    """
    folders = _visible_subfolders(parent)
    if len(folders) < 2:
        inner = folders[0] if folders and len(_visible_subfolders(folders[0])) > 1 else None
        raise InputError(
            "there must be at least two class folders",
            f"{', '.join(path.name for path in folders) or 'none'} in {parent}",
            f"Did you mean {inner}?" if inner else f"{layout} Archives must be extracted first.",
        )
    return folders


def list_train_test_images(
    root: str | None, *, layout: str, recursive: bool, val_from_train: bool = True
) -> tuple[Path, dict[str, LabeledPaths], tuple[str, ...]]:
    """Return the root folder, the labeled paths by part (``train``, ``test``, maybe ``val``) and the class names.

    The folders ``train`` and ``test`` or ``val`` are the parts; of all three, ``val`` joins the training part, unless
    validation is not to be drawn from it. Without such folders, a stratified fifth of all images is the test part, the
    same for every seed.

    Args:
        root: Folder from the user.
        layout: Sentence that describes the expected arrangement of folders.
        recursive: Whether to search folders below the class folders.
        val_from_train: Whether a seed draws the validation part from the training part; else it is the folder ``val``.

    Raises:
        InputError: As :func:`list_images_by_part`, or if there is no folder ``val`` next to ``train`` and ``test``.
    """
    place, parts = list_images_by_part(root, layout=layout, recursive=recursive)
    classes = tuple(next(iter(parts.values())))
    first, *rest = (
        [(name, label) for label, names in enumerate(by_class.values()) for name in names]
        for by_class in parts.values()
    )
    if not val_from_train:
        if len(rest) != 2:
            raise InputError(
                "with val_from_train=false there must be folders train, val and test",
                f"{', '.join(filter(None, parts)) or 'no parts'} in {place}",
                "Leave val_from_train out: a seed then draws validation images.",
            )
        return place, {"train": first, "val": rest[0], "test": rest[1]}, classes
    if rest:
        extra_train = [image for part in rest[:-1] for image in part]
        return place, {"train": [*first, *extra_train], "test": rest[-1]}, classes
    # Without folders of parts, a stratified fifth is the test part, the same for every seed.
    target = np.array([label for _, label in first], dtype=np.int64)
    size = round(_TEST_FRACTION * len(target))
    train, test = hold_out(target, size, classes, seeded_generator(Purpose.FIXED_TEST))
    divided: dict[str, LabeledPaths] = {
        "train": [first[row] for row in train],
        "test": [first[row] for row in test],
    }
    return place, divided, classes


def list_images_by_part(
    root: str | None, *, layout: str, recursive: bool
) -> tuple[Path, dict[str, dict[str, list[str]]]]:
    """Return the root folder, and the sorted image paths by part (``""`` without parts) and class.

    Args:
        root: Folder from the user.
        layout: Sentence that describes the expected arrangement of folders.
        recursive: Whether to search folders below the class folders.

    Raises:
        InputError: If folders or images are missing or cannot be read, there is only one class, or the parts differ in
            their classes.
    """
    place = require_root(root, "a folder of images")
    if not place.is_dir():
        raise InputError("root must be a folder", f"the file {place}", layout)
    try:
        # A folder without folders in it is a class of that name, not a part.
        names = [
            part for part in _PARTS if (place / part).is_dir() and _visible_subfolders(place / part)
        ]
        wrong_case = [
            each.name
            for each in _visible_subfolders(place)
            if each.name.lower() in _PARTS and each.name not in _PARTS
        ]
        if wrong_case and not names:
            raise InputError(
                "folders of parts must be named in lower case",
                f"{wrong_case[0]} in {place}",
                f"Rename it to {wrong_case[0].lower()}.",
            )
        if names and ("train" not in names or len(names) == 1):
            raise InputError(
                "root must have a folder train and a folder val or test",
                f"only {' and '.join(names)} in {place}",
                (
                    f"Add one, or pass {place / names[0]}: a fifth of it becomes the test part."
                    if len(names) == 1
                    else layout
                ),
            )
        parts = {
            part: _list_images_by_class(place, part, layout, recursive) for part in names or [""]
        }
    except OSError as error:
        raise InputError(
            "every folder must be readable", error, "Change its permissions."
        ) from error
    classes = tuple(next(iter(parts.values())))
    for part, by_class in parts.items():
        if differing := sorted(set(classes) ^ set(by_class)):
            where = "train" if differing[0] in classes else part
            raise InputError(
                f"train and {part} must have the same classes",
                f"{len(differing)} in only one of them, such as {differing[0]!r} in {where}",
                "Rename, add or remove class folders until both agree.",
            )
    return place, parts


def _visible_subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder``, sorted by name, without hidden ones."""
    with os.scandir(folder) as entries:
        return [
            folder / name
            for name in sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        ]


def _list_images_by_class(
    root: Path, part: str, layout: str, recursive: bool
) -> dict[str, list[str]]:
    """Return the sorted image paths of each class, relative to ``root``."""

    def raise_error(error: OSError) -> None:  # os.walk would skip a folder that it cannot read
        raise error

    images: dict[str, list[str]] = {}
    for folder in class_folders(root / part, layout=layout):
        names = []
        for inner, _, files in os.walk(folder, onerror=raise_error):
            below = Path(inner).relative_to(root).as_posix()
            names += [f"{below}/{file}" for file in files if is_image_name(file)]
            if not recursive:
                break
        if not names:
            raise InputError(
                f"every class folder must hold images ({', '.join(sorted(IMAGE_SUFFIXES))})",
                f"none in {folder}",
                "Add images, or remove the folder if it is not a class; archives in it must be extracted first.",
            )
        images[folder.name] = sorted(names)
    return images
