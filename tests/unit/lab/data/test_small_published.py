"""CIFAR, SVHN, Aircraft, MNIST and Fashion-MNIST: read as torchvision reads the same files."""

import gzip
import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from fakes_data import FAKES, arrays, write_idx
from fedlas.errors import InputError
from fedlas.lab.data import load_dataset
from fedlas.lab.data.sets import mnist

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch, tmp_path):
    """Neither environment nor Debian's package, unless a test provides them."""
    monkeypatch.delenv("FEDLAS_DATA", raising=False)
    monkeypatch.setattr(mnist, "DEBIAN_FOLDER", tmp_path / "debian")


@pytest.mark.parametrize(
    ("name", "classes", "red"), [("cifar10", 10, 0.4914), ("cifar100", 100, 0.5071)]
)
def test_npz_under_root_environment_or_named_itself(tmp_path, monkeypatch, name, classes, red):
    FAKES[name](tmp_path)
    by_root, by_path = (
        load_dataset(name, str(tmp_path)),
        load_dataset(name, str(tmp_path / f"{name}.npz")),
    )
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path))
    for source in (by_root, by_path, load_dataset(name)):
        assert (source.num_classes, source.flip, source.crop_padding, source.mean[0]) == (
            classes,
            True,
            4,
            red,
        )
        expected = arrays(classes, 32, 3)["train_images"].transpose(0, 3, 1, 2)
        assert np.array_equal(source.train.images.numpy(), expected)


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """A tiny cifar-10-batches-py, with torchvision told the sums of its files."""
    folder, content = tmp_path / "cifar-10-batches-py", arrays(10, 32, 3)
    folder.mkdir()

    def dump(name, value):
        data = pickle.dumps(value)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(part):
        images = content[f"{part}_images"].transpose(0, 3, 1, 2)
        return {
            "data": images.reshape(len(images), -1),
            "labels": content[f"{part}_target"].tolist(),
        }

    meta = dump("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [dump("data_batch_1", batch("train"))])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [dump("test_batch", batch("test"))])
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    )
    return folder


def test_torchvisions_batches_unless_they_are_damaged(batches):
    source = load_dataset("cifar10", str(batches.parent))
    assert source.classes == tuple("abcdefghij")
    assert np.array_equal(
        source.test.images.numpy(), arrays(10, 32, 3)["test_images"].transpose(0, 3, 1, 2)
    )

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the file was unpickled",))

    (batches / "data_batch_1").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"complete files of .*download=True"):
        load_dataset("cifar10", str(batches.parent))


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "svhn", "aircraft", "mnist", "fashion-mnist"]
)
def test_missing_data_names_download_and_fetches_nothing(name, tmp_path):
    for root, words in ((str(tmp_path), str(tmp_path)), (None, "FEDLAS_DATA")):
        with pytest.raises(InputError, match="download=True") as error:
            load_dataset(name, root)
        assert words in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_classes(tmp_path):
    np.savez(tmp_path / "cifar100.npz", **arrays(10, 32, 3))
    with pytest.raises(InputError, match="must hold 100 classes; got 10"):
        load_dataset("cifar100", str(tmp_path))


def test_svhn_is_what_torchvision_reads(tmp_path, monkeypatch):
    root = FAKES["svhn"](tmp_path)
    with pytest.raises(InputError, match="corrupted"):  # its sums are not the published ones
        load_dataset("svhn", str(root))
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *arguments: True)
    (root / "extra_32x32.mat").write_bytes((root / "test_32x32.mat").read_bytes())
    plain, more = load_dataset("svhn", str(root)), load_dataset("svhn", str(root), extra=True)
    assert plain.train.target.tolist() == arrays(10, 32, 3)["train_target"].tolist()
    assert np.array_equal(
        plain.train.images.numpy(), arrays(10, 32, 3)["train_images"].transpose(0, 3, 1, 2)
    )
    assert (plain.classes, plain.flip, plain.crop_padding) == (tuple("0123456789"), False, 4)
    assert len(more.train) == len(plain.train) + len(plain.test)
    assert torch.equal(more.train.images[-1], plain.test.images[-1])


