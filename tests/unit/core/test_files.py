"""Files are whole or not there."""

import json
import os
import stat

import pytest

from fedlas._core.files import read_json, write_atomically, write_json, write_text
from fedlas.errors import InputError


def test_new_folders_and_old_files(tmp_path):
    path = write_text(tmp_path / "a" / "b" / "c.txt", "first: ä\n")
    assert path.read_bytes() == "first: ä\n".encode()
    write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = write_text(tmp_path / "a.txt", "old")

    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_file(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    written = write_text(tmp_path / "written", "")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"ece": float("nan")})
    assert not list(tmp_path.iterdir())
    assert json.loads(write_json(tmp_path / "a.json", {"ece": 0.1}).read_text()) == {"ece": 0.1}


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "[1, Infinity]", '{"a": -Infinity}', "[1,", "[" * 100_000, "1" * 5000),
        *("[1e999]", "[1E+0400]", f"[{'9' * 250}e99]", f"[-{'9' * 400}.0]"),
    ],
)
def test_what_is_no_json_is_no_json(tmp_path, text):
    """Neither are the constants that Python's own reader takes; a comparison with NaN is silently false."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"JSON|Exceeds|Expecting|finite"):
        read_json(tmp_path / "a.json")
    assert read_json(write_json(tmp_path / "a.json", {"a": [1.5, None]})) == {"a": [1.5, None]}


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output folder .*be written to.*file"):
        write_text(tmp_path / "file" / "a.txt", "")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="--out"):
            write_text(tmp_path / "a.txt", "")
    finally:
        tmp_path.chmod(0o700)


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path):
    """As root, a rename over /dev/null would take it from everybody."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "link", "/dev/null", "/dev/stdout"):
        with pytest.raises(InputError, match="device or a pipe"):
            write_text(path, "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("path", [3, True, None, b"a.json", "a\0b"])
def test_what_is_no_path_is_refused(path):
    for call in (read_json, lambda path: write_text(path, "")):
        with pytest.raises(InputError, match="str or a Path"):
            call(path)
