"""The Makefile of docs/every-night.md, run each month: calibrates again, and a gate decides which calibration stays."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.system
PAGE = Path(__file__).parents[2] / "docs" / "every-night.md"
ROWS = 1200


@pytest.fixture
def job(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("no make")
    block = re.search(r"```makefile\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "Makefile").write_text(block)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*words):
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def month(folder, name, *, by_age=1.0):
    random = np.random.default_rng(int(name[-2:]))
    score = random.normal(size=ROWS)
    age = random.normal(45, 12, size=ROWS)
    log_odds = 0.6 * score + by_age * (age - 45) / 12
    happens = random.random(ROWS) < 1 / (1 + np.exp(-log_odds))
    p = 1 / (1 + np.exp(-score))
    rows = [f"{a:.6f},{b:.1f},{int(c)}" for a, b, c in zip(p, age, happens, strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(["p,age,y", *rows]) + "\n")


def digits(folder, name):
    return (folder / name).read_bytes()


def test_three_months(job, tmp_path):
    for name in ("2026-01", "2026-02", "2026-03"):
        month(tmp_path, name)
    scores = ["--probs", "p", "--target", "y", "--covariates", "age"]
    assert job("fedlas", "calibrate", "2026-01.csv", *scores, "--out", "cal.json").returncode == 0
    # A usual month: no worse beyond chance, so the fit on two months takes the place of that on one.
    done = job("make", "SINCE=2026-01")
    assert done.returncode == 0, done.stderr
    assert json.loads(digits(tmp_path, "cal.json"))["rows"] == 2 * ROWS
    card = digits(tmp_path, "card.json")
    # Age stops to matter in April: what is fitted on April is better in May.
    month(tmp_path, "2026-04", by_age=0.0)
    month(tmp_path, "2026-05", by_age=0.0)
    before = digits(tmp_path, "cal.json")
    done = job("make", "SINCE=2026-04")
    assert done.returncode == 0, done.stderr
    assert digits(tmp_path, "cal.json") != before
    assert digits(tmp_path, "card.json") != card
    # In June the ages were wrong: the gate stops, and what is in use stays.
    month(tmp_path, "2026-06", by_age=-1.5)
    month(tmp_path, "2026-07", by_age=0.0)
    before = digits(tmp_path, "cal.json")
    card = digits(tmp_path, "card.json")
    done = job("make", "SINCE=2026-06")
    assert done.returncode != 0
    assert "fail-if-worse" in done.stdout
    assert (digits(tmp_path, "cal.json"), digits(tmp_path, "card.json")) == (before, card)
    # The new card watches the columns of the month after.
    live = ["--probs", "p", "--covariates", "age", "--history", "history.json"]
    assert job("fedlas", "monitor", "card.json", "2026-07.csv", *live).returncode == 0
    assert (tmp_path / "history.html").exists()
