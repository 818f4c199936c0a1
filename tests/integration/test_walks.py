"""How many functions a command enters: a call that each member of a mixture or each fold repeats shows here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "trace_walks.py"
MOST = {"fedlas calibrate": 4250, "fedlas apply": 1250, "bench of 2 x 2 runs": 70_000}
"""Calls of 400 rows of four classes, with room for one member of ``auto`` more (550 a fit). A bench takes 67,500.

Fits read the tensors of predictions, four calls each time, until they read arrays."""


@pytest.mark.system
def test_commands_stay_short():
    done = subprocess.run(
        [sys.executable, TOOL, "--json", *MOST], capture_output=True, text=True, check=True
    )
    calls = {name: walk["calls"] for name, walk in json.loads(done.stdout).items()}
    assert calls.keys() == MOST.keys()
    longer = {name: count for name, count in calls.items() if count > MOST[name]}
    assert longer == {}, (
        "look for a call that repeats; if what is new needs them, as a member of auto does, set MOST and the "
        "numbers in docs/architecture.md"
    )
