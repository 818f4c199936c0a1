"""A look at a folder of images: what is in it, and what is wrong with it."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fedlas.errors import InputError
from fedlas.lab.data import survey_images


def write(path, *, seed, size=(6, 6), gray=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if gray else (*size, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def divided(tmp_path):
    """Two classes, four images to train and two to test on."""
    for number, name in enumerate(("ant", "bée")):
        for row in range(4):
            write(tmp_path / "train" / name / f"{row}.png", seed=10 * number + row)
        for row in range(2):
            write(tmp_path / "test" / name / f"{row}.png", seed=10 * number + 5 + row)
    return tmp_path


def test_parts_classes_and_counts(divided):
    found = survey_images(divided)
    assert found.root == divided
    assert found.counts == {"train": {"ant": 4, "bée": 4}, "test": {"ant": 2, "bée": 2}}
    assert (found.classes, found.images, found.per_class) == (
        ("ant", "bée"),
        12,
        {"ant": 6, "bée": 6},
    )
    assert (found.channels, found.shorter_side, found.nested, found.copies) == (3, 6, False, ())
    seen = []
    survey_images(divided, on_image=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)


def test_sizes_and_folders_below_the_classes(divided):
    write(divided / "train" / "ant" / "below" / "9.png", seed=30, size=(20, 10))
    found = survey_images(divided)
    assert found.sizes == {(6, 6): 12, (20, 10): 1}
    assert found.nested
    for path in divided.rglob("*.png"):
        write(path, seed=hash(str(path)) % 1000, size=(30, 40))
    assert survey_images(divided).shorter_side == 30


def test_gray_images_saved_in_color_have_one_channel(tmp_path):
    for name in "ab":
        write(tmp_path / name / "0.png", seed=1, gray=True)
        write(tmp_path / name / "1.png", seed=2, gray=True)
        Image.open(tmp_path / name / "1.png").convert("RGB").save(tmp_path / name / "1.png")
    assert survey_images(tmp_path).channels == 1
    write(tmp_path / "a" / "2.png", seed=3)
    assert (survey_images(tmp_path).channels, survey_images(tmp_path).gray) == (3, 4)


def test_copies_name_two_files_and_leaks_come_first(divided):
    shutil.copy(divided / "train/ant/0.png", divided / "train/ant/9.png")
    shutil.copy(divided / "train/ant/1.png", divided / "train/bée/9.png")
    shutil.copy(divided / "train/ant/2.png", divided / "test/ant/9.png")
    found = survey_images(divided)
    leak, doubtful, twice = found.copies
    assert set(leak) == {"train/ant/2.png", "test/ant/9.png"}
    assert set(doubtful) == {"train/ant/1.png", "train/bée/9.png"}
    assert set(twice) == {"train/ant/0.png", "train/ant/9.png"}
    assert (found.copies_between_parts(), found.copies_between_classes()) == ([leak], [doubtful])


def test_other_files_are_counted(divided):
    (divided / "README.md").write_text("x")
    (divided / "train" / "ant" / "0.txt").write_text("x")
    (divided / ".hidden.txt").write_text("x")
    assert survey_images(divided).others == {".md": 1, ".txt": 1}


def test_every_unreadable_image_is_counted_and_named_once(divided):
    (divided / "train/ant/0.png").write_bytes(b"nonsense")
    (divided / "test/bée/1.png").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"2 of 12 .*0\.png \(.*; .*1\.png \(it is empty\)"
    ) as error:
        survey_images(divided)
    assert str(error.value).count("0.png") == 1


def test_a_training_part_alone_is_said(divided):
    shutil.rmtree(divided / "test")
    with pytest.raises(InputError, match=r"only train in .* pass .*train"):
        survey_images(divided)
    assert survey_images(divided / "train").counts == {"": {"ant": 4, "bée": 4}}


def postscript(path):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\nshowpage\n")


def pipe(path):
    os.mkfifo(path)


def wide(path):
    Image.new("L", (9_000, 9_000)).save(path)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [(postscript, "cannot identify"), (pipe, "not a regular file"), (wide, "9,000 x 9,000")],
)
def test_only_allowed_formats_and_sizes_are_opened(divided, attack, reason):
    attack(divided / "train" / "ant" / "5.png")
    with pytest.raises(InputError, match=reason):
        survey_images(divided)
