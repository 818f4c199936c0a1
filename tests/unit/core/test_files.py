"""Files are whole or not there, also when the disk, the folder or another writer gets in the way."""

import json
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlas._core import files
from fedlas._core.files import (
    check_path_component,
    check_writable,
    is_same_file,
    read_json,
    remove,
    remove_stale_temporaries,
    require_inside,
    require_no_links,
    write_atomically,
    write_json,
    write_text,
)
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


def test_json_file_of_nothing_is_refused_by_size(tmp_path):
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"1,099,511,627,776 bytes"):
        read_json(path)


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
        *(f"[{10**400}]", f"[-{10**309}]"),
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
    with pytest.raises(InputError, match=r"output folder must be writable.*file"):
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


def test_pipe_or_device_is_not_replaced(tmp_path):
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


def test_full_disk_raises_and_keeps_old_file(tmp_path):
    path = write_text(tmp_path / "a", "old")

    def write(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"output folder .*No space left"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [1_000, 30_000, 300_000])
@pytest.mark.parametrize(
    "save",
    [
        lambda arrays, file: torch.save(
            {name: torch.from_numpy(array) for name, array in arrays.items()}, file
        ),
        lambda arrays, file: np.savez(file, **arrays),
        lambda arrays, file: np.savez_compressed(file, **arrays),
        lambda arrays, file: file.write(arrays["0"].tobytes()),
    ],
    ids=["torch", "npz", "compressed", "bytes"],
)
def test_full_disk_under_every_writer(tmp_path, full_disk, save, size):
    """Some writers meet the error while they close their archive, and raise another in its place."""
    path = write_text(tmp_path / "a", "old")
    arrays = {str(number): np.random.default_rng(number).random(size) for number in range(3)}
    with (
        full_disk(5_000),
        pytest.raises(InputError, match=r"output folder .*/a \(File too large\)"),
    ):
        write_atomically(path, lambda file: save(arrays, file))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="output folder"):
        write_text(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_read_only_folder_raises_even_for_root(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(InputError, match=r"Permission denied.*--out"):
        write_text(tmp_path / "a", "x")


def test_remove_parts_removes_only_leftover_files(tmp_path):
    (tmp_path / "below").mkdir()

    def killed(_file):
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.Path, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write_atomically(tmp_path / "checkpoint.pt", killed)
    (part,) = tmp_path.glob(".checkpoint.pt*")
    others = [
        ".film.mkv.part",
        ".film.mkv.abcdefgh.part",
        ".film.mkv.of_mine_.fedlas.part",
        "my.fedlas.part",
        ".hidden",
        f"below/{part.name}",
    ]
    for name in others:
        (tmp_path / name).write_text("x")
    for name in (".mine.0123abcd.fedlas.part/precious", ".link.0123abcd.fedlas.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / ".hidden")
        others.append(name)
    os.link(tmp_path / ".hidden", tmp_path / ".twin.0123abcd.fedlas.part")
    remove_stale_temporaries(tmp_path, tmp_path / "nowhere")
    write_text(tmp_path / "link", "x")
    write_text(tmp_path / "twin", "x")
    assert not part.exists()
    assert all((tmp_path / name).exists() for name in [*others, ".twin.0123abcd.fedlas.part"])


@pytest.fixture
def house(tmp_path):
    """A folder with a neighbor that must survive whatever is removed inside the folder."""
    for name in ("neighbor", "home/inner"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "kept.txt").write_text("x")
    return tmp_path / "home"


def test_remove_accepts_files_folders_and_missing_paths(house):
    for _ in range(2):
        remove(house / "inner", inside=house)
        assert not (house / "inner").exists()
    (house / "a.txt").write_text("x")
    remove(house / "a.txt", inside=house)
    assert list(house.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../neighbor", "inner/../../neighbor", "/", "{tmp}/neighbor"]
)
def test_remove_stays_inside(house, name):
    with pytest.raises(InputError, match=r"must be below .*home"):
        remove(house / name.replace("{tmp}", str(house.parent)), inside=house)
    assert (house / "inner" / "kept.txt").exists()
    assert (house.parent / "neighbor" / "kept.txt").exists()


def test_remove_removes_link_but_not_its_target(house):
    (house / "link").symlink_to(house.parent / "neighbor")
    with pytest.raises(InputError, match="the path must be below"):
        remove(house / "link" / "kept.txt", inside=house)
    remove(house / "link", inside=house)
    (house / "link").symlink_to(house / "inner")
    with pytest.raises(InputError, match="the path must be below"):
        remove(house / "link" / "kept.txt", inside=house)
    remove(house / "link", inside=house)
    assert not (house / "link").is_symlink()
    assert (house / "inner" / "kept.txt").exists()
    assert (house.parent / "neighbor" / "kept.txt").exists()


def test_links_out_of_the_folder_are_refused(house):
    assert require_inside(house, house / "inner" / "new.txt") == house / "inner" / "new.txt"
    (house / "export").symlink_to(house.parent / "neighbor")
    with pytest.raises(InputError, match="must be below"):
        require_inside(house, house / "export" / "model.onnx")
    # a file of that name replaces the link
    assert require_inside(house, house / "export") == house / "export"


def test_only_the_submitit_link_is_accepted(house):
    """A link that stayed inside the folder was accepted, whatever its name."""
    jobs = house / ".slurm"
    jobs.mkdir()
    script = jobs / "17_submission.sh"
    script.write_text("#!/bin/bash")
    link = jobs / f".submission_file_{'0a' * 16}.sh"
    link.symlink_to(script)
    assert require_no_links(house, jobs) == jobs
    log = jobs / "17_0_log.out"
    log.write_text("")
    for name, target in (
        ("18_0_log.out", log),
        (link.name, log),
        (link.name, house / "a_submission.sh"),
    ):
        (jobs / name).unlink(missing_ok=True)
        (jobs / name).symlink_to(target)
        with pytest.raises(InputError, match="the path must be below"):
            require_no_links(house, jobs)
        (jobs / name).unlink()


def test_folder_itself_may_be_a_link(house):
    (house.parent / "scratch").symlink_to(house)
    remove(house.parent / "scratch" / "inner", inside=house.parent / "scratch")
    assert not (house / "inner").exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "/etc",
        "..\\b",
        "a\0",
        "a\n",
        "a\x1b[2J",
        "a" * 201,
        7,
        None,
    ],
)
def test_names_that_could_lead_elsewhere(name):
    with pytest.raises(InputError, match=r"loss .*plain name"):
        check_path_component("the loss", name, "Pass another.")


@pytest.mark.parametrize(
    "name", ["ce", "fedlas+", "my.loss", "module.py:loss", "l_2-norm", "Größe 2"]
)
def test_names_that_cannot(name):
    assert check_path_component("the loss", name, "Pass another.") == name


def test_concurrent_writers_each_write_a_complete_file(tmp_path):
    path, texts = tmp_path / "a", [str(n) * 5000 for n in range(4)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def test_temporary_file_removed_as_stale_is_recreated(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    flock, taken = fcntl.flock, []

    def held_by_another(handle, how):
        if not taken:
            taken.extend(tmp_path.iterdir())
            if how & fcntl.LOCK_NB:
                raise BlockingIOError  # it removes the part in a moment
            taken[0].unlink()  # and lets go of the lock
        flock(handle, how)

    def write(file):
        taken[0].unlink(missing_ok=True)
        file.write(b"whole")

    monkeypatch.setattr(fcntl, "flock", held_by_another)
    assert write_atomically(tmp_path / "a", write).read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def test_part_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    replace = Path.replace

    def replace_after_another_writer_began(part, target):
        files._remove_stale_temporaries(target)
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", replace_after_another_writer_began)
    assert write_text(tmp_path / "a", "whole").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_that_is_replaced_keeps_its_permissions(tmp_path):
    """A file of mode 600 was 644 after the next ``apply``, and what was being written could be read before."""
    for mode in (0o600, 0o640, 0o444, 0o666):
        write_text(tmp_path / "a", "old")
        (tmp_path / "a").chmod(mode)
        seen = []
        write_atomically(
            tmp_path / "a",
            lambda file, seen=seen: seen.append(os.fstat(file.fileno()).st_mode & 0o777),
        )
        assert [*seen, (tmp_path / "a").stat().st_mode & 0o777] == [mode, mode]
    (tmp_path / "link").symlink_to("a")
    assert (
        write_text(tmp_path / "link", "new").stat().st_mode
        == write_text(tmp_path / "new", "new").stat().st_mode
    )


def test_a_folder_is_tried_without_leaving_anything(tmp_path, monkeypatch):
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"must be writable; got .* \(Permission denied\)"):
        check_writable(tmp_path)


def test_next_writer_removes_leftovers_of_killed_writer(tmp_path):
    """Killed writers left a hidden file each, for ever; that of a living one stays, and so do those of other paths."""
    stale = tmp_path / ".a.json.0123abcd.fedlas.part"
    other = tmp_path / ".b.json.0123abcd.fedlas.part"
    for path in (stale, other):
        path.write_text("half")

    def write(file):
        part = [path for path in tmp_path.iterdir() if path not in (stale, other)]
        write_text(tmp_path / "a.json", "of another process")  # while this one writes
        assert [path for path in part if path.exists()] == part
        file.write(b"whole")

    write_atomically(tmp_path / "a.json", write)
    assert (tmp_path / "a.json").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "a.json"]


def test_names_of_one_file_are_the_same_file(tmp_path):
    path = write_text(tmp_path / "a.csv", "content")
    (tmp_path / "link.csv").symlink_to(path)
    os.link(path, tmp_path / "hard.csv")
    for name in ("a.csv", "link.csv", "hard.csv", "sub/../a.csv"):
        assert is_same_file(tmp_path / name, path)
    assert not is_same_file(tmp_path / "b.csv", path)
