import os

import pytest
import torch
from torchvision.datasets import ImageFolder

from fakes_data import FAKES, picture
from fedlas.errors import InputError
from fedlas.lab.data import load_dataset


@pytest.fixture
def root(tmp_path):
    return FAKES["image-folder"](tmp_path)


def load(root, **options):
    return load_dataset("image-folder", str(root), **options)


def paths(files):
    return [str(files.path(row)) for row in range(len(files))]


def test_is_what_torchvision_reads(root):
    source = load(root)
    for part, files in (("train", source.train), ("val", source.test)):
        theirs = ImageFolder(root / part)
        assert sorted(zip(paths(files), files.target.tolist(), strict=True)) == sorted(
            theirs.samples
        )
    assert source.classes == ("ant", "bee")


def test_with_three_folders_val_joins_train(root):
    for name in ("ant", "bee"):
        picture(root / "test" / name / "t.jpg")
    source = load(root)
    assert (len(source.train), len(source.test)) == (16, 2)
    assert sum("/val/" in path for path in paths(source.train)) == 4


def test_val_need_not_join_train(root):
    with pytest.raises(InputError, match="folders train, val and test; got train, val in"):
        load(root, val_from_train=False)
    for name in ("ant", "bee"):
        picture(root / "test" / name / "t.jpg")
    source = load(root, val_from_train=False)
    assert all("/val/" in path for path in paths(source.val))
    assert (len(source.train), len(source.val), len(source.test)) == (12, 4, 2)


def test_labels_in_a_file_next_to_the_images(tmp_path):
    file = FAKES["image-list"](tmp_path)
    source = load_dataset("image-list", str(file), resize=20, crop=16)
    assert (len(source.train), len(source.test), source.classes) == (10, 2, ("cat", "dog"))
    lines = file.read_text().splitlines()
    parts = ["part", *["train"] * 6, *["val"] * 2, *["test"] * 4]
    file.write_text("\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True)))
    source = load_dataset("image-list", str(file), part="part")
    assert {name: len(part) for name, part in source.parts.items()} == {
        "train": 6,
        "val": 2,
        "test": 4,
    }
    file.write_text(file.read_text().replace("val", "dev"))
    with pytest.raises(
        InputError,
        match="must have the values train, test and optionally val; got train, dev, test",
    ):
        load_dataset("image-list", str(file), part="part")
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(InputError, match=r"1 of 12 missing .* images/3\.png"):
        load_dataset("image-list", str(file))


def test_undivided_gives_a_fixed_stratified_fifth_to_test(tmp_path):
    for name in ("ant", "bee"):
        for row in range(10):
            picture(tmp_path / name / f"{row}.jpg")
    source, again = load(tmp_path), load(tmp_path)
    assert torch.bincount(source.test.target).tolist() == [2, 2]
    assert paths(source.test) == paths(again.test)
    assert not set(paths(source.test)) & set(paths(source.train))


def test_gray_and_upright(root):
    source = load(root, channels=1, resize=20, crop=16)
    assert source.train.image(0).shape == (1, 16, 16)
    assert source.train.view.upright


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: (root / "val").rename(root / "rest"),
            "must have a folder train and a folder val or test; got only train in",
        ),
        (
            lambda root: (root / "val" / "bee").rename(root / "val" / "wasp"),
            "same classes; got 2 .* 'bee'",
        ),
        (
            lambda root: (root / "val" / "bee").rename(root / "bee"),
            "at least two class folders; got ant",
        ),
        (
            lambda root: [path.unlink() for path in (root / "val" / "bee").rglob("*.jpg")],
            r"must hold images \(.*\); got none",
        ),
    ],
)
def test_folders_that_do_not_fit(root, change, words):
    change(root)
    with pytest.raises(InputError, match=words):
        load(root)


def test_unreadable_folder_is_an_error(root, monkeypatch):
    picture(root / "train" / "ant" / "deep" / "a.jpg")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match=r"folder .*readable; got .*deep"):
        load(root)


def test_nonsense_is_refused(root, tmp_path):
    with pytest.raises(InputError, match="channels must be 1"):
        load(root, channels=2)
    with pytest.raises(InputError, match="root must be a folder"):
        load(picture(tmp_path / "a.jpg"))
    with pytest.raises(InputError, match="which does not exist"):
        load(tmp_path / "nowhere")


def test_parts_in_upper_case_are_no_classes(tmp_path):
    for part in ("Train", "Test"):
        picture(tmp_path / part / "ant" / "a.jpg")
    with pytest.raises(InputError, match=r"lower case.*got Test.*Rename it to test"):
        load(tmp_path)
