"""Classes of ImageNet's validation images, from folders or from one of the files that list them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.data.readers.class_folders import image_names
from fedlas.lab.data.readers.matlab import read_mat
from fedlas.lab.data.readers.unreadable import read_lines, read_table, unreadable

_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_KAGGLE = "LOC_val_solution.csv"
_PLAIN = ("val.txt", "val_annotations.txt", "imagenet_2012_validation_synset_labels.txt")
_AGAIN = "The file is cut off or does not belong to these images: get it again."


def validation_images(folder: Path, number: Mapping[str, int]) -> list[tuple[str, int]]:
    """Path below ``folder`` and class of each validation image.

    Args:
        folder: Holds ``val``.
        number: Synset (the name of a class folder) to class.

    Raises:
        InputError: If ``val`` holds images but no file lists their classes, or the file does not fit the images.
    """
    place = folder / "val"
    flat = image_names(place)
    # In a folder for each class, as training images are.
    if not flat:
        return [
            (f"val/{synset}/{name}", label) for synset, label in number.items() for name in image_names(place / synset)
        ]
    # In one folder: the classes stand in a list.
    labels = _labels(folder, flat, number)
    if labels is None:
        raise InputError(
            "imagenet",
            "val must hold a folder for each class, or a file must list the classes of its images",
            f"{len(flat)} images in {place} and none of {_DEVKIT}, {_KAGGLE}, {', '.join(_PLAIN)} beside it",
            f"Put the extracted development kit ({_DEVKIT}, with data/meta.mat and data/{_TRUTH}), or Kaggle's "
            f"{_KAGGLE}, or val.txt with lines 'FILE SYNSET', into {folder}.",
        )
    if absent := [name for name in flat if labels.get(name) not in number]:
        got = f"none for {len(absent)} of {len(flat)}, the first {absent[0]} ({labels.get(absent[0])})"
        raise InputError("imagenet", "every validation image must have a class that train has", got, _AGAIN)
    if len(labels) > len(flat):
        got = f"{len(flat)} in {place} of {len(labels)} listed"
        fix = "The archive was extracted only in part: extract it again."
        raise InputError("imagenet", "every listed validation image must be there", got, fix)
    return [(f"val/{name}", number[labels[name]]) for name in flat]


def _labels(folder: Path, names: list[str], number: Mapping[str, int]) -> dict[str, str] | None:
    """Image to synset; None without such a file."""
    for place in (folder, folder / "val", *list(folder.resolve().parents)[:3]):
        if (place / _DEVKIT / "data" / _TRUTH).is_file():
            return _from_devkit(place / _DEVKIT / "data", names)
        if (place / _KAGGLE).is_file():
            rows = read_table("imagenet", place / _KAGGLE, 2, separator=",")[1:]
            return {f"{row[0]}.JPEG": row[1].split()[0] for row in rows}
        for name in _PLAIN:
            if (place / name).is_file():
                return dict(_from_text(place / name, names, number))
    return None


def _from_text(path: Path, names: list[str], number: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Image and synset from lines ``FILE SYNSET`` or ``FILE NUMBER``, or ``SYNSET`` in the order of the names."""
    synsets = list(number)
    lines = [line.split() for line in read_lines("imagenet", path)]
    if all(len(line) == 1 for line in lines):
        if len(lines) != len(names):
            got = f"{len(lines)} lines in {path} for {len(names)} images"
            raise InputError("imagenet", "there must be a line for each validation image", got, _AGAIN)
        yield from zip(names, (line[0] for line in lines), strict=True)
        return
    for line in lines:
        if len(line) < 2:
            raise InputError("imagenet", f"each line of {path.name} must be FILE SYNSET", " ".join(line), _AGAIN)
        numbered = line[1].isdecimal() and int(line[1]) < len(synsets)
        yield Path(line[0]).name, synsets[int(line[1])] if numbered else line[1]


def _from_devkit(place: Path, names: list[str]) -> dict[str, str]:
    """Image to synset from the development kit: a number for each image, and a Matlab file with the synsets."""
    (rows,) = read_mat("imagenet", place / "meta.mat", ("synsets",), _AGAIN)
    try:
        synset_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    except (ValueError, TypeError, IndexError) as error:
        expected = "meta.mat must hold ILSVRC2012_ID and WNID"
        raise unreadable("imagenet", expected, place / "meta.mat", error, _AGAIN) from error
    numbers = read_lines("imagenet", place / _TRUTH)
    if len(numbers) < len(names):
        got = f"{len(numbers)} in {_TRUTH} for {len(names)} images"
        raise InputError("imagenet", "there must be a label for each validation image", got, _AGAIN)
    if strange := [text for text in numbers if not text.isdecimal() or int(text) not in synset_of]:
        raise InputError("imagenet", f"{_TRUTH} must hold numbers of meta.mat", repr(strange[0]), _AGAIN)
    # Line n belongs to the image with number n in its name, so missing images do not shift the others.
    return {f"ILSVRC2012_val_{line:08d}.JPEG": synset_of[int(text)] for line, text in enumerate(numbers, start=1)}
