"""What every registered data set must keep to. A new one is tested by being registered.

One that needs files also needs a writer of tiny ones in ``fakes_data.FAKES``; the failure says so.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fakes_data import FAKES, OPTIONS
from fedlas.errors import InputError
from fedlas.lab.data import DATASETS, ImageFiles, Images, Source, load_dataset, split


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
            "FAKES in tests/fakes_data.py that writes a tiny one into a folder and returns its root, or "
            "register it without files= if it needs none."
        )
    # a fake has other sums
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *arguments: True)
    return str(FAKES[name](tmp_path))


@pytest.fixture
def options(name):
    return OPTIONS.get(name, {})


def test_is_a_source_of_uint8_images(name, root, options):
    source = load_dataset(name, root, **options)
    assert isinstance(source, Source)
    assert isinstance(source.train, Images | ImageFiles)
    assert type(source.train) is type(source.test)
    for part in (source.train, source.test):
        image = part.image(len(part) - 1)
        assert image.dtype == torch.uint8
        assert tuple(image.shape) == part.shape == source.train.shape
    if isinstance(source.train, Images):
        assert source.train.images.is_contiguous()
    assert source.train.target.unique().tolist() == list(range(source.num_classes))
    assert len(set(source.classes)) == source.num_classes
    assert all(isinstance(label, str) for label in source.classes)


def test_the_registry_builds_it_too(name, root, options):
    assert isinstance(DATASETS.build(name, options, root=root), Source)


def test_same_every_time_and_no_global_randomness(name, root, options):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = load_dataset(name, root, **options), load_dataset(name, root, **options)
    for part in ("train", "test"):
        one, other = getattr(first, part), getattr(again, part)
        assert torch.equal(one.image(0), other.image(0))
        assert torch.equal(one.image(len(one) - 1), other.image(len(one) - 1))
        assert torch.equal(one.target, other.target)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_splits_and_becomes_batches(name, root, options):
    splits = replace(split(load_dataset(name, root, **options), seed=1, val_size=0.3), workers=0)
    training = splits.training_batches(batch_size=8, seed=0)
    for batches, part in (
        (training, splits.train),
        (splits.batches(splits.test, batch_size=8), splits.test),
    ):
        x, target, index = next(iter(batches))
        assert x.shape == (len(index), *splits.train.shape)
        assert x.dtype == torch.float32
        assert torch.isfinite(x).all()
        assert torch.equal(target, part.target[index])


def test_known_statistics_are_those_of_other_data_too(name, root, options):
    """A mean typed in must be a fraction of white, not a gray level."""
    source = load_dataset(name, root, **options)
    assert all(0 < value < 1 for value in (source.mean or ()) + (source.std or ()))


def test_augmentation_can_be_switched_off(name, root, options):
    source = load_dataset(name, root, **options, flip=False, crop_padding=0)
    assert (source.flip, source.crop_padding) == (False, 0)


def test_unknown_option_names_the_nearest(name, root):
    with pytest.raises(InputError, match=r"'crop_paddin'.*'crop_padding'"):
        load_dataset(name, root, crop_paddin=1)


def test_missing_or_superfluous_root_is_a_clear_error(name, root, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="; got ") as error:
        load_dataset(name, str(tmp_path / "nowhere"))
    assert "nowhere" in str(error.value)
    if root is not None:
        monkeypatch.delenv("FEDLAS_DATA")
        monkeypatch.setattr("fedlas.lab.data.sets.mnist.DEBIAN_FOLDER", tmp_path / "not installed")
        with pytest.raises(InputError, match="; got "):
            load_dataset(name)
