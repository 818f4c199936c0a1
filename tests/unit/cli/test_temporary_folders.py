"""What a command copies to the temporary place: for its user alone, and gone after any end."""

import signal
import stat
import subprocess
import sys
import tempfile

import pytest

import fedlas
from fedlas.cli import main

pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")
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
