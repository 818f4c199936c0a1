import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fakes_data import FAKES, SYNSETS, picture
from fedlas._core.check import InputError
from fedlas.lab.data import load_dataset, split


@pytest.fixture
def root(tmp_path):
    return FAKES["tiny-imagenet"](tmp_path) / "tiny-imagenet-200"


def load(root, **options):
    return load_dataset("tiny-imagenet", str(root), **options)


def test_classes_and_images_as_published(root):
    source = load(root.parent)
    assert source.classes == ("goldfish", "European fire salamander", "bullfrog")
    assert source.train.target.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert source.test.target.tolist() == [0, 1, 2, 0, 1, 2]
    images = root / "train"
    for row, path in ((7, f"{SYNSETS[1]}/images/{SYNSETS[1]}_1.JPEG"), (5, f"{SYNSETS[0]}/images/{SYNSETS[0]}_5.JPEG")):
        expected = torch.from_numpy(np.array(Image.open(images / path).convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(source.train.images[row], expected)
    assert (source.flip, source.crop_padding, source.train.shape) == (True, 4, (3, 64, 64))


def test_validation_is_cut_from_training(root):
    splits = split(load(root), seed=0, val_size=3)
    assert torch.bincount(splits.train.target).tolist() == [5, 5, 5]
    assert torch.bincount(splits.val.target).tolist() == [1, 1, 1]
    assert len(splits.test) == 6


def test_validation_sorted_into_folders_as_many_scripts_do(root):
    plain = load(root)
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, synset = line.split("\t")[:2]
        (root / "val" / synset / "images").mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / name).rename(root / "val" / synset / "images" / name)
    (root / "val" / "images").rmdir()
    moved = load(root)
    assert moved.test.target.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(moved.test.images[1], plain.test.images[3])
    shutil.rmtree(root / "val" / SYNSETS[2])
    with pytest.raises(InputError, match="val must have images of each class; got 2 of 3"):
        load(root)


ANNOTATIONS = "val/val_annotations.txt"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: (root / f"train/{SYNSETS[1]}/images/{SYNSETS[1]}_3.JPEG").unlink(),
            r"got 5 of n01629819 where others have 6.*extract it again",
        ),
        (lambda root: shutil.rmtree(root / "train" / SYNSETS[2]), "got 0 of n01641577 where others have 6"),
        (
            lambda root: (root / "val/images/val_4.JPEG").unlink(),
            "val_annotations.txt lists.*got 1 of 6 missing.*val_4",
        ),
        (
            lambda root: (root / ANNOTATIONS).write_text("val_0.JPEG\tn1\t0"),
            "classes of wnids.txt; got 1 others, the first n1",
        ),
        (lambda root: (root / ANNOTATIONS).write_text("val_0.JPEG"), "must have 3 columns; got 1 in line 1"),
        (lambda root: (root / "wnids.txt").write_bytes(b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
        (lambda root: (root / "words.txt").unlink(), r"without words\.txt\. The archive was extracted only in part"),
        (lambda root: shutil.rmtree(root / "val"), "without val"),
        (lambda root: (root / "val/images/val_2.JPEG").write_bytes(b"junk" * 20), r"readable image; got .*val_2\.JPEG"),
        (lambda root: picture(root / "val/images/val_2.JPEG", width=60, height=64), "val_2.JPEG with 64 x 60"),
    ],
)
def test_what_is_wrong_is_said(root, change, words):
    change(root)
    with pytest.raises(InputError, match=words):
        load(root)


def test_misplaced_or_still_an_archive(root, tmp_path):
    with pytest.raises(InputError, match=r"it lies higher, in .*tiny-imagenet-200\. Pass"):
        load(root / "train" / SYNSETS[0])
    (tmp_path / "a").mkdir()
    root.rename(tmp_path / "a" / "t")
    with pytest.raises(InputError, match=r"it lies deeper, in .*a/t\. Pass .*a/t instead"):
        load(tmp_path)
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"PK")
    for place in (tmp_path, tmp_path / "tiny-imagenet-200.zip"):
        with pytest.raises(InputError, match=r"not extracted yet\. Extract it: unzip -q .*200\.zip -d "):
            load(place)


def test_memory_is_counted_before_reading(root):
    with pytest.raises(InputError, match="max_gib"):
        load(root, max_gib=1e-5)
