import hashlib
import pickle

import numpy as np
import pytest
import torch

from fedlas._core.check import InputError
from fedlas.lab.data import load_dataset


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("FEDLAS_DATA", raising=False)


def arrays(classes=10):
    target = np.arange(2 * classes) % classes
    images = (np.arange(len(target) * 32 * 32 * 3) % 251).astype(np.uint8).reshape(-1, 32, 32, 3)
    return {"train_images": images, "train_target": target, "test_images": images, "test_target": target}


@pytest.mark.parametrize(("name", "classes", "red"), [("cifar10", 10, 0.4914), ("cifar100", 100, 0.5071)])
def test_npz_under_root_environment_or_named_itself(tmp_path, monkeypatch, name, classes, red):
    np.savez(tmp_path / f"{name}.npz", **arrays(classes))
    by_root, by_path = load_dataset(name, str(tmp_path)), load_dataset(name, str(tmp_path / f"{name}.npz"))
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path))
    by_environment = load_dataset(name)
    for source in (by_root, by_path, by_environment):
        assert source.num_classes == classes
        assert (source.flip, source.crop_padding, source.mean[0]) == (True, 4, red)
        expected = torch.from_numpy(arrays(classes)["train_images"]).permute(0, 3, 1, 2)
        assert torch.equal(source.train.images, expected)


def write_batches(folder, monkeypatch):
    """A tiny cifar-10-batches-py, with torchvision told the sums of its files."""
    from torchvision.datasets import CIFAR10

    folder.mkdir()
    images = arrays()["train_images"].transpose(0, 3, 1, 2).reshape(20, -1)

    def dump(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    batch = {"data": images, "labels": (np.arange(20) % 10).tolist()}
    meta = dump("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", [dump("data_batch_1", batch)])
    monkeypatch.setattr(CIFAR10, "test_list", [dump("test_batch", batch)])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})


def test_torchvisions_batches(tmp_path, monkeypatch):
    write_batches(tmp_path / "cifar-10-batches-py", monkeypatch)
    source = load_dataset("cifar10", str(tmp_path))
    assert source.classes == tuple("abcdefghij")
    assert torch.equal(source.test.images, torch.from_numpy(arrays()["train_images"]).permute(0, 3, 1, 2))


def test_damaged_batches_are_not_unpickled(tmp_path, monkeypatch):
    write_batches(tmp_path / "cifar-10-batches-py", monkeypatch)
    victim = tmp_path / "cifar-10-batches-py" / "data_batch_1"

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the file was unpickled",))

    victim.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"torchvision must find all files intact; got .*download=True"):
        load_dataset("cifar10", str(tmp_path))


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"a file cifar10\.npz or torchvision's folder .*; got neither in "):
        load_dataset("cifar10", str(tmp_path))
    with pytest.raises(InputError, match=r"got no root, and \$FEDLAS_DATA is not set\. Pass root"):
        load_dataset("cifar100")


def test_another_number_of_classes(tmp_path):
    np.savez(tmp_path / "cifar100.npz", **arrays(10))
    with pytest.raises(InputError, match="must hold 100 classes; got 10"):
        load_dataset("cifar100", str(tmp_path))
