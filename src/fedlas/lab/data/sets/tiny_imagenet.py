"""Tiny-ImageNet, from the folders of its zip archive."""

from __future__ import annotations

from pathlib import Path

import torch

from fedlas._core.check import InputError
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.readers.class_folders import image_names
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.image_files import read_images
from fedlas.lab.data.readers.layout import Layout, require_listed
from fedlas.lab.data.readers.synsets import synset_names, synset_words
from fedlas.lab.data.readers.unreadable import read_lines, read_table

_FETCH = "It is http://cs231n.stanford.edu/tiny-imagenet-200.zip."
_LAYOUT = Layout(
    "tiny-imagenet",
    ("wnids.txt", "words.txt", "train", "val"),
    ("tiny-imagenet-200", "tiny-imagenet"),
    ("tiny",),
    _FETCH,
)
_AGAIN = f"The archive was extracted only in part, or images were moved: extract it again. {_FETCH}"


@DATASETS.register(
    "tiny-imagenet",
    paper="Le and Yang 2015",
    url="http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf",
    files="the folder tiny-imagenet-200 of its archive",
    expected=Expected(train=100_000, test=10_000, classes=200, per_class=(500, 500)),
)
def load_tiny_imagenet(root: str | None = None, *, max_gib: float = 4.0) -> Source:
    """110,000 color photographs of 64 x 64 pixels in 200 classes: 100,000 to train, 10,000 to test.

    The official validation part is the test part, since the official test part has no labels; validation images are
    drawn from the training part (with ``val_size`` 10000, 50 per class, which leaves 450 to train on).

    Args:
        root: The folder ``tiny-imagenet-200``, or one that holds it (None: ``$FEDLAS_DATA``).
        max_gib: Most memory the images may take, in GiB; all of them are 1.3.

    Returns:
        A source with crops (padding 4) and flips; classes are in the order of their synsets, as in ``ImageFolder``.

    Raises:
        InputError: If the folder is missing or incomplete, or holds an unreadable image.
    """
    folder = _LAYOUT.locate(root)
    synsets = sorted(read_lines("tiny-imagenet", folder / "wnids.txt"))
    train = [folder / "train" / name for name in _train_names(folder / "train", synsets)]
    train_target = torch.arange(len(synsets)).repeat_interleave(len(train) // len(synsets))
    test, test_target = _test_files(folder / "val", synsets)
    share = max_gib / (len(train) + len(test))  # per file
    train_part, test_part = (
        Images(torch.from_numpy(read_images("tiny-imagenet", files, upright=False, max_gib=share * len(files))), target)
        for files, target in ((train, train_target), (test, test_target))
    )
    classes = synset_names(synsets, synset_words("tiny-imagenet", folder / "words.txt", separator="\t"))
    mean, std = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
    return Source("tiny-imagenet", train_part, test_part, classes, flip=True, crop_padding=4, mean=mean, std=std)


def _train_names(place: Path, synsets: list[str]) -> list[str]:
    """All training images, synset by synset, relative to ``place``; equally many of each."""
    names = {synset: image_names(place / synset / "images") for synset in synsets}
    most = max(map(len, names.values()))
    if short := [synset for synset, held in names.items() if len(held) < max(most, 1)]:
        raise InputError(
            "tiny-imagenet",
            f"train must have as many images of each of its {len(synsets)} classes",
            f"{len(names[short[0]])} of {short[0]} where others have {most}, and {len(short)} such classes in {place}",
            _AGAIN,
        )
    return [f"{synset}/images/{name}" for synset, held in names.items() for name in held]


def _test_files(place: Path, synsets: list[str]) -> tuple[list[Path], torch.Tensor]:
    """The official validation part: as published, or in a folder per class, as many scripts arrange it."""
    number = {synset: label for label, synset in enumerate(synsets)}
    if (place / "images").is_dir():
        rows = read_table("tiny-imagenet", place / "val_annotations.txt", 3, separator="\t")
        require_listed("tiny-imagenet", place / "images", [row[0] for row in rows], "val_annotations.txt")
        if foreign := [row[1] for row in rows if row[1] not in number]:
            got = f"{len(foreign)} others, the first {foreign[0]}"
            raise InputError("tiny-imagenet", "val_annotations.txt must name classes of wnids.txt", got, _AGAIN)
        files = [place / "images" / row[0] for row in rows]
        return files, torch.tensor([number[row[1]] for row in rows])
    found = {synset: place / synset / "images" for synset in synsets}
    found = {synset: inner if inner.is_dir() else place / synset for synset, inner in found.items()}
    named = [(folder / name, number[synset]) for synset, folder in found.items() for name in image_names(folder)]
    if len({label for _, label in named}) < len(synsets):
        got = f"{len({label for _, label in named})} of {len(synsets)} classes in {place}"
        raise InputError("tiny-imagenet", "val must have images of each class", got, _AGAIN)
    return [file for file, _ in named], torch.tensor([label for _, label in named])
