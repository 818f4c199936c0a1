"""SVHN and MNIST: read as torchvision reads the same files."""

import gzip

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat
from torchvision import datasets

from fakes_data import FAKES, arrays, write_idx
from fedlas._core.check import InputError
from fedlas.lab.data import load_dataset


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("FEDLAS_DATA", raising=False)


def test_svhn_is_what_torchvision_reads(tmp_path, monkeypatch):
    root = FAKES["svhn"](tmp_path)
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *arguments: True)
    source = load_dataset("svhn", str(root))
    for part, images in (("train", source.train), ("test", source.test)):
        theirs = datasets.SVHN(str(root), split=part)
        assert np.array_equal(images.images.numpy(), theirs.data)
        assert images.target.tolist() == theirs.labels.tolist()
    assert (source.classes, source.flip, source.crop_padding) == (tuple("0123456789"), False, 4)


def test_svhn_may_take_the_extra_images_and_lie_in_a_folder_of_its_name(tmp_path):
    (tmp_path / "svhn").mkdir()
    FAKES["svhn"](tmp_path / "svhn")
    (tmp_path / "svhn" / "extra_32x32.mat").write_bytes((tmp_path / "svhn" / "test_32x32.mat").read_bytes())
    plain, more = load_dataset("svhn", str(tmp_path)), load_dataset("svhn", str(tmp_path), extra=True)
    assert len(more.train) == len(plain.train) + len(plain.test)
    assert torch.equal(more.train.images[-1], plain.test.images[-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:3000]), r"must be the published Matlab file; got .*train_32"),
        (lambda file: file.write_bytes(b""), "it is empty"),
        (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda file: file.write_bytes(b"<!DOCTYPE html><html>404</html>"), "it is a web page"),
        (lambda file: file.write_text("no Matlab file, " * 40), "must be the published Matlab file"),
        (lambda file: savemat(file, {"X": loadmat(file)["X"]}), "KeyError"),
        (lambda file: savemat(file, {"X": loadmat(file)["X"], "y": [[11]]}), "60 labels from 1 to 10; got 1 from 11"),
        (lambda file: savemat(file, {"X": np.zeros((3, 3)), "y": [[1]]}), r"X must be uint8 \(32, 32, 3, N\)"),
        (lambda file: file.unlink(), "extracted only in part"),
    ],
)
def test_damaged_svhn_says_what_to_do(tmp_path, change, words):
    change(FAKES["svhn"](tmp_path) / "train_32x32.mat")
    with pytest.raises(InputError, match=words) as error:
        load_dataset("svhn", str(tmp_path))
    assert error.value.parts[3].strip()


def test_mnist_is_what_torchvision_reads(tmp_path):
    root = FAKES["mnist"](tmp_path)
    for path in (root / "MNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    source = load_dataset("mnist", str(root))
    for part, images in (("train", source.train), ("test", source.test)):
        theirs = datasets.MNIST(str(root), train=part == "train")
        assert torch.equal(images.images[:, 0], theirs.data)
        assert torch.equal(images.target, theirs.targets)
    assert (source.flip, source.crop_padding) == (False, 0)


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_mnist_in_its_usual_places(tmp_path, below):
    write_idx(tmp_path / below, arrays(10, 28, 1))
    assert len(load_dataset("mnist", str(tmp_path)).train) == 60


def whole(counts):
    target = np.repeat(np.arange(10), counts).astype(np.uint8)
    test = np.arange(10, dtype=np.uint8)
    images = {f"{part}_images": np.zeros((len(t), 2, 2), np.uint8) for part, t in (("train", target), ("test", test))}
    return {**images, "train_target": target, "test_target": test}


def test_mnist_and_fashion_mnist_are_not_taken_for_each_other(tmp_path):
    """Their files have the same names; only the counts of the classes tell them apart."""
    mnist = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    write_idx(tmp_path / "clothes", whole([6000] * 10))
    write_idx(tmp_path / "digits", whole(mnist))
    assert len(load_dataset("mnist", str(tmp_path / "digits")).train) == 60_000
    assert len(load_dataset("fashion-mnist", str(tmp_path / "clothes")).train) == 60_000
    with pytest.raises(InputError, match="Fashion-MNIST's files have the same names"):
        load_dataset("mnist", str(tmp_path / "clothes"))
    with pytest.raises(InputError, match="MNIST's files have the same names"):
        load_dataset("fashion-mnist", str(tmp_path / "digits"))


def test_mnist_nowhere_and_misplaced(tmp_path):
    with pytest.raises(InputError, match=r"got none in .*FOLDER/mnist"):
        load_dataset("mnist", str(tmp_path))
    write_idx(tmp_path / "a" / "b", arrays(10, 28, 1))
    with pytest.raises(InputError, match=r"it lies deeper, in .*a.b\. Pass .*a.b instead"):
        load_dataset("mnist", str(tmp_path))


def test_pointers_in_the_place_of_files_are_recognized(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    write_idx(tmp_path, arrays(10, 28, 1))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(pointer)
    with pytest.raises(InputError, match="git lfs pull"):
        load_dataset("mnist", str(tmp_path))
    (tmp_path / "cifar10.npz").write_bytes(pointer)
    with pytest.raises(InputError, match="git lfs pull"):
        load_dataset("cifar10", str(tmp_path))


def test_cifar_misplaced_or_an_archive(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InputError, match=r"it lies higher, in .*Pass"):
        load_dataset("cifar10", str(tmp_path / "cifar-10-batches-py"))
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"not extracted yet\. Extract it: tar -xf .*cifar-100-python\.tar\.gz -C"):
        load_dataset("cifar100", str(tmp_path))
