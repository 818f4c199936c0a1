"""Trackers report nothing to their makers, tested with all four tools in a process that no tool takes for a test."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

TOOLS = ("mlflow", "tensorboard", "trackio", "wandb")

# MLflow is silent by itself where a variable says CI or pytest, so the process gets none of this one's variables.
# The hook sees what Python opens; what wandb's own service does is decided by the switch that Python passes to it.
RUN = """
import json, sys
from dataclasses import replace
from pathlib import Path

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = arguments[1] if event == "socket.connect" else arguments[0]
        host = str(place[0] if isinstance(place, tuple) else place)
        if host not in ("localhost", "None") and not host.startswith(("127.", "::1", "/", "\\0")):
            with open("called.txt", "a") as file:  # at once, as tools send when the process ends, too
                file.write(f"{host}\\n")
            raise OSError(f"no network for {host}")

sys.addaudithook(hook)

from fedlas.lab.recipes.planning import plan_runs
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.execution import execute

tools, small = json.loads(sys.argv[1]), json.loads(sys.argv[2])
recipe = replace(load_recipe("synthetic", small), trackers={name: {} for name in tools})
execute(plan_runs(recipe, losses=["ls"], seeds=[0], out=Path("runs"))[0])
silent = {}
if "mlflow" in tools:
    from mlflow.telemetry import get_telemetry_client
    from mlflow.telemetry.utils import is_telemetry_disabled
    silent["mlflow"] = is_telemetry_disabled() and get_telemetry_client() is None
if "wandb" in tools:
    from wandb.env import error_reporting_enabled
    silent["wandb"] = not error_reporting_enabled()
if "trackio" in tools:
    from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY
    silent["trackio"] = HF_HUB_DISABLE_TELEMETRY
Path("silent.json").write_text(json.dumps(silent))
"""


@pytest.mark.system
def test_no_tool_sends_anything(tmp_path):
    tools = [name for name in TOOLS if "FEDLAS_CI" in os.environ or importlib.util.find_spec(name)]
    if not tools:
        pytest.skip("no tracker is installed")
    small = [
        "train.epochs=1",
        "data.train_size=50",
        "data.val_size=50",
        "data.test_size=50",
        "model.hidden=[8]",
    ]
    kept = {
        key: os.environ[key]
        for key in ("PATH", "PYTHONPATH", "LANG", "OMP_NUM_THREADS")
        if key in os.environ
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, json.dumps(tools), json.dumps(small)],
        cwd=tmp_path,
        env={
            **kept,
            "HOME": str(tmp_path),
            "TRACKIO_DIR": str(tmp_path / "trackio"),
            "WANDB_MODE": "offline",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    called = tmp_path / "called.txt"
    assert not called.exists(), called.read_text()
    silent = json.loads((tmp_path / "silent.json").read_text())
    assert silent == dict.fromkeys(silent, True)
