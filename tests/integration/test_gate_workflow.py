"""The workflow of docs/gate.md: its own lines let a good model pass and hold a worse one back."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedlas.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "gate.md"
LINES = re.findall(r"^- run: (fedlas .+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def scores(name, factor):
    random = np.random.default_rng(0)
    logit = random.normal(size=3000)
    y = (random.random(3000) < 1 / (1 + np.exp(-logit))).astype(int)
    p = 1 / (1 + np.exp(-factor * logit))
    pd.DataFrame({"p_0": 1 - p, "p_1": p, "y": y}).to_csv(name, index=False)


@pytest.mark.parametrize(("new", "statuses"), [(1.0, [0, 0]), (4.0, [3, 3])])
def test_a_good_model_passes_and_a_worse_one_is_held_back(
    tmp_path, monkeypatch, capsys, new, statuses
):
    assert len(LINES) == 2
    monkeypatch.chdir(tmp_path)
    scores("old.csv", 1.5)
    scores("new.csv", new)
    assert [main([*shlex.split(line)[1:], "--replicates", "99"]) for line in LINES] == statuses
    shown = capsys.readouterr().out
    assert ("::error title=" in shown) == (statuses != [0, 0])
    assert Path("gate.xml").exists()
