"""CIFAR-10, CIFAR-100, SVHN and FGVC-Aircraft, read by torchvision; CIFAR also from one ``.npz`` file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fedlas._core.check import InputError, check_choice
from fedlas._core.extras import require
from fedlas.lab.data.base import DATASETS, Images, PublishedCounts, Source
from fedlas.lab.data.disk import DATA_VARIABLE, data_folder, require_listed_files
from fedlas.lab.data.files import View, add_view_options
from fedlas.lab.data.sets.folders import images_from_arrays, read_npz, streamed_source

Level = Literal["variant", "family", "manufacturer"]
_BANNER_ROWS = 20
"""Rows at the bottom of each photograph of an aircraft with the name of its author."""
_KRIZHEVSKY: dict[str, Any] = {
    "paper": "Krizhevsky 2009",
    "url": "https://www.cs.toronto.edu/~kriz/cifar.html",
}
CIFAR10_MISTAKEN = (
    ("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat"),
)  # fmt: skip
"""Pairs of CIFAR-10 for asymmetric label noise (Patrini et al. 2017, section 5); other classes keep their labels."""
_SUPERCLASSES = """
beaver dolphin otter seal whale, aquarium_fish flatfish ray shark trout, orchid poppy rose sunflower tulip,
bottle bowl can cup plate, apple mushroom orange pear sweet_pepper, clock keyboard lamp telephone television,
bed chair couch table wardrobe, bee beetle butterfly caterpillar cockroach, bear leopard lion tiger wolf,
bridge castle house road skyscraper, cloud forest mountain plain sea, camel cattle chimpanzee elephant kangaroo,
fox porcupine possum raccoon skunk, crab lobster snail spider worm, baby boy girl man woman,
crocodile dinosaur lizard snake turtle, hamster mouse rabbit shrew squirrel, bicycle bus motorcycle pickup_truck train,
maple_tree oak_tree palm_tree pine_tree willow_tree, lawn_mower rocket streetcar tank tractor"""
CIFAR100_MISTAKEN = tuple(
    pair
    for names in (group.split() for group in _SUPERCLASSES.split(","))
    for pair in zip(names, names[1:] + names[:1], strict=True)
)
"""Each class of CIFAR-100 with the next one of its superclass, cyclically (the same section)."""


@DATASETS.register(
    "cifar10",
    files="cifar10.npz, or torchvision's folder cifar-10-batches-py",
    expected=PublishedCounts(train=50_000, test=10_000, classes=10, per_class=(5_000, 5_000)),
    **_KRIZHEVSKY,
)
def load_cifar10(root: str | None = None) -> Source:
    """60,000 color photographs of 32 x 32 pixels in 10 classes: 50,000 to train, 10,000 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) that holds ``cifar10.npz`` (see the data set ``npz``) or torchvision's
            ``cifar-10-batches-py``; or the path of such an ``.npz`` file.

    Raises:
        InputError: If neither is there, or it is damaged.
    """
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    return _load_cifar("cifar10", root, 10, mean=mean, std=std, mistaken_for=CIFAR10_MISTAKEN)


@DATASETS.register(
    "cifar100",
    files="cifar100.npz, or torchvision's folder cifar-100-python",
    expected=PublishedCounts(train=50_000, test=10_000, classes=100, per_class=(500, 500)),
    **_KRIZHEVSKY,
)
def load_cifar100(root: str | None = None) -> Source:
    """60,000 color photographs of 32 x 32 pixels in 100 classes: 50,000 to train, 10,000 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) that holds ``cifar100.npz`` (see the data set ``npz``) or torchvision's
            ``cifar-100-python``; or the path of such an ``.npz`` file.

    Raises:
        InputError: If neither is there, or it is damaged.
    """
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    return _load_cifar("cifar100", root, 100, mean=mean, std=std, mistaken_for=CIFAR100_MISTAKEN)


def _to_images(pixels: object, labels: object) -> Images:
    """Return a part from pixels, with channels last or second, and labels."""
    return images_from_arrays({"_images": pixels, "_target": np.asarray(labels)}, "")


def _load_cifar(name: str, root: str | None, num_classes: int, **published: Any) -> Source:
    """Return CIFAR-10 or CIFAR-100 from an ``.npz`` file or torchvision's folder."""
    folder = data_folder(root)
    path = folder if folder is None or folder.is_file() else folder / f"{name}.npz"
    if path is not None and path.is_file():
        source = read_npz(name, path)
    else:
        parts = [
            _load_torchvision(name, name.upper(), root, {"train": part}) for part in (True, False)
        ]
        train, test = (_to_images(part.data, part.targets) for part in parts)
        source = Source(name, train, test, tuple(parts[0].classes))
    if source.num_classes != num_classes:
        raise InputError(
            f"the files must hold {num_classes} classes",
            f"{source.num_classes} in {folder}",
            "Use the data set 'npz' for arrays of your own.",
        )
    return replace(source, flip=True, crop_padding=4, **published)


