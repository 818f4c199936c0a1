"""What a command copies to the temporary place: for its user alone, and gone after any end."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import fedlas
from fedlas.cli import main

pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")
NO_PROCESS = 2**22 + 1
"""Above the largest number of a process."""
ROWS = b"0.9,1\n0.2,0\n" * 50_000


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The temporary place of this process and of those that it starts."""
    (tmp_path / "place").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "place"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    frame = {"p": [0.9, 0.8, 0.2, 0.4] * 50, "y": [1, 0, 0, 1] * 50}
    fedlas.calibrate(frame, probs="p", target="y", method="temperature").save(tmp_path / "cal.json")
    (tmp_path / "live.csv").write_bytes(b"p,y\n" + ROWS[:120])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "place"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name and content of the marker of a folder that this process has made, and left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("made")))
        patch.setattr(shutil, "rmtree", lambda folder: None)
        fsspec.filesystem("memory").pipe_file("/made.csv", b"p,y\n" + ROWS[:120])
        read_store()
        (marker,) = Path(tempfile.gettempdir()).glob("*/*.json")
    assert stat.S_IMODE(marker.stat().st_mode) == 0o600
    yield marker.name, json.loads(marker.read_text())
    fsspec.filesystem("memory").rm_file("/made.csv")


@pytest.fixture
def marker(made):
    return made[0]


@pytest.fixture
def leave(tmp_path, monkeypatch, made):
    """Make a folder as a killed process leaves it, with a marker in which some values are others."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "place"))
    (tmp_path / "place").mkdir()

    def make(name="fedlas-table-abcdefgh", marker=made[0], **others):
        folder = tmp_path / "place" / name
        folder.mkdir(0o700)
        (folder / "table.csv").write_text("precious")
        content = made[1] | {"folder": folder.stat().st_ino, "pid": NO_PROCESS} | others
        (folder / marker).write_text(json.dumps(content))
        return folder

    return make


def read_store():
    fedlas.read_predictions("memory://made.csv", probs="p", target="y")


@pytest.fixture
def process(place):
    """A process that has copied most of its standard input, and waits for the rest."""
    words = ["-m", "fedlas", "apply", "cal.json", "-", "--out", "out.csv"]
    # Under nohup a hang-up is ignored, which a child inherits.
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    process.stdin.write(b"p,y\n" + ROWS)  # far more than a pipe holds
    process.stdin.flush()
    with process:
        yield process
        process.kill()
        process.stdin.close()


def apply_local():
    return main(["apply", "cal.json", "live.csv", "--out", "b.csv"])


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(process, place, number):
    process.send_signal(number)
    process.stdin.close()
    assert process.wait() == 128 + number
    assert not [*place.iterdir()]


@pytest.mark.system
def test_leftovers_are_private_and_removed_at_start(process, place):
    process.kill()
    process.wait()
    process.stdin.close()
    paths = [*place.rglob("*")]
    assert {"standard-input.csv"} <= {path.name for path in paths}
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == 0o600 if path.is_file() else path.parent != place or mode == 0o700
    assert apply_local() == 0
    assert not [*place.iterdir()]


@pytest.mark.system
def test_the_folder_of_a_running_process_stays(process, place):
    assert apply_local() == 0
    assert len([*place.iterdir()]) == 1
    process.stdin.close()
    assert process.wait() == 0
    assert not [*place.iterdir()]


def test_a_folder_of_the_user_stays(place):
    (place / "fedlas-table-anything").mkdir()
    assert apply_local() == 0
    assert [path.name for path in place.iterdir()] == ["fedlas-table-anything"]


@pytest.mark.parametrize("others", [{}, {"pid": os.getpid(), "start": "7"}])
def test_folder_of_an_ended_process_is_removed(leave, others):
    """The number of the second one belongs to another process now, which began at another time."""
    folder = leave(**others)
    read_store()
    assert not folder.exists()


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
    read_store()
    assert (folder / "table.csv").read_text() == "precious"


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 10**6, "7", "{}", '{"pid": 1e999}'])
def test_folder_with_a_damaged_marker_stays(leave, marker, content):
    folder = leave()
    (folder / marker).write_text(content)
    read_store()
    assert (folder / "table.csv").read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_folder_whose_marker_is_no_plain_file_stays(leave, marker, tmp_path, kind):
    folder = leave()
    (folder / marker).rename(tmp_path / "true")
    {
        "link": lambda: (folder / marker).symlink_to(tmp_path / "true"),
        "hard link": lambda: os.link(tmp_path / "true", folder / marker),
        "pipe": lambda: os.mkfifo(folder / marker),
        "folder": (folder / marker).mkdir,
    }[kind]()
    read_store()
    assert (folder / "table.csv").read_text() == "precious"


def test_folder_that_others_may_change_stays(leave):
    """What lies there, and the marker too, may be a stranger's."""
    folder = leave()
    folder.chmod(0o770)
    read_store()
    assert (folder / "table.csv").read_text() == "precious"


def test_link_with_the_full_name_stays(leave, tmp_path):
    folder = leave().rename(tmp_path / "precious")
    link = tmp_path / "place" / "fedlas-table-abcdefgh"
    link.symlink_to(folder)
    read_store()
    assert link.is_symlink()
    assert (tmp_path / "precious" / "table.csv").read_text() == "precious"


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root has others' files")
@pytest.mark.parametrize("of_marker", [False, True])
def test_folder_or_marker_of_another_user_stays(leave, marker, of_marker):
    folder = leave()
    os.chown(folder / marker if of_marker else folder, 12345, -1)
    read_store()
    assert (folder / "table.csv").read_text() == "precious"


def test_folder_of_a_process_that_holds_its_lock_stays(leave):
    import fcntl

    folder = leave()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    read_store()
    os.close(handle)
    assert (folder / "table.csv").read_text() == "precious"
