"""ImageNet-1k (ILSVRC 2012), from its folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.lab.data.base import DATASETS, Source
from fedlas.lab.data.pipeline.view import Interpolation, TrainCrop, View
from fedlas.lab.data.readers.class_folders import class_folders, image_names
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.imagenet_val import validation_images
from fedlas.lab.data.readers.layout import Layout
from fedlas.lab.data.readers.synsets import synset_names, synset_words
from fedlas.lab.data.sets.streamed_source import streamed_source

_FETCH = "It is ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, https://www.image-net.org (an account is needed)."
_LAYOUT = Layout(
    "imagenet",
    ("train", "val"),
    ("imagenet", "imagenet-1k", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"),
    ("ilsvrc", "imagenet"),
    _FETCH,
)
_EXPECTED = Expected(train=1_281_167, test=50_000, classes=1_000, per_class=(732, 1_300))
_WORDS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")


@DATASETS.register(
    "imagenet",
    paper="Russakovsky et al. 2015",
    url="https://arxiv.org/abs/1409.0575",
    files="train/SYNSET/*.JPEG and val/SYNSET/*.JPEG, or val/*.JPEG with the development kit",
    expected=_EXPECTED,
)
def load_imagenet(
    root: str | None = None,
    *,
    partial: bool = False,
    resize: int = 256,
    crop: int = 224,
    train_crop: TrainCrop = "random-resized",
    squash: bool = False,
    min_area: float = 0.08,
    interpolation: Interpolation = "bilinear",
) -> Source:
    """1,331,167 photographs in 1,000 classes (ILSVRC 2012): 1,281,167 to train, 50,000 to test; read when needed.

    The official validation part is the test part, since the official test part has no labels; validation images are
    drawn from the training part.

    Args:
        root: The folder with ``train`` and ``val``, or one that holds it under a usual name (None: ``$FEDLAS_DATA``).
            ``val`` may hold one folder per class, or all images if the development kit, Kaggle's
            ``LOC_val_solution.csv`` or a ``val.txt`` is next to it.
        partial: Accept fewer classes or images than the whole data set has, such as ImageNet-100.
        resize: Shorter side in pixels before a crop.
        crop: Height and width that the model gets.
        train_crop: ``random-resized``, ``random`` or ``center``; see :class:`~fedlas.lab.data.View`.
        squash: Resize to a square whatever the aspect ratio.
        min_area: Least share of the area that ``random-resized`` keeps.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        A source with flips; classes are in the order of their synsets, as in ``ImageFolder`` and pre-trained models.

    Raises:
        InputError: If the folder is missing or, without ``partial``, incomplete; if train and val differ in classes.
    """
    view = View(resize, crop, train_crop, squash, min_area, interpolation)
    folder = _LAYOUT.locate(root)
    if archives := [path.name for path in sorted((folder / "train").glob("*.tar"))]:
        raise InputError(
            "imagenet",
            "the archives in train, one a class, must be extracted",
            f"{len(archives)} in {folder / 'train'}, the first {archives[0]}",
            "In that folder: for f in *.tar; do mkdir -p ${f%.tar} && tar -xf $f -C ${f%.tar} && rm $f; done",
        )
    # Classes are numbered in the order of their synsets, as torchvision numbers them.
    synsets = [path.name for path in class_folders("imagenet", folder / "train")]
    number = {synset: label for label, synset in enumerate(synsets)}
    train = [
        (f"train/{synset}/{name}", label)
        for synset, label in number.items()
        for name in image_names(folder / "train" / synset)
    ]
    test = validation_images(folder, number)
    # The counts are checked on names alone; no image is opened before training needs it.
    _check(folder, synsets, train, test, partial=partial)
    return streamed_source("imagenet", folder, (train, test), synset_names(synsets, _words(folder, synsets)), view)


def _check(
    folder: Path, synsets: list[str], train: list[tuple[str, int]], test: list[tuple[str, int]], *, partial: bool
) -> None:
    for name, part in (("train", train), ("val", test)):
        held = {label for _, label in part}
        if absent := [synset for label, synset in enumerate(synsets) if label not in held]:
            raise InputError(
                "imagenet",
                f"{name} must have images of each of the {len(synsets)} classes in train",
                f"none for {len(absent)}, the first {absent[0]}, in {folder / name}",
                "An archive was extracted only in part, or it is another data set. Images must lie directly in the "
                "folder of their class.",
            )
    # A part of ImageNet would give numbers that look like those of the whole.
    got = len(synsets), len(train), len(test)
    whole = _EXPECTED.classes, _EXPECTED.train, _EXPECTED.test
    if got != whole and not partial:
        raise InputError(
            "imagenet",
            "there must be {:,} classes, {:,} images in train and {:,} in val".format(*whole),
            "{:,} classes, {:,} and {:,} in {}".format(*got, folder),
            "Extract the archives again (fedlas data check says which classes are short), or set data.partial=true "
            "for a part of ImageNet.",
        )


def _words(folder: Path, synsets: Sequence[str]) -> Mapping[str, str]:
    """Names of synsets, from a file near the images or from torchvision; empty for a part of ImageNet without one."""
    for place in (folder, *list(folder.resolve().parents)[:3]):
        for name in _WORDS:
            if (place / name).is_file():
                named = synset_words("imagenet", place / name, separator="\t" if name == "words.txt" else None)
                return {synset: named[synset] for synset in synsets if synset in named}
    if len(synsets) == _EXPECTED.classes:  # torchvision has the names in the order of the synsets
        weight = require("torchvision.models", extra="data").get_weight("ResNet18_Weights.IMAGENET1K_V1")
        return dict(zip(synsets, weight.meta["categories"], strict=True))
    return {}
