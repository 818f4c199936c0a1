"""CUB-200-2011, ImageNet-1k and Tiny-ImageNet, from the folders and lists of their archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.lab.data.base import DATASETS, PublishedCounts, Source
from fedlas.lab.data.class_folders import class_folders, image_names
from fedlas.lab.data.disk import find_dataset_folder, read_text_columns, require_listed_files
from fedlas.lab.data.files import View, add_view_options
from fedlas.lab.data.sets.folders import read_images_by_part, streamed_source

_CUB_SOURCE = "It is CUB_200_2011.tgz, https://data.caltech.edu/records/65de6-vp158."
_CUB_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
_IMAGENET_SOURCE = (
    "torchvision.datasets.ImageNet(FOLDER, split='train'), and split='val', make both folders from the archives, "
    "https://www.image-net.org (an account is needed)."
)
_IMAGENET_NAMES = ("imagenet", "imagenet-1k", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_IMAGENET_COUNTS = PublishedCounts(
    train=1_281_167, test=50_000, classes=1_000, per_class=(732, 1_300)
)
_TINY_SOURCE = "It is http://cs231n.stanford.edu/tiny-imagenet-200.zip."


@DATASETS.register(
    "cub",
    paper="Wah et al. 2011",
    url="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    files="the folder CUB_200_2011 of its archive",
    expected=PublishedCounts(train=5_994, test=5_794, classes=200, per_class=(29, 30)),
)
@add_view_options(View(448, 384, "random"))
def load_cub(root: str | None = None, *, view: View) -> Source:
    """11,788 photographs of birds in 200 species (CUB-200-2011): 5,994 to train, 5,794 to test; read when needed.

    Args:
        root: The folder ``CUB_200_2011``, or one that holds it (None: ``$FEDLAS_DATA``).
        view: Resizing and cropping; each field of :class:`~fedlas.lab.data.files.View` is an option.

    Returns:
        A source with flips and ImageNet's mean and standard deviation.

    Raises:
        InputError: If the folder is missing or incomplete, or its lists disagree.
    """
    # The four lists of the archive, which must agree.
    folder = find_dataset_folder(
        root, ("CUB_200_2011", "cub"), (*_CUB_LISTS, "images"), _CUB_SOURCE
    )
    paths, labels, splits, names = (
        dict(read_text_columns(folder / name, 2)) for name in _CUB_LISTS
    )
    extract_again = (
        f"The lists are cut off or of different versions: extract the archive again. {_CUB_SOURCE}"
    )
    if not paths.keys() == labels.keys() == splits.keys():
        raise InputError(
            f"{', '.join(_CUB_LISTS[:3])} must list the same images",
            f"{len(paths)}, {len(labels)} and {len(splits)} in {folder}",
            extract_again,
        )
    if unknown_classes := sorted(set(labels.values()) - names.keys()):
        raise InputError(
            "every class in image_class_labels.txt must be in classes.txt",
            unknown_classes[0],
            extract_again,
        )
    require_listed_files(folder / "images", list(paths.values()), "images.txt")
    # The published split: 1 is training. Labels follow the order of classes.txt.
    class_indices = {identity: label for label, identity in enumerate(names)}
    train, test = (
        [
            (paths[identity], class_indices[labels[identity]])
            for identity in paths
            if splits[identity] == part
        ]
        for part in ("1", "0")
    )
    classes = tuple(name.partition(".")[2].replace("_", " ") or name for name in names.values())
    return streamed_source("cub", folder / "images", {"train": train, "test": test}, classes, view)


@DATASETS.register(
    "imagenet",
    paper="Russakovsky et al. 2015",
    url="https://arxiv.org/abs/1409.0575",
    files="train/SYNSET/*.JPEG and val/SYNSET/*.JPEG",
    expected=_IMAGENET_COUNTS,
)
@add_view_options(View())
def load_imagenet(root: str | None = None, *, partial: bool = False, view: View) -> Source:
    """1,331,167 photographs in 1,000 classes (ILSVRC 2012): 1,281,167 to train, 50,000 to test; read when needed.

    The official validation part is the test part, since the official test part has no labels; validation images are
    drawn from the training part.

    Args:
        root: The folder with ``train`` and ``val``, or one that holds it under a usual name (None: ``$FEDLAS_DATA``).
            Both hold one folder per class.
        partial: Accept fewer classes or images than the whole data set has, such as ImageNet-100.
        view: Resizing and cropping; each field of :class:`~fedlas.lab.data.files.View` is an option.

    Returns:
        A source with flips; classes are in the order of their synsets, as in ``ImageFolder`` and pre-trained models.
        A part of the data set has the synsets as class names.

    Raises:
        InputError: If the folder is missing or, without ``partial``, incomplete; if train and val differ in classes.
    """
    folder = find_dataset_folder(root, _IMAGENET_NAMES, ("train", "val"), _IMAGENET_SOURCE)
    synsets = [path.name for path in class_folders(folder / "train", layout=_IMAGENET_SOURCE)]
    # The counts are checked on names alone; no image is opened before training needs it.
    train, test = (_list_labeled_images(folder, part, synsets) for part in ("train", "val"))
    counts = (len(synsets), len(train), len(test))
    published_counts = (_IMAGENET_COUNTS.classes, _IMAGENET_COUNTS.train, _IMAGENET_COUNTS.test)
    if (
        counts != published_counts and not partial
    ):  # results would look as if they were of the whole data set
        expected = "there must be {:,} classes, {:,} images in train and {:,} in val".format(
            *published_counts
        )
        fix = "Extract the archives again ('fedlas data check' names the classes that lack images), or set "
        fix += f"data.partial=true for a part of ImageNet. {_IMAGENET_SOURCE}"
        raise InputError(expected, "{:,} classes, {:,} and {:,} in {}".format(*counts, folder), fix)
    names = synsets
    if (
        len(synsets) == _IMAGENET_COUNTS.classes
    ):  # torchvision has the names in the order of the synsets
        names = (
            require("torchvision.models", extra="bench")
            .get_weight("ResNet18_Weights.IMAGENET1K_V1")
            .meta["categories"]
        )
    repeated_names = {name for name in names if names.count(name) > 1}
    classes = (
        f"{name} ({synset})" if name in repeated_names else name
        for name, synset in zip(names, synsets, strict=True)
    )
    return streamed_source("imagenet", folder, {"train": train, "test": test}, tuple(classes), view)


@DATASETS.register(
    "tiny-imagenet",
    paper="Le and Yang 2015",
    url="http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf",
    files="the folder tiny-imagenet-200 of its archive",
    expected=PublishedCounts(train=100_000, test=10_000, classes=200, per_class=(500, 500)),
)
def load_tiny_imagenet(root: str | None = None, *, max_gib: float = 4.0) -> Source:
    """110,000 color photographs of 64 x 64 pixels in 200 classes: 100,000 to train, 10,000 to test.

    The official validation part is the test part, since the official test part has no labels; validation images are
    drawn from the training part (with ``val_size`` 10000, 50 per class, which leaves 450 to train on).

    Args:
        root: The folder ``tiny-imagenet-200``, or one that holds it (None: ``$FEDLAS_DATA``). Validation images may
            also lie in one folder per class, as many scripts arrange them.
        max_gib: Most memory the images may take, in GiB; all of them are 1.3.

    Returns:
        A source with crops (padding 4) and flips; classes are in the order of their synsets, as in ``ImageFolder``.

    Raises:
        InputError: If the folder is missing or incomplete, or holds an unreadable image.
    """
    name = "tiny-imagenet"
    marks = ("wnids.txt", "words.txt", "train", "val")
    folder = find_dataset_folder(root, ("tiny-imagenet-200", name), marks, _TINY_SOURCE)
    synsets = sorted(row[0] for row in read_text_columns(folder / "wnids.txt"))
    train = _list_labeled_images(folder, "train", synsets, "images")
    if (folder / "val" / "images").is_dir():
        rows = read_text_columns(folder / "val" / "val_annotations.txt", 3, separator="\t")
        require_listed_files(
            folder / "val" / "images", [row[0] for row in rows], "val_annotations.txt"
        )
        if unknown_synsets := [row[1] for row in rows if row[1] not in synsets]:
            raise InputError(
                "every class in val_annotations.txt must be in wnids.txt",
                f"{len(unknown_synsets)} unknown, the first {unknown_synsets[0]}",
                f"Fetch it again. {_TINY_SOURCE}",
            )
        test = [(f"val/images/{row[0]}", synsets.index(row[1])) for row in rows]
    else:
        nested = (folder / "val" / synsets[0] / "images").is_dir()
        test = _list_labeled_images(folder, "val", synsets, *(["images"] if nested else []))
    labeled_paths = {"train": train, "test": test}
    images = read_images_by_part(folder, labeled_paths, upright=False, max_gib=max_gib)
    words = dict(read_text_columns(folder / "words.txt", 2, separator="\t"))
    class_words = [words.get(synset, synset).split(",")[0] for synset in synsets]
    classes = tuple(
        f"{n} ({s})" if class_words.count(n) > 1 else n
        for n, s in zip(class_words, synsets, strict=True)
    )
    mean = (0.4802, 0.4481, 0.3975)
    std = (0.2770, 0.2691, 0.2821)
    return Source(
        name,
        images["train"],
        images["test"],
        classes,
        flip=True,
        crop_padding=4,
        mean=mean,
        std=std,
    )


def _list_labeled_images(
    folder: Path, part: str, synsets: Sequence[str], *subfolders: str
) -> list[tuple[str, int]]:
    """Return the path and class index of each image in the class folders of a part."""
    listed = []
    for label, synset in enumerate(synsets):
        place = Path(part, synset, *subfolders)
        names = image_names(folder / place)
        if not names:
            raise InputError(
                f"{part} must have images of every class",
                f"none in {folder / place}",
                "An archive was extracted only in part, or its images are not in class folders.",
            )
        listed += [(f"{place.as_posix()}/{name}", label) for name in names]
    return listed
