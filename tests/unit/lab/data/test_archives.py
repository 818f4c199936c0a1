"""CUB, ImageNet and Tiny-ImageNet: read as published, and what is wrong is said."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from fakes_data import FAKES, SYNSETS, picture
from fedlas.errors import InputError
from fedlas.lab.data import load_dataset, split

POINTER = b"version https://git-lfs.github.com/spec/v1"
ANNOTATIONS = "val/val_annotations.txt"


@pytest.fixture
def root(request, tmp_path):
    """The folder of a fake of the data set that the test is about."""
    name, below = request.param
    return FAKES[name](tmp_path) / below


def of(name):
    below = {"cub": "CUB_200_2011", "tiny-imagenet": "tiny-imagenet-200", "imagenet": ""}[name]
    return pytest.mark.parametrize("root", [(name, below)], indirect=True)


@of("cub")
def test_cub_follows_its_lists(root):
    source = load_dataset("cub", str(root.parent))
    assert source.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert torch.bincount(source.train.target).tolist() == [6, 6, 6]
    assert source.test.target.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.test.path(2) == root / "images/002.Laysan_Albatross/Laysan_Albatross_0006_15.jpg"
    assert (source.train.view.resize, source.train.view.crop, source.train.view.train_crop) == (
        448,
        384,
        "random",
    )
    # matched by identity, not by line
    lines = (root / "image_class_labels.txt").read_text().splitlines()
    (root / "image_class_labels.txt").write_text("\n".join(reversed(lines)))
    assert load_dataset("cub", str(root)).test.target.tolist() == [0, 0, 1, 1, 2, 2]


def cut(path):
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))


@of("cub")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: cut(root / "image_class_labels.txt"), "got 24, 21 and 24"),
        (lambda root: cut(root / "classes.txt"), "it is empty"),
        (
            lambda root: (root / "classes.txt").write_text("2 b\n3 c\n"),
            r"must be in classes\.txt.*got 1\.",
        ),
        (
            lambda root: shutil.rmtree(root / "images" / "003.Sooty_Albatross"),
            "got 8 of 24 missing .*003.Sooty",
        ),
        (lambda root: (root / "train_test_split.txt").unlink(), r"without train_test_split\.txt"),
        (lambda root: (root / "images.txt").write_text("1\n"), "1 of 2 columns"),
        (lambda root: (root / "images.txt").write_bytes(POINTER), "git lfs pull"),
    ],
)
def test_what_is_wrong_with_cub_is_said(root, change, words):
    change(root)
    with pytest.raises(InputError, match=words):
        load_dataset("cub", str(root))


@of("imagenet")
def test_imagenet_is_what_torchvisions_image_folder_reads(root):
    source = load_dataset("imagenet", str(root), partial=True)
    for part, files in (("train", source.train), ("val", source.test)):
        theirs = ImageFolder(root / part)
        assert [str(files.path(row)) for row in range(len(files))] == [
            path for path, _ in theirs.samples
        ]
        assert files.target.tolist() == theirs.targets
    assert (source.classes, source.train.shape) == (SYNSETS, (3, 224, 224))
    with pytest.raises(InputError, match=r"got 3 classes, 18 and 6 .*data\.partial=true"):
        load_dataset("imagenet", str(root))
    (root / "below").mkdir()
    (root / "train").rename(root / "below" / "train")
    with pytest.raises(InputError, match="without train"):
        load_dataset("imagenet", str(root), partial=True)


def test_a_whole_imagenet_is_named_by_torchvision(tmp_path):
    for row in range(1000):
        for part in ("train", "val"):
            folder = tmp_path / part / f"n{row:08d}"
            folder.mkdir(parents=True)
            (folder / "0.JPEG").touch()
    classes = load_dataset("imagenet", str(tmp_path), partial=True).classes
    assert classes[1] == "goldfish"
    assert len(set(classes)) == 1000


@of("imagenet")
@pytest.mark.parametrize("emptied", ["val", "train"])
def test_a_class_without_images_is_named(root, emptied):
    for path in (root / emptied / SYNSETS[1]).iterdir():
        path.unlink()
    with pytest.raises(InputError, match=rf"{emptied} .*every class; got none in .*{SYNSETS[1]}"):
        load_dataset("imagenet", str(root), partial=True)


@of("tiny-imagenet")
def test_tiny_imagenet_published_and_sorted_layouts(root):
    source = load_dataset("tiny-imagenet", str(root.parent))
    assert source.classes == ("goldfish", "European fire salamander", "bullfrog")
    assert source.train.target.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert source.test.target.tolist() == [0, 1, 2, 0, 1, 2]
    # a gray one
    image = Image.open(root / f"train/{SYNSETS[0]}/images/{SYNSETS[0]}_5.JPEG").convert("RGB")
    assert torch.equal(source.train.images[5], torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert (source.flip, source.crop_padding, source.train.shape) == (True, 4, (3, 64, 64))
    splits = split(source, seed=0, val_size=3)
    assert (torch.bincount(splits.val.target).tolist(), len(splits.test)) == ([1, 1, 1], 6)
    for line in (root / ANNOTATIONS).read_text().splitlines():
        name, synset = line.split("\t")[:2]
        (root / "val" / synset / "images").mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / name).rename(root / "val" / synset / "images" / name)
    (root / "val" / "images").rmdir()
    assert load_dataset("tiny-imagenet", str(root)).test.target.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="max_gib"):
        load_dataset("tiny-imagenet", str(root), max_gib=1e-5)


@of("tiny-imagenet")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: shutil.rmtree(root / "train" / SYNSETS[2]),
            "images of every class; got none in .*n01641577",
        ),
        (lambda root: (root / "val/images/val_4.JPEG").unlink(), "got 1 of 6 missing.*val_4"),
        (
            lambda root: (root / ANNOTATIONS).write_text("val_0.JPEG\tn1\t0"),
            "got 1 unknown, the first n1",
        ),
        (lambda root: (root / "words.txt").unlink(), "without words"),
        (lambda root: (root / "val/images/val_2.JPEG").write_bytes(b"junk" * 20), "readable image"),
        (lambda root: picture(root / "val/images/val_2.JPEG", width=60, height=64), "with 64 x 60"),
    ],
)
def test_what_is_wrong_with_tiny_imagenet_is_said(root, change, words):
    change(root)
    with pytest.raises(InputError, match=words):
        load_dataset("tiny-imagenet", str(root))
