"""What a killed process left in the temporary place is removed only if its marker says that fedlas made it here."""

import json
import os
import tempfile

import pytest

from fedlas._core.temporary import MARKER, private_folder, remove_stale_folders

NO_PROCESS = 2**22 + 1
"""Above the largest number of a process."""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="nothing is removed without locks")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "place"))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def leave(place):
    """Make a folder as a killed process leaves it, with a marker in which some values are others."""
    with private_folder() as folder:
        made = json.loads((folder / MARKER).read_text())

    def make(name="fedlas-table-abcdefgh", marker=MARKER, **others):
        folder = place / name
        folder.mkdir(0o700)
        (folder / "table.csv").write_text("precious")
        content = made | {"folder": folder.stat().st_ino, "pid": NO_PROCESS} | others
        (folder / marker).write_text(json.dumps(content))
        return folder

    return make


def test_private_folder_is_empty_of_all_but_its_marker(place):
    with private_folder() as folder:
        assert [path.name for path in folder.iterdir()] == [MARKER]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / MARKER).stat().st_mode & 0o777 == 0o600
        remove_stale_folders()
        assert folder.is_dir()
    assert not [*place.iterdir()]


@pytest.mark.parametrize("others", [{}, {"pid": os.getpid(), "start": "7"}])
def test_folder_of_an_ended_process_is_removed(place, leave, others):
    """The number of the second one belongs to another process now, which began at another time."""
    leave(**others)
    remove_stale_folders()
    assert not [*place.iterdir()]


@pytest.mark.parametrize(
    "others",
    [
        {"name": "fedlas-table-of-mine"},
        {"name": "fedlas-table-abcdefgh.old"},
        {"name": "my-fedlas-table-abcdefgh"},
        {"marker": "other.json"},
        {"pid": os.getpid()},
        *({"pid": os.getpid(), "start": start} for start in ("", None)),
        *({"pid": pid} for pid in (0, -1, 10**30, "1", None, True, 1.5)),
        {"host": "elsewhere"},
        {"folder": 1},
        {"format": "fedlas.card/1"},
        {"more": 1},
    ],
)
def test_folder_that_the_marker_does_not_explain_stays(leave, others):
    """`$TMPDIR/fedlas-table-anything` was removed with all that the user had in it."""
    folder = leave(**others)
    remove_stale_folders()
    assert (folder / "table.csv").read_text() == "precious"


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 10**6, "7", "{}", '{"pid": 1e999}'])
def test_folder_with_a_damaged_marker_stays(leave, content):
    folder = leave()
    (folder / MARKER).write_text(content)
    remove_stale_folders()
    assert (folder / "table.csv").read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_folder_whose_marker_is_no_plain_file_stays(leave, tmp_path, kind):
    folder = leave()
    (folder / MARKER).rename(tmp_path / "true")
    {
        "link": lambda: (folder / MARKER).symlink_to(tmp_path / "true"),
        "hard link": lambda: os.link(tmp_path / "true", folder / MARKER),
        "pipe": lambda: os.mkfifo(folder / MARKER),
        "folder": (folder / MARKER).mkdir,
    }[kind]()
    remove_stale_folders()
    assert (folder / "table.csv").read_text() == "precious"


def test_folder_that_others_may_change_stays(leave):
    """What lies there, and the marker too, may be a stranger's."""
    folder = leave()
    folder.chmod(0o770)
    remove_stale_folders()
    assert (folder / "table.csv").read_text() == "precious"


def test_link_with_the_full_name_stays(place, leave, tmp_path):
    leave().rename(tmp_path / "precious")
    (place / "fedlas-table-abcdefgh").symlink_to(tmp_path / "precious")
    remove_stale_folders()
    assert (place / "fedlas-table-abcdefgh").is_symlink()
    assert (tmp_path / "precious" / "table.csv").read_text() == "precious"


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root has others' files")
@pytest.mark.parametrize("what", ["", MARKER])
def test_folder_or_marker_of_another_user_stays(leave, what):
    folder = leave()
    os.chown(folder / what, 12345, -1)
    remove_stale_folders()
    assert (folder / "table.csv").read_text() == "precious"


def test_folder_of_a_process_that_holds_its_lock_stays(leave):
    import fcntl

    folder = leave()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    remove_stale_folders()
    os.close(handle)
    assert (folder / "table.csv").read_text() == "precious"
