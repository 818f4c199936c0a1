"""CUB-200-2011 and FGVC-Aircraft."""

import shutil

import pytest
import torch
from torchvision.datasets import FGVCAircraft

from fakes_data import FAKES
from fedlas._core.check import InputError
from fedlas.lab.data import load_dataset


@pytest.fixture
def birds(tmp_path):
    return FAKES["cub"](tmp_path) / "CUB_200_2011"


@pytest.fixture
def aircraft(tmp_path):
    return FAKES["aircraft"](tmp_path) / "fgvc-aircraft-2013b" / "data"


def test_cub_follows_its_lists(birds):
    source = load_dataset("cub", str(birds.parent))
    assert source.classes == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert torch.bincount(source.train.target).tolist() == [6, 6, 6]
    assert torch.bincount(source.test.target).tolist() == [2, 2, 2]
    assert source.test.path(2) == birds / "images/002.Laysan_Albatross/Laysan_Albatross_0006_15.jpg"
    assert (source.train.view.resize, source.train.view.crop, source.train.view.train_crop) == (448, 384, "random")
    assert source.flip


def test_cub_numbers_are_matched_by_identity_not_by_line(birds):
    lines = (birds / "image_class_labels.txt").read_text().splitlines()
    (birds / "image_class_labels.txt").write_text("\n".join(reversed(lines)))
    assert load_dataset("cub", str(birds)).test.target.tolist() == [0, 0, 1, 1, 2, 2]


def cut(path):
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: cut(root / "image_class_labels.txt"), r"must list the same images; got 24, 21 and 24.*extract"),
        (lambda root: cut(root / "classes.txt"), r"classes\.txt \(it is empty\)"),
        (lambda root: (root / "classes.txt").write_text("2 b\n3 c\n"), r"classes of classes\.txt.*got 1\."),
        (lambda root: shutil.rmtree(root / "images" / "003.Sooty_Albatross"), "got 8 of 24 missing in .*003.Sooty"),
        (lambda root: (root / "train_test_split.txt").unlink(), r"without train_test_split\.txt"),
        (lambda root: (root / "images.txt").write_text("1\n"), "must have 2 columns; got 1 in line 1"),
        (lambda root: (root / "images.txt").write_text("one a.jpg\n"), "must begin with a number; got 'one'"),
        (lambda root: (root / "images.txt").write_bytes(b"version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    ],
)
def test_what_is_wrong_with_cub_is_said(birds, change, words):
    change(birds)
    with pytest.raises(InputError, match=words):
        load_dataset("cub", str(birds))


@pytest.mark.parametrize("level", ["variant", "family", "manufacturer"])
def test_aircraft_is_what_torchvision_reads(aircraft, level):
    root = aircraft.parents[1]
    source = load_dataset("aircraft", str(root), level=level)
    for part, files in (("trainval", source.train), ("test", source.test)):
        theirs = FGVCAircraft(root, split=part, annotation_level=level)
        assert [str(files.path(row)) for row in range(len(files))] == [str(path) for path in theirs._image_files]
        names = [source.classes[label] for label in files.target.tolist()]
        assert names == [theirs.classes[label] for label in theirs._labels]
    assert source.train.view.cut_bottom == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: cut(root / "images_variant_trainval.txt"), "must hold the images of train and val; got 21 where"),
        (lambda root: cut(root / "variants.txt"), "of a class of the list of classes; got '727-200'"),
        (lambda root: (root / "images" / "0000003.jpg").unlink(), "got 1 of 12 missing in .*0000003.jpg"),
        (lambda root: (root / "variants.txt").unlink(), r"without variants\.txt"),
    ],
)
def test_what_is_wrong_with_aircraft_is_said(aircraft, change, words):
    change(aircraft)
    with pytest.raises(InputError, match=words):
        load_dataset("aircraft", str(aircraft))


def test_aircraft_one_level_off_and_as_an_archive(aircraft, tmp_path):
    with pytest.raises(InputError, match=r"it lies higher, in .*data\. Pass"):
        load_dataset("aircraft", str(aircraft / "images"))
    with pytest.raises(InputError, match="Did you mean 'family'"):
        load_dataset("aircraft", str(aircraft), level="familiy")
    shutil.rmtree(aircraft.parent)
    (tmp_path / "fgvc-aircraft-2013b.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"Extract it: tar -xf .*2013b\.tar\.gz -C"):
        load_dataset("aircraft", str(tmp_path))
