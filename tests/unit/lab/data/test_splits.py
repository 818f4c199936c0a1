import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas.errors import InputError
from fedlas.lab.data import Images, Source, load_dataset, split


def source(counts, test_counts=None, size=2):
    """Images whose first pixels hold their position, so that a sample can be recognized."""

    def part(counts):
        target = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        images = torch.zeros(len(target), 1, size, size, dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = (
            torch.arange(len(target)) % 256,
            torch.arange(len(target)) // 256,
        )
        return Images(images, target)

    return Source(
        "mine", part(counts), part(test_counts or counts), tuple("abcdefghij"[: len(counts)])
    )


def position(images):
    return (images.images[:, 0, 0, 0].long() + 256 * images.images[:, 0, 0, 1].long()).numpy()


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=8).filter(
        lambda counts: sum(counts) > len(counts)
    ),
    st.integers(0, 2**32),
    st.data(),
)
def test_parts_are_disjoint_exact_and_stratified(counts, seed, data):
    whole = source(counts)
    classes, total = len(counts), sum(counts)
    val_size = data.draw(st.integers(1, total - classes))
    train_size = data.draw(st.integers(classes, total - val_size))
    test_size = data.draw(st.integers(1, total))
    splits = split(whole, seed=seed, val_size=val_size, train_size=train_size, test_size=test_size)

    assert (len(splits.train), len(splits.val), len(splits.test)) == (
        train_size,
        val_size,
        test_size,
    )
    train, val = set(splits.indices["train"].tolist()), set(splits.indices["val"].tolist())
    assert len(train) == train_size
    assert len(val) == val_size
    assert not train & val
    assert len(set(splits.indices["test"].tolist())) == test_size
    for name, images in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        assert np.array_equal(position(images), splits.indices[name])
        assert splits.indices[name].dtype == np.int64
    assert (torch.bincount(splits.train.target, minlength=classes) > 0).all()
    test_share = (
        torch.bincount(splits.test.target, minlength=classes)
        - torch.tensor(counts) * test_size / total
    )
    assert test_share.abs().max() < 1


def test_balanced_classes_stay_balanced():
    splits = split(source([30] * 5), seed=0, val_size=0.2, train_size=50, test_size=25)
    for part, each in ((splits.val, 6), (splits.train, 10), (splits.test, 5)):
        assert torch.bincount(part.target).tolist() == [each] * 5


def test_pure_function_of_the_seed():
    whole = source([40, 50, 60])
    state = torch.get_rng_state()
    first = split(whole, seed=3, val_size=30)
    torch.manual_seed(9)
    np.random.seed(9)
    again = split(whole, seed=3, val_size=30)
    other = split(whole, seed=4, val_size=30)
    torch.set_rng_state(state)
    for name in first.indices:
        assert np.array_equal(first.indices[name], again.indices[name])
    assert not np.array_equal(first.indices["val"], other.indices["val"])


def test_validation_is_independent_of_train_size():
    whole = source([40, 50, 60])
    small, large = (split(whole, seed=3, val_size=30, train_size=size) for size in (30, 60))
    assert np.array_equal(small.indices["val"], large.indices["val"])
    assert set(small.indices["train"]) <= set(large.indices["train"])


def test_test_part_is_official_for_every_seed():
    whole = source([10, 10], [7, 5])
    assert split(whole, seed=1, val_size=4).indices["test"].tolist() == list(range(12))


def test_splits_never_change():
    """Published runs depend on this."""
    splits = split(source([6, 6]), seed=0, val_size=4, test_size=2)
    assert [splits.indices[name].tolist() for name in ("val", "test")] == [[0, 5, 6, 9], [4, 7]]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"val_size": 19}, "at most 18 of 20 training images; got 19"),
        ({"val_size": 0}, "val_size must be a whole number of at least 1"),
        ({"val_size": 0.0}, r"val_size as a fraction must be in \(0, 1\).*got 0.0"),
        ({"val_size": 1.0}, r"val_size as a fraction must be in \(0, 1\)"),
        ({"val_size": float("nan")}, r"val_size as a fraction must be in \(0, 1\)"),
        ({"val_size": 0.01}, "give at least 1 of 20 training images; got 0.01"),
        ({"val_size": 0.99}, "at most 18 of 20 training images; got 0.99"),
        ({"val_size": True}, "val_size must be a whole number or a fraction"),
        ({"val_size": "0.1"}, "val_size must be a whole number or a fraction"),
        (
            {"val_size": 5, "train_size": 16},
            "at most 15: 20 training images less 5 for validation; got 16",
        ),
        ({"val_size": 5, "train_size": 1}, "train_size must be a whole number of at least 2"),
        (
            {"val_size": 5, "test_size": 21},
            "test_size must be at most 20, the images in the test part; got 21",
        ),
        ({"val_size": 5, "test_size": 0}, "test_size must be a whole number of at least 1"),
        ({"val_size": 5, "seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, words):
    with pytest.raises(InputError, match=words):
        split(source([10, 10]), **{"seed": 0} | sizes)


def test_statistics_come_from_training_images():
    whole = source([50, 50])
    splits = split(whole, seed=0, val_size=40)
    pixels = splits.train.images.double() / 255
    assert splits.mean == pytest.approx([pixels.mean().item()])
    assert splits.std == pytest.approx([pixels.std(unbiased=False).item()])
    known = Source("mine", whole.train, whole.test, whole.classes, mean=(0.1,), std=(0.2,))
    assert (split(known, seed=0, val_size=40).mean, split(known, seed=0, val_size=40).std) == (
        (0.1,),
        (0.2,),
    )


def test_moments_per_channel_and_of_a_constant_channel():
    images = torch.stack([torch.full((6, 3, 3), 51), torch.arange(54).view(6, 3, 3)], dim=1)
    part = Images(images.to(torch.uint8), torch.tensor([0, 0, 0, 1, 1, 1]))
    splits = split(Source("mine", part, part, ("a", "b")), seed=0, val_size=2)
    varying = splits.train.images[:, 1].double() / 255
    assert splits.mean == pytest.approx((0.2, varying.mean().item()))
    assert splits.std == pytest.approx((1.0, varying.std(unbiased=False).item()))


def test_properties_and_label_probs():
    splits = split(load_dataset("synthetic", num_classes=3, num_train=50), seed=0, val_size=10)
    assert (splits.num_classes, splits.in_channels, splits.image_size) == (3, 1, 8)
    assert splits.val.label_probs.shape == (10, 3)
    assert splits.to("cpu").train.images.data_ptr() == splits.train.images.data_ptr()


def test_indices_are_saved_with_nothing_left_behind(tmp_path):
    splits = split(source([10, 10]), seed=0, val_size=4)
    path = splits.save_indices(tmp_path / "run" / "split.npz")
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive.files) == ["test", "train", "val"]
        assert all(np.array_equal(archive[name], splits.indices[name]) for name in archive.files)
    assert [file.name for file in path.parent.iterdir()] == ["split.npz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="must be writable"):
        split(source([10, 10]), seed=0, val_size=4).save_indices(tmp_path / "split.npz")


def test_file_in_place_of_folder_raises(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="must be writable"):
        split(source([10, 10]), seed=0, val_size=4).save_indices(tmp_path / "run" / "split.npz")
