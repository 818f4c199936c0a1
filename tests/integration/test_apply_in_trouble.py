"""Kills, a full disk and two writers at once leave the table of ``fedlas apply`` absent or complete."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import fedlas

pytestmark = pytest.mark.system
RUN = "import sys; from fedlas.cli import main; sys.exit(main(['apply', 'cal.json', 'live.csv', '--out', sys.argv[1]]))"
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

    def run(out, before=""):
        return subprocess.Popen(
            [sys.executable, "-c", before + RUN, out],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
def test_the_table_is_absent_or_complete(out, start, tmp_path):
    killed = start(out, KILLED)
    killed.communicate()
    assert killed.returncode == -9
    assert not (tmp_path / out).exists()
    assert len(names(tmp_path)) == 3  # and what the killed one left
    full = start(out, FULL)
    assert "File too large" in full.communicate()[1]
    assert full.returncode == 2
    assert names(tmp_path) == ["cal.json", "live.csv"]
    writers = [start(out), start(out)]
    assert [(writer.communicate(), writer.returncode)[1] for writer in writers] == [0, 0]
    assert names(tmp_path) == ["cal.json", "live.csv", out]
    read = pd.read_csv if out.endswith(".csv") else pd.read_parquet
    after = read(tmp_path / out)
    assert after.shape == (2000, 2)
    assert after["calibrated_p"].between(0, 1).all()
