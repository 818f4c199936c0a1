"""Standard output that fails, is closed or is narrow: what a command then says, and its status."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

import fedlas
from fedlas.cli import main


class Broken(io.StringIO):
    """Takes some writes, and fails then."""

    def __init__(self, number, takes=0):
        super().__init__()
        self.number, self.takes, self.tried = number, takes, 0

    def write(self, text):
        self.tried += 1
        if self.tried > self.takes:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.fixture
def broken(monkeypatch):
    """``broken(number, takes=0)``: standard output that fails with this error."""

    def put(number, takes=0):
        stream = Broken(number, takes)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return put


def test_what_only_prints_fails_if_it_cannot(broken, capsys):
    stream = broken(errno.ENOSPC)
    assert main(["list", "losses"]) == 2
    assert sys.stdout is stream
    error = capsys.readouterr().err
    assert error == (
        "fedlas: error: standard output must be writable; got No space left on device. "
        "Free some space, or redirect the output. Run it again.\n"
    )


def test_help_fails_too(broken, capsys):
    broken(errno.ENOSPC)
    assert main(["--help"]) == 2
    assert "No space left" in capsys.readouterr().err


def test_what_leaves_files_does_not(broken, runs, tmp_path, capsys):
    """A run is done, and the second line of its report fails."""
    folder = runs("shared") / "ce-s0"
    capsys.readouterr()
    stream = broken(errno.ENOSPC, takes=1)
    assert (
        main(["card", str(folder), "--out", str(tmp_path / "card.json"), "--replicates", "0"]) == 0
    )
    assert stream.tried > 2
    assert json.loads((tmp_path / "card.json").read_text())
    error = capsys.readouterr().err
    assert error.startswith("fedlas: warning: standard output must be writable; got No space left")
    assert error.endswith("The result files are complete.\n")


def test_its_own_status_stays(broken, tmp_path, capsys):
    broken(errno.ENOSPC)
    assert main(["card", str(tmp_path)]) == 2
    assert "the file must exist" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_error(broken, capsys):
    stream = broken(errno.EPIPE)
    assert main(["list", "losses"]) == 0
    assert stream.tried < 3  # nobody sees the rest
    assert capsys.readouterr().err == ""


def test_no_standard_output(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["list", "losses"]) == 0
    assert main(["evaluate", "nowhere.npz"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_narrow_encodings(monkeypatch, encoding):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    assert main(["list", "ood"]) == 0
    sys.stdout.flush()
    assert "mahalanobis" in content.getvalue().decode(encoding)


@pytest.mark.system
@pytest.mark.parametrize(
    ("redirect", "status", "error"),
    [
        ("live.csv --out - | head -1", 0, ""),
        ("live.csv --out - >&-", 2, "standard output must be open"),
        ("- --out o.csv <&-", 2, "standard input must be open"),
    ],
)
def test_apply_in_a_pipe(tmp_path, redirect, status, error):
    """head ended it with "Broken pipe" and status 2; a closed stream with an AttributeError."""
    frame = {"p": [0.9, 0.8, 0.2, 0.4] * 50, "y": [1, 0, 0, 1] * 50}
    fedlas.calibrate(frame, probs="p", target="y", method="temperature").save(tmp_path / "c.json")
    (tmp_path / "live.csv").write_text("p\n" + "0.25\n" * 100_000)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m fedlas apply c.json {redirect}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert error in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.mark.system
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110 - a device
@pytest.mark.parametrize(
    ("redirect", "status", "error"),
    [
        (">/dev/full", 2, "No space left"),
        (">&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">&- 2>&-", 0, ""),
        ("| head -1", 0, ""),
    ],
)
def test_shells(redirect, status, error):
    command = f"set -o pipefail; {sys.executable} -m fedlas list losses {redirect}"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert error in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
