"""What happens to files when the disk, the folder or another writer gets in the way."""

import os
import threading

import pytest

from fedlas._core import files
from fedlas._core.check import InputError
from fedlas._core.files import remove_parts, write_atomically, write_text


def test_full_disk_is_an_input_error_and_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "a", "old")

    def write(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"output folder: .*No space left.*free some space"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="output folder"):
        write_text(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_read_only_folder_also_where_root_may_write_anywhere(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(InputError, match=r"Permission denied.*--out"):
        write_text(tmp_path / "a", "x")


def test_remove_parts_takes_only_parts(tmp_path):
    (tmp_path / "below").mkdir()
    parts = [tmp_path / ".checkpoint.pt.abc.part", tmp_path / "below" / ".val.npz.x.part"]
    others = [tmp_path / "my.part", tmp_path / ".hidden", tmp_path / "below" / "val.npz"]
    for path in parts + others:
        path.write_text("x")
    remove_parts(tmp_path)
    assert not any(path.exists() for path in parts)
    assert all(path.exists() for path in others)


def test_writers_side_by_side_each_write_a_whole_file(tmp_path):
    path, texts = tmp_path / "a", [str(n) * 5000 for n in range(4)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208
