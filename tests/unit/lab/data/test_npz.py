import numpy as np
import pytest
import torch

from fedlas._core.check import InputError
from fedlas.lab.data import load_dataset

COLOR = np.arange(4 * 5 * 5 * 3, dtype=np.uint8).reshape(4, 5, 5, 3)
GOOD = {
    "train_images": COLOR,
    "train_target": np.array([0, 1, 2, 1]),
    "test_images": COLOR[:2],
    "test_target": np.array([2, 0], dtype=np.uint8),
}


def write(path, **changes):
    np.savez(path, **{key: value for key, value in (GOOD | changes).items() if value is not None})
    return str(path)


def test_color_images_have_their_channels_moved(tmp_path):
    source = load_dataset("npz", write(tmp_path / "mine.npz", classes=np.array(["a", "b", "c"])))
    assert source.train.images.shape == (4, 3, 5, 5)
    assert torch.equal(source.train.images[1, 2], torch.from_numpy(COLOR[1, :, :, 2].copy()))
    assert source.classes == ("a", "b", "c")
    assert source.test.target.tolist() == [2, 0]


def test_gray_images_and_classes_without_names(tmp_path):
    gray = {"train_images": COLOR[..., 0], "test_images": COLOR[:2, ..., 0]}
    source = load_dataset("npz", write(tmp_path / "mine.npz", **gray))
    assert source.train.images.shape == (4, 1, 5, 5)
    assert source.classes == ("0", "1", "2")


def test_class_names_in_bytes(tmp_path):
    assert load_dataset(
        "npz", write(tmp_path / "m.npz", classes=np.array([b"a", b"b", b"c"]))
    ).classes == tuple("abc")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_target": None}, r"the file must hold .*test_target; got .*mine.npz with \['"),
        (
            {"train_images": COLOR / 255},
            r"train_images must be uint8 .*got \(4, 5, 5, 3\) float64.*astype",
        ),
        ({"train_images": COLOR[0, 0]}, "train_images must be uint8"),
        ({"train_images": COLOR[:0], "train_target": np.zeros(0, int)}, "at least one image"),
        ({"test_images": np.zeros((2, 3, 5, 5), np.uint8)}, r"channels last; got \(2, 3, 5, 5\)"),
        (
            {"train_target": np.array([0, 1, 2])},
            r"train_target must be whole numbers \(4,\).*got \(3,\)",
        ),
        ({"train_target": np.eye(4)}, "train_target must be whole numbers"),
        ({"train_target": np.array([0.0, 1, 2, 1])}, "train_target must be whole numbers"),
        (
            {"train_target": np.array([0, 1, -1, 1])},
            r"train labels must be in \[0, 2\).*from -1 to 1",
        ),
        (
            {"test_target": np.array([3, 0])},
            r"test labels must be in \[0, 3\) for 3 classes; got values from 0 to 3",
        ),
        (
            {"train_target": np.array([0, 2, 2, 2])},
            "every class must have training images; got none for 1 of 3",
        ),
        (
            {"train_target": np.zeros(4, int), "test_target": np.zeros(2, int)},
            "at least two classes",
        ),
        ({"classes": np.array(["a", "b"])}, r"train labels must be in \[0, 2\)"),
        ({"classes": np.array([1, 2, 3])}, "classes must be a one-dimensional array of strings"),
        (
            {"classes": np.array(["a", "b", None], dtype=object)},
            "plain arrays.*pickled objects.*refused",
        ),
        ({"train_images": COLOR[:, :4], "test_images": COLOR[:2, :4]}, "square"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        load_dataset("npz", write(tmp_path / "mine.npz", **changes))


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_file(tmp_path, keep, save):
    path = tmp_path / "mine.npz"
    save(path, **GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"\.npz of plain arrays; got .*mine\.npz"):
        load_dataset("npz", str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_file_is_an_error_wherever_the_damage_is(tmp_path, save):
    """Every overwritten stretch gives an InputError or, where a name of the archive is hit, still the right arrays."""
    path = tmp_path / "mine.npz"
    save(path, **GOOD)
    whole = path.read_bytes()
    for start in range(0, len(whole), 37):
        path.write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
        try:
            source = load_dataset("npz", str(path))
        except InputError:
            continue
        assert torch.equal(
            source.train.images, torch.from_numpy(COLOR.transpose(0, 3, 1, 2).copy())
        )


def test_single_array_and_text_are_not_archives(tmp_path):
    np.save(tmp_path / "one.npy", COLOR)
    (tmp_path / "text.npz").write_text("hello")
    for name in ("one.npy", "text.npz"):
        with pytest.raises(InputError, match=r"must be an \.npz"):
            load_dataset("npz", str(tmp_path / name))


def test_missing_file_folder_and_root(tmp_path):
    with pytest.raises(InputError, match=r"mine\.npz, .*not exist"):
        load_dataset("npz", str(tmp_path / "mine.npz"))
    with pytest.raises(InputError, match="IsADirectoryError"):
        load_dataset("npz", str(tmp_path))
    with pytest.raises(InputError, match=r"no root\. Pass root=PATH"):
        load_dataset("npz")
