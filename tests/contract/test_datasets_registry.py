"""What every registered data set must keep to. A new one is tested by being registered.

One that needs files also needs a writer of tiny ones in FAKES; the failure says so.
"""

import gzip

import numpy as np
import pytest
import torch

from fedlas._core.check import InputError
from fedlas.data import DATASETS, Batches, Source, load_dataset, split

FAKES = {}


def fake(name):
    def register(writer):
        FAKES[name] = writer
        return writer

    return register


def _arrays(num_classes, size, channels):
    random = np.random.default_rng(0)
    train, test = np.arange(6 * num_classes) % num_classes, np.arange(2 * num_classes) % num_classes
    shape = (size, size, channels) if channels > 1 else (size, size)
    return {
        "train_images": random.integers(0, 256, (len(train), *shape), dtype=np.uint8),
        "train_target": train.astype(np.uint8),
        "test_images": random.integers(0, 256, (len(test), *shape), dtype=np.uint8),
        "test_target": test.astype(np.uint8),
    }


@fake("fashion-mnist")
def _(folder):
    arrays = _arrays(10, 28, 1)
    for key, name in (("train", "train"), ("test", "t10k")):
        for array, kind in ((arrays[f"{key}_images"], "images-idx3"), (arrays[f"{key}_target"], "labels-idx1")):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


@fake("cifar10")
def _(folder):
    np.savez(folder / "cifar10.npz", **_arrays(10, 32, 3))
    return folder


@fake("cifar100")
def _(folder):
    np.savez(folder / "cifar100.npz", **_arrays(100, 32, 3))
    return folder


@fake("npz")
def _(folder):
    np.savez(folder / "mine.npz", **_arrays(3, 6, 1))
    return folder / "mine.npz"


@fake("folder")
def _(folder):
    from PIL import Image

    arrays = _arrays(3, 9, 3)
    for part in ("train", "test"):
        for row, (image, label) in enumerate(zip(arrays[f"{part}_images"], arrays[f"{part}_target"], strict=True)):
            place = folder / part / f"class-{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{row:03d}.png")
    return folder


@pytest.fixture(params=list(DATASETS))
def name(request):
    return request.param


@pytest.fixture
def root(name, tmp_path, monkeypatch):
    monkeypatch.delenv("FEDLAS_DATA", raising=False)
    if "files" not in DATASETS[name].metadata:
        return None
    if name not in FAKES:
        pytest.fail(
            f"the data set {name!r} was registered with files={DATASETS[name].metadata['files']!r}: add a function to "
            f"FAKES in {__name__} that writes a tiny one into a folder and returns the root to load it from, or "
            "register it without files= if it needs none."
        )
    return str(FAKES[name](tmp_path))


def test_is_documented(name):
    assert DATASETS[name].summary.endswith(".")


def test_is_a_source_of_uint8_images(name, root):
    source = load_dataset(name, root)
    assert isinstance(source, Source)
    assert source.train.images.dtype == source.test.images.dtype == torch.uint8
    assert source.train.images.is_contiguous()
    assert source.train.images.shape[1:] == source.test.images.shape[1:]
    assert source.train.target.unique().tolist() == list(range(source.num_classes))
    assert len(set(source.classes)) == source.num_classes
    assert all(isinstance(label, str) for label in source.classes)


def test_the_registry_builds_it_too(name, root):
    assert isinstance(DATASETS.build(name, {}, root=root), Source)


def test_same_every_time_and_no_global_randomness(name, root):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = load_dataset(name, root), load_dataset(name, root)
    for part in ("train", "test"):
        assert torch.equal(getattr(first, part).images, getattr(again, part).images)
        assert torch.equal(getattr(first, part).target, getattr(again, part).target)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_splits_and_becomes_batches(name, root):
    splits = split(load_dataset(name, root), seed=1, val_size=0.3)
    batches = Batches(
        splits.train,
        mean=splits.mean,
        std=splits.std,
        batch_size=8,
        flip=splits.flip,
        crop_padding=splits.crop_padding,
        shuffle=True,
    )
    x, target, index = next(iter(batches))
    size = splits.image_size
    assert x.shape == (8, splits.in_channels, size, size)
    assert x.dtype == torch.float32
    assert torch.isfinite(x).all()
    assert torch.equal(target, splits.train.target[index])


def test_known_statistics_are_those_of_other_data_too(name, root):
    """A mean typed in must be a fraction of white, not a grey level."""
    source = load_dataset(name, root)
    assert all(0 < value < 1 for value in (source.mean or ()) + (source.std or ()))


def test_augmentation_can_be_switched_off(name, root):
    source = load_dataset(name, root, flip=False, crop_padding=0)
    assert (source.flip, source.crop_padding) == (False, 0)


def test_unknown_option_names_the_nearest(name, root):
    with pytest.raises(InputError, match=r"got 'crop_paddin'\. Did you mean 'crop_padding'\?"):
        load_dataset(name, root, crop_paddin=1)


def test_missing_or_superfluous_root_is_a_clear_error(name, root, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr("fedlas.data.fashion_mnist._download", lambda folder: "; no network")
    with pytest.raises(InputError, match="; got ") as error:
        load_dataset(name, str(tmp_path / "nowhere"))
    assert "nowhere" in str(error.value)
    if root is not None:
        monkeypatch.delenv("FEDLAS_DATA")
        monkeypatch.setattr("fedlas.data.fashion_mnist.DEBIAN_FOLDER", tmp_path / "not installed")
        with pytest.raises(InputError, match="; got "):
            load_dataset(name)
