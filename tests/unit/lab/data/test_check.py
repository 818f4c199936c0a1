import pytest

from fakes_data import FAKES
from fedlas.errors import InputError
from fedlas.lab.data import check_dataset


def test_small_data_set_differs_from_published_counts(tmp_path):
    found = check_dataset("cub", str(FAKES["cub"](tmp_path)))
    assert [problem.split(";")[0] for problem in found.problems[:3]] == [
        "There are 3 classes",
        "There are 18 images in train",
        "There are 6 images in test",
    ]
    assert (
        "3 classes have another number of training images than 29 to 30: Black footed"
        in found.problems[3]
    )
    assert found.counts("train").tolist() == [6, 6, 6]
    assert found.sizes["train"] == {(40, width): 3 for width in range(50, 56)}
    assert found.decoded


def test_ones_own_data_is_only_read(tmp_path):
    root, seen = FAKES["image-folder"](tmp_path), []
    found = check_dataset(
        "image-folder", str(root), on_image=lambda done, total: seen.append((done, total))
    )
    assert (found.problems, found.expected) == ([], None)
    assert seen == [(number, 16) for number in range(1, 17)]
    assert check_dataset("digits").problems == []


def test_unreadable_images_are_all_named(tmp_path):
    root = FAKES["image-folder"](tmp_path)
    (root / "train" / "ant" / "1.jpg").write_bytes(b"junk" * 50)
    (root / "train" / "bee" / "2.jpg").write_bytes(b"")
    (root / "val" / "bee" / "1.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    train, test = check_dataset("image-folder", str(root)).problems
    assert train.startswith("2 of 12 images are unreadable in train:")
    assert "ant/1.jpg" in train
    assert "2.jpg (it is empty)" in train
    assert "1.jpg (it is a pointer of Git LFS" in test
    quick = check_dataset("image-folder", str(root), quick=True)
    assert "1 of 12" in quick.problems[0]
    assert "pointer" in quick.problems[1]
    assert not quick.decoded
    assert quick.sizes["train"] == {}


def test_a_part_of_imagenet_is_counted_not_refused(tmp_path):
    found = check_dataset("imagenet", str(FAKES["imagenet"](tmp_path)), quick=True)
    assert (
        found.problems[1] == "There are 18 images in train; the published data set has 1,281,167."
    )


def test_options_choose_something_else_than_what_is_published(tmp_path):
    root = str(FAKES["aircraft"](tmp_path))
    assert check_dataset("aircraft", root, options={"level": "family"}).problems == []
    assert len(check_dataset("aircraft", root).problems) == 4


def test_what_cannot_be_loaded_is_an_error(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'svhn'"):
        check_dataset("svnh")
    with pytest.raises(InputError, match="got none of them in"):
        check_dataset("cub", str(tmp_path))