@pytest.mark.parametrize("level", ["variant", "family", "manufacturer"])
def test_aircraft_by_level(tmp_path, level):
    root = FAKES["aircraft"](tmp_path)
    source = load_dataset("aircraft", str(root), level=level)
    for part, files in (("trainval", source.train), ("test", source.test)):
        theirs = datasets.FGVCAircraft(root, split=part, annotation_level=level)
        assert [str(files.path(row)) for row in range(len(files))] == [
            str(path) for path in theirs._image_files
        ]
        assert files.target.tolist() == theirs._labels
    assert source.train.view.cut_bottom == 20


def test_what_is_wrong_with_aircraft_is_said(tmp_path):
    folder = FAKES["aircraft"](tmp_path) / "fgvc-aircraft-2013b" / "data"
    with pytest.raises(InputError, match="Did you mean 'family'"):
        load_dataset("aircraft", str(tmp_path), level="familiy")
    (folder / "images" / "0000003.jpg").unlink()
    with pytest.raises(InputError, match=r"got 1 of 32 missing in .*0000003\.jpg"):
        load_dataset("aircraft", str(tmp_path))
    (folder / "variants.txt").write_text("707-320\n")
    with pytest.raises(InputError, match=r"the complete files of .*; got .*727-200"):
        load_dataset("aircraft", str(tmp_path))


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_idx_files_are_what_torchvision_reads(tmp_path, name, kind):
    raw = tmp_path / kind / "raw"
    write_idx(raw, arrays(10, 28, 1))
    zipped = load_dataset(name, str(tmp_path))
    for path in raw.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    source = load_dataset(name, str(tmp_path))
    for part in ("train", "test"):
        theirs, images = (
            getattr(datasets, kind)(str(tmp_path), train=part == "train"),
            getattr(source, part),
        )
        assert torch.equal(images.images[:, 0], theirs.data)
        assert torch.equal(images.target, theirs.targets)
        assert torch.equal(images.images, getattr(zipped, part).images)
    assert source.classes[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]


def test_fashion_mnist_where_debian_puts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path / "data"))
    write_idx(tmp_path / "debian", arrays(10, 28, 1))
    write_idx(tmp_path / "data", arrays(10, 28, 1))
    (tmp_path / "data" / "t10k-labels-idx1-ubyte.gz").unlink()  # three of four are passed over
    assert len(load_dataset("fashion-mnist").train) == 60
    with pytest.raises(InputError, match="four IDX files"):  # a root is not replaced
        load_dataset("fashion-mnist", str(tmp_path / "data"))


def whole(counts):
    target = np.repeat(np.arange(10), counts).astype(np.uint8)
    test = np.arange(10, dtype=np.uint8)
    images = {
        f"{part}_images": np.zeros((len(t), 2, 2), np.uint8)
        for part, t in (("train", target), ("test", test))
    }
    return {**images, "train_target": target, "test_target": test}


def test_mnist_and_fashion_mnist_differ_by_counts(tmp_path):
    """Their files have the same names; only the counts of the classes distinguish them."""
    write_idx(tmp_path / "clothes", whole([6000] * 10))
    write_idx(
        tmp_path / "digits", whole([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    )
    places = {"mnist": str(tmp_path / "digits"), "fashion-mnist": str(tmp_path / "clothes")}
    for (name, place), other in zip(places.items(), reversed(places.values()), strict=True):
        assert len(load_dataset(name, place).train) == 60_000
        with pytest.raises(InputError, match="files have the same names"):
            load_dataset(name, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:3]), "EOFError"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "EOFError"),
        (
            lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1])),
            "reshape",
        ),
        (
            lambda path: path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + bytes(12))),
            "magic number is 00 00 08 03",
        ),
        (lambda path: path.write_bytes(gzip.decompress(path.read_bytes())), "BadGzipFile"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(POINTER), "git lfs pull"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>404</html>"), "it is a web page"),
        (
            lambda path: path.write_bytes(gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 2, 0, 1)))),
            r"numbers \(60,\)",
        ),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, change, words):
    write_idx(tmp_path, arrays(10, 28, 1))
    change(tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(InputError, match=words) as error:
        load_dataset("mnist", str(tmp_path))
    assert "train" in str(error.value)


def test_debians_package_if_it_is_installed(monkeypatch):
    monkeypatch.undo()
    if not mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    source = load_dataset("fashion-mnist")
    assert torch.bincount(source.test.target).tolist() == [1000] * 10
    pixels = source.train.images.float() / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((0.2860, 0.3530), abs=1e-4)
