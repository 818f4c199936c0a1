import re

import numpy as np
import pytest
import torch
from PIL import Image

from fedlas.errors import InputError
from fedlas.lab.data import load_dataset


def write(path, color=(0, 0, 0), size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def divided(tmp_path):
    """Cats are red, dogs are blue; one test image each, three to train."""
    for name, color in (("dog", (0, 0, 255)), ("cat", (255, 0, 0))):
        for row in range(3):
            write(tmp_path / "train" / name / f"{row}.png", color)
        write(tmp_path / "test" / name / "0.PNG", color)
    return tmp_path


def load(root, **options):
    return load_dataset("folder", str(root), **options)


def test_divided_folder(divided):
    source = load(divided)
    assert source.classes == ("cat", "dog")
    assert (len(source.train), len(source.test)) == (6, 2)
    for part in (source.train, source.test):
        red, blue = part.images[:, 0, 0, 0].long(), part.images[:, 2, 0, 0].long()
        assert torch.equal(red, 255 * (part.target == 0))
        assert torch.equal(blue, 255 * (part.target == 1))
    assert (source.flip, source.crop_padding, source.mean) == (False, 0, None)


def test_undivided_folder_tests_on_fixed_stratified_fifth(tmp_path):
    for label, name in enumerate("abc"):
        for row in range(10):
            write(tmp_path / name / f"{row}.png", (label, row, 0))
    source, again = load(tmp_path), load(tmp_path)
    assert torch.bincount(source.test.target).tolist() == [2, 2, 2]
    assert torch.equal(source.test.images, again.test.images)
    seen = torch.cat([source.train.images, source.test.images])[:, :2, 0, 0]
    assert len({tuple(row) for row in seen.tolist()}) == 30
    assert torch.equal(source.test.images[:, 0, 0, 0].long(), source.test.target)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        for row in range(2):
            write(tmp_path / name / f"{row}.png")
    assert load(tmp_path).classes == ("bus", "train")


def test_gray(divided):
    source = load(divided, channels=1)
    assert source.train.images.shape == (6, 1, 6, 6)
    assert source.train.images[source.train.target == 0][0, 0, 0, 0] == 76  # 0.299 of red


def test_shorter_side_is_resized_and_the_center_kept(divided):
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 200
    Image.fromarray(picture).save(divided / "train" / "cat" / "wide.png")
    Image.fromarray(picture.transpose(1, 0, 2)).save(divided / "train" / "cat" / "zhigh.png")
    source = load(divided, image_size=10)
    assert source.train.images.shape[1:] == (3, 10, 10)
    assert (source.train.images[source.train.target == 0][-2:] == 200).all()
    small = load(divided, image_size=5).train.images[3:5]
    assert (small[:, :, 1:-1, 1:-1] == 200).all()


def test_exif_rotation_is_applied(divided):
    picture = np.zeros((6, 6, 3), np.uint8)
    picture[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is on the right of the stored one
    for part in ("train", "test"):
        Image.fromarray(picture).save(divided / part / "cat" / "turned.png", exif=exif)
    assert (load(divided).train.images[3, :, :, -1] == 255).all()


def test_other_files_are_passed_over(divided):
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._0.png"):
        (divided / "train" / "cat" / name).write_text("not an image")
    (divided / "train" / ".cache").mkdir()
    assert len(load(divided).train) == 6


@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"])
def test_unreadable_image_is_named(divided, content):
    victim = divided / "train" / "dog" / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(victim)
    victim.write_bytes(victim.read_bytes()[:90] if content == "truncated" else content)
    with pytest.raises(InputError, match=r"readable image; got .*dog.1\.png"):
        load(divided)


def test_deep_images_are_refused_rather_than_clipped(divided):
    Image.fromarray(np.full((6, 6), 40_000, np.uint16)).save(divided / "train" / "dog" / "1.png")
    with pytest.raises(InputError, match=r"8 bits .*1\.png in mode I"):
        load(divided)


def test_other_sizes_need_image_size(divided):
    write(divided / "train" / "dog" / "9.png", size=(7, 7))
    with pytest.raises(
        InputError, match=r"the same size; got .*9\.png with 7 x 7 .*0\.png with 6 x 6"
    ):
        load(divided)
    assert len(load(divided, image_size=6).train) == 7


def test_oblong_image_error_names_file_once(divided):
    # the first of all, with which the others are compared
    write(divided / "train" / "cat" / "0.png", size=(6, 9))
    with pytest.raises(InputError, match=r"square; got .*0\.png with 9 x 6") as error:
        load(divided)
    assert str(error.value).count(".png") == 1


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_join_the_training_part(divided, name):
    write(divided / name / "cat" / "9.png")
    write(divided / name / "dog" / "9.png")
    source = load(divided)
    assert (len(source.train), len(source.test)) == (8, 2)
    (divided / "test").rename(divided / "elsewhere")
    source = load(divided)
    assert (len(source.train), len(source.test)) == (6, 2)


def test_a_folder_around_the_classes_is_named(divided):
    inner = (divided / "train").rename(divided / "photos")
    (divided / "test").rename(divided / ".test")
    with pytest.raises(InputError, match=rf"photos .*mean {re.escape(str(inner))}\?"):
        load(divided)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: (root / "test" / "cat").rename(root / "test" / "cow"),
            "same classes; got 2 .* 'cat' in train",
        ),
        (
            lambda root: (root / "test" / "cat").rename(root / "cat"),
            "at least two class folders; got dog in .*test",
        ),
        (
            lambda root: (root / "test").rename(root / "tset"),
            "must have a folder train and a folder val or test; got only train in",
        ),
        (
            lambda root: (root / "train").rename(root / "training"),
            "must have a folder train and a folder val or test; got only test in",
        ),
        (
            lambda root: (root / "test" / "cat" / "0.PNG").rename(root / "0.PNG"),
            "hold images .*got none in .*test.cat",
        ),
    ],
)
def test_folders_that_do_not_fit(divided, change, words):
    change(divided)
    with pytest.raises(InputError, match=words):
        load(divided)


def test_empty_missing_single_class_and_file(tmp_path):
    with pytest.raises(InputError, match="two class folders; got none"):
        load(tmp_path)
    with pytest.raises(InputError, match="which does not exist"):
        load(tmp_path / "nowhere")
    write(tmp_path / "only" / "0.png")
    with pytest.raises(InputError, match="two class folders; got only"):
        load(tmp_path)
    with pytest.raises(InputError, match="root must be a folder"):
        load(tmp_path / "only" / "0.png")
    with pytest.raises(InputError, match="no root"):
        load_dataset("folder")


def test_a_class_with_one_image_cannot_be_divided(tmp_path):
    for row in range(5):
        write(tmp_path / "many" / f"{row}.png")
    write(tmp_path / "one" / "0.png")
    with pytest.raises(InputError, match=r"two images.*got 1 of 'one'"):
        load(tmp_path)


@pytest.mark.parametrize(
    "options", [{"channels": 4}, {"image_size": 0}, {"image_size": 2.5}, {"max_gib": 0}]
)
def test_nonsense_options(divided, options):
    with pytest.raises(InputError, match=next(iter(options))):
        load(divided, **options)