@DATASETS.register(
    "svhn",
    paper="Netzer et al. 2011",
    url="http://ufldl.stanford.edu/housenumbers/",
    files="train_32x32.mat and test_32x32.mat",
    expected=PublishedCounts(train=73_257, test=26_032, classes=10, per_class=(4659, 13861)),
)
def load_svhn(root: str | None = None, *, extra: bool = False) -> Source:
    """99,289 color photographs of house numbers, 32 x 32 pixels in 10 classes: 73,257 to train, 26,032 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) with ``train_32x32.mat`` and ``test_32x32.mat``.
        extra: Train on the 531,131 easier images of ``extra_32x32.mat`` too.

    Returns:
        A source whose labels are the digits (in the files the digit 0 is class 10), with crops of padding 4 and no
        flips.

    Raises:
        InputError: If the files are missing or damaged.
    """
    require("scipy.io", extra="bench")  # torchvision reads with it
    names = ("train", "test", *(["extra"] if extra else []))
    first, held_out, *more = (
        _load_torchvision("svhn", "SVHN", root, {"split": name}) for name in names
    )
    train_parts = [first, *more]
    train = _to_images(
        *(
            np.concatenate(each)
            for each in ([p.data for p in train_parts], [p.labels for p in train_parts])
        )
    )
    test = _to_images(held_out.data, held_out.labels)
    mean = (0.4377, 0.4438, 0.4728)
    std = (0.1980, 0.2010, 0.1970)
    return Source("svhn", train, test, tuple("0123456789"), crop_padding=4, mean=mean, std=std)


@DATASETS.register(
    "aircraft",
    paper="Maji et al. 2013",
    url="https://arxiv.org/abs/1306.5151",
    files="the folder fgvc-aircraft-2013b of its archive",
    expected=PublishedCounts(train=6_667, test=3_333, classes=100, per_class=(66, 67)),
)
@add_view_options(View(448, 384, "random", cut_bottom=_BANNER_ROWS))
def load_aircraft(root: str | None = None, *, level: Level = "variant", view: View) -> Source:
    """10,000 photographs of aircraft in 100 variants (FGVC-Aircraft): 6,667 to train, 3,333 to test; read when needed.

    The official parts ``train`` and ``val`` together (``trainval``) are the training part, from which the seed draws
    validation images. The banner of 20 pixels at the bottom of each image is removed.

    Args:
        root: Folder that holds ``fgvc-aircraft-2013b`` (None: ``$FEDLAS_DATA``).
        level: ``variant`` (100 classes), ``family`` (70) or ``manufacturer`` (30).
        view: Resizing and cropping; each field of :class:`~fedlas.lab.data.files.View` is an option.

    Returns:
        A source with flips and ImageNet's mean and standard deviation.

    Raises:
        InputError: If the folder is missing or incomplete, or its lists disagree.
    """
    check_choice("level", level, get_args(Level))
    parts = [
        _load_torchvision("aircraft", "FGVCAircraft", root, {"split": s, "annotation_level": level})
        for s in ("trainval", "test")
    ]
    names = [[Path(path).name for path in part._image_files] for part in parts]
    folder = Path(parts[0]._image_files[0]).parent
    require_listed_files(folder, [name for part in names for name in part], f"images_{level}_*.txt")
    labeled_paths = {
        each: [*zip(files, part._labels, strict=True)]
        for each, files, part in zip(("train", "test"), names, parts, strict=True)
    }
    return streamed_source("aircraft", folder, labeled_paths, tuple(parts[0].classes), view)


def _load_torchvision(
    name: str, class_name: str, root: str | None, options: Mapping[str, Any]
) -> Any:
    """Load a part with torchvision, which checks the MD5 sums of pickles before opening them."""
    folder = data_folder(root)
    call = f"torchvision.datasets.{class_name}"
    npz = f"{name}.npz or " if class_name.startswith("CIFAR") else ""
    expected = f"root must hold {npz}the complete files of {call}"
    keywords = ", ".join(f"{key}={value!r}" for key, value in options.items())
    fix = f"{call}(FOLDER, {keywords}, download=True) fetches them."
    if folder is None:
        raise InputError(
            expected,
            f"no root, and ${DATA_VARIABLE} is not set",
            f"Pass root=FOLDER or set {DATA_VARIABLE}; {fix}",
        )
    datasets = require("torchvision.datasets", extra="bench")
    try:
        return getattr(datasets, class_name)(str(folder), **options)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition(". You can use download=True")[0]
        raise InputError(
            expected, f"{folder} ({reason})", f"Extract archives first; {fix}"
        ) from error
