"""Kills, a full disk and two writers at once leave the table of ``fedlas apply`` absent or complete."""

import subprocess
import sys

import numpy as np
import pytest

import fedlas

pytestmark = pytest.mark.system
RUN = "import sys; from fedlas.cli import main; sys.exit(main(['apply', 'cal.json', 'live.csv', '--out', 'out.csv']))"
KILLED = "import os; os.fsync = lambda _: os.kill(os.getpid(), 9); "
FULL = (
    "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
)


@pytest.fixture
def start(tmp_path):
    random = np.random.default_rng(0)
    p = random.uniform(0.1, 0.9, 2000)
    y = (random.random(2000) < p).astype(int)
    fedlas.calibrate({"p": p, "y": y}, probs="p", target="y", method="temperature").save(
        tmp_path / "cal.json"
    )
    (tmp_path / "live.csv").write_text("p\n" + "".join(f"{value}\n" for value in p))

    def run(before=""):
        return subprocess.Popen(
            [sys.executable, "-c", before + RUN], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_table_is_absent_or_complete(start, tmp_path):
    killed = start(KILLED)
    killed.communicate()
    assert killed.returncode == -9
    assert not (tmp_path / "out.csv").exists()
    assert len(names(tmp_path)) == 3  # and what the killed one left
    full = start(FULL)
    assert "File too large" in full.communicate()[1]
    assert full.returncode == 2
    assert names(tmp_path) == ["cal.json", "live.csv"]
    writers = [start(), start()]
    assert [(writer.communicate(), writer.returncode)[1] for writer in writers] == [0, 0]
    assert names(tmp_path) == ["cal.json", "live.csv", "out.csv"]
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert len(rows) == 2001
    assert all(row.count(",") == 1 for row in rows)
