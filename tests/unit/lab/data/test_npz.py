import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.data import load_dataset, split

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
        ({"train_images": COLOR[0, 0, 0]}, "train_images must be numbers"),
        ({"train_images": COLOR.astype("U3")}, "train_images must be numbers"),
        ({"train_images": np.full((4, 3), np.nan)}, "inputs must be finite"),
        ({"train_images": COLOR / 255}, "the same dtype; got torch"),
        ({"train_images": COLOR[:0], "train_target": np.zeros(0, int)}, "at least one image"),
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


def test_floats_keep_values_with_channels_first(tmp_path):
    floats = {
        "train_images": COLOR.transpose(0, 3, 1, 2) / 7.0,
        "test_images": COLOR[:2].transpose(0, 3, 1, 2) / 7.0,
    }
    path = write(tmp_path / "mine.npz", **floats)
    source = load_dataset("npz", path)
    assert source.train.images.dtype == torch.float32
    np.testing.assert_allclose(source.train.images, floats["train_images"], rtol=1e-6)
    assert torch.equal(
        load_dataset("npz", path, channels="first").train.images, source.train.images
    )
    rows = load_dataset(
        "npz", write(tmp_path / "rows.npz", train_images=np.eye(4), test_images=np.eye(4)[:2])
    )
    assert rows.train.images.tolist() == np.eye(4).tolist()
    splits = split(source, seed=0, val_size=1)
    x = torch.cat([inputs for inputs, *_ in splits.batches(splits.train, batch_size=4)])
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_other_names_and_a_validation_part(tmp_path):
    arrays = {name.replace("images", "x"): value for name, value in GOOD.items()}
    np.savez(tmp_path / "mine.npz", **arrays, val_x=COLOR[:3], val_target=np.array([0, 1, 2]))
    names = {f"{part}_images": f"{part}_x" for part in ("train", "val", "test")}
    source = load_dataset("npz", str(tmp_path / "mine.npz"), arrays=names)
    assert source.val.target.tolist() == [0, 1, 2]
    splits = split(source, seed=3, val_size=0.1)
    assert (len(splits.train), len(splits.val), splits.indices["val"].tolist()) == (4, 3, [0, 1, 2])
    with pytest.raises(InputError, match=r"must hold train_x, .*test_target"):
        load_dataset("npz", write(tmp_path / "other.npz"), arrays={"train_images": "train_x"})
    for wrong in ({"images": "x"}, ["x"]):
        with pytest.raises(InputError, match=r"data\.arrays must"):
            load_dataset("npz", str(tmp_path / "mine.npz"), arrays=wrong)


@pytest.mark.parametrize("keep", [0, 10, 300, -30])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_file(tmp_path, keep, save):
    path = tmp_path / "mine.npz"
    save(path, **GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"\.npz of plain arrays; got .*mine\.npz"):
        load_dataset("npz", str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere_in_file_is_an_error(tmp_path, save):
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
