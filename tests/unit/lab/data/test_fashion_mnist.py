import gzip

import numpy as np
import pytest
import torch

from fedlas._core.check import InputError
from fedlas.lab.data import fashion_mnist, load_dataset

IMAGES = np.arange(20 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
TARGET = (np.arange(20) % 10).astype(np.uint8)


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write(folder, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", IMAGES), ("labels-idx1", TARGET)):
            name, data = f"{part}-{kind}-ubyte", idx(array)
            (folder / f"{name}.gz" if compress else folder / name).write_bytes(
                gzip.compress(data) if compress else data
            )
    return folder


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch, tmp_path):
    """Neither environment nor Debian's package, unless a test provides them."""
    monkeypatch.delenv("FEDLAS_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")


@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("compress", [True, False])
def test_found_under_the_environment_variable(tmp_path, monkeypatch, below, compress):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path / "data"))
    write(tmp_path / "data" / below, compress)
    source = load_dataset("fashion-mnist")
    assert torch.equal(source.test.images[:, 0], torch.from_numpy(IMAGES.copy()))
    assert source.train.target.tolist() == TARGET.tolist()
    assert source.classes[9] == "Ankle boot"
    assert (source.flip, source.crop_padding, source.mean, source.std) == (True, 0, (0.2860,), (0.3530,))


def test_found_where_debian_puts_it_even_if_the_variable_points_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path / "data"))
    write(tmp_path / "debian")
    assert len(load_dataset("fashion-mnist").train) == 20


def test_a_given_root_is_not_replaced_by_another_place(tmp_path):
    write(tmp_path / "debian")
    with pytest.raises(InputError, match="four IDX files must be on disk"):
        load_dataset("fashion-mnist", str(tmp_path / "data"))


def test_three_of_four_files_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLAS_DATA", str(write(tmp_path / "data")))
    (tmp_path / "data" / "t10k-labels-idx1-ubyte.gz").unlink()
    write(tmp_path / "debian")
    assert len(load_dataset("fashion-mnist").train) == 20


@pytest.fixture
def fetched(monkeypatch):
    """Folders into which the files were downloaded."""
    folders = []

    def download(folder):
        folders.append(folder)
        write(folder / "FashionMNIST" / "raw")
        return ""

    monkeypatch.setattr(fashion_mnist, "_download", download)
    return folders


def test_nothing_is_downloaded_unless_asked_for(tmp_path, monkeypatch, fetched):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path))
    for root in (None, str(tmp_path)):
        with pytest.raises(InputError, match=r"data\.download=true") as error:
            load_dataset("fashion-mnist", root)
        assert "apt install dataset-fashion-mnist" in str(error.value)
    assert fetched == []


def test_downloaded_when_asked_for_and_found_nowhere(tmp_path, monkeypatch, fetched):
    monkeypatch.setenv("FEDLAS_DATA", str(tmp_path))
    for _ in range(2):
        assert len(load_dataset("fashion-mnist", download=True).train) == 20
    assert fetched == [tmp_path]


def test_a_download_needs_a_folder(tmp_path, fetched):
    with pytest.raises(InputError, match="FEDLAS_DATA is not set") as error:
        load_dataset("fashion-mnist", download=True)
    assert str(tmp_path / "debian") in str(error.value)
    assert fetched == []


def test_download_must_be_a_flag():
    with pytest.raises(InputError, match="download must be true or false; got str 'no'"):
        load_dataset("fashion-mnist", download="no")


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("corrupted")])
def test_failing_download_becomes_part_of_the_message(tmp_path, monkeypatch, error):
    import torchvision

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    with pytest.raises(InputError, match=f"the download into .* failed .*{error}"):
        load_dataset("fashion-mnist", str(tmp_path), download=True)


@pytest.mark.parametrize("keep", [0, 3, 12, 100, -1])
@pytest.mark.parametrize("compress", [True, False])
def test_truncated_file_is_named(tmp_path, keep, compress):
    folder = write(tmp_path / "data", compress)
    path = next(folder.glob("train-images*"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=f"the file must be .*{path.name}"):
        load_dataset("fashion-mnist", str(folder))


def test_images_where_labels_should_be(tmp_path):
    folder = write(tmp_path / "data")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes((folder / "train-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(InputError, match=r"IDX of unsigned bytes with 1 dimension; got .*train-labels.*00 00 08 03"):
        load_dataset("fashion-mnist", str(folder))


def test_not_gzipped_in_spite_of_its_name(tmp_path):
    folder = write(tmp_path / "data")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx(TARGET))
    with pytest.raises(InputError, match="BadGzipFile"):
        load_dataset("fashion-mnist", str(folder))


def test_other_label_count(tmp_path):
    folder = write(tmp_path / "data")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(TARGET[:-1])))
    with pytest.raises(InputError, match=r"train_target must be whole numbers \(20,\)"):
        load_dataset("fashion-mnist", str(folder))


def test_debians_package_if_it_is_installed(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("FEDLAS_DATA", raising=False)
    if not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    source = load_dataset("fashion-mnist")
    assert torch.bincount(source.train.target).tolist() == [6000] * 10
    assert torch.bincount(source.test.target).tolist() == [1000] * 10
    pixels = source.train.images.float() / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((0.2860, 0.3530), abs=1e-4)
