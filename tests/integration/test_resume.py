"""Real processes killed with SIGKILL, started again, and compared with one that nobody disturbed.

They are killed by count, at their n-th rename, write or step, so every machine kills at the same places.
"""

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from fedlas.lab.train import load_checkpoint, read_log
from forking import forking_server, status_of
from stop_by_count import EVENTS

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

SERVER = """
import pathlib
import torch
torch.set_num_threads(1)
from fedlas.lab.recipes.planning import plan_runs
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.data import prepare_data
from fedlas.lab.runs.execution import execute
import accelerate.utils, filelock, rich.console, rich.progress, torch._dynamo, torch.distributed.fsdp
from forking import serve

def planned(job):
    recipe = load_recipe(job["recipe"], job["set"])
    return plan_runs(recipe, losses=[job["loss"]], seeds=[0], out=pathlib.Path(job["out"]))[0]

def run(job):
    execute(planned(job))
    return 0

serve(run, prepare=lambda job: prepare_data(planned(job)))  # kept by the cache, which children inherit
"""
SETTINGS = [
    "train.epochs=3",
    "data.train_size=200",
    "data.test_size=100",
    "data.val_size=100",
    "train.batch_size=50",
]
CONVOLUTIONS = (
    "digits",
    "fedlas",
    [*SETTINGS, "model.width=4", "train.precision=bf16", "data.crop_padding=1"],
)
PERCEPTRON = (
    "synthetic",
    "fedlas+",
    [*SETTINGS, "model.hidden=[16]", "optimizer.name=adamw", "optimizer.lr=0.01"],
)
SPARSE = (
    "synthetic",
    "acls",
    [*SETTINGS, "model.hidden=[16]", "train.checkpoint_every=2", "optimizer.clip_norm=1"],
)
AVERAGED = (
    "digits",
    "ce",
    [*SETTINGS, "model.width=4", "train.average=swa", "train.average_start=0.3"],
)


@pytest.fixture(scope="module")
def server():
    with forking_server(SERVER) as process:
        yield process


def start(server, case, out, *, die=None):
    """Exit status of one start: 0, or -9 if it was killed."""
    recipe, loss, settings = case
    job = {"recipe": recipe, "loss": loss, "set": settings, "out": str(out), "die": die}
    return status_of(server, job)


def outcome(out):
    """Everything a run leaves, but for how long it took."""
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    arrays = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path) as archive:
            arrays |= {f"{path.name}/{name}": archive[name] for name in archive}
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    metrics = json.loads((folder / "metrics.json").read_text())
    log = read_log(folder / "log.jsonl")
    for record in (metrics, *log):
        del record["seconds"]
    return {
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*")),
        "arrays": {
            name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()
        },
        "checkpoint": plain(checkpoint),
        "metrics": metrics,
        "log": log,
        "config": (folder / "config.yaml").read_text(),
    }


def plain(value):
    if isinstance(value, torch.Tensor):
        return (
            (
                value.dtype,
                tuple(value.shape),
                value.contiguous().view(torch.uint8).numpy().tobytes(),
            )
            if value.ndim
            else (
                value.dtype,
                value.item(),
            )
        )
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    cache = {}

    def get(case):
        if case[:2] not in cache:
            out = tmp_path_factory.mktemp("undisturbed")
            assert start(server, case, out) == 0
            cache[case[:2]] = outcome(out)
        return cache[case[:2]]

    return get


def check(out, expected):
    found = outcome(out)
    assert [record["epoch"] for record in found["log"]] == [1, 2, 3]
    for part in expected:
        assert found[part] == expected[part], part


@pytest.mark.parametrize(
    "case",
    [CONVOLUTIONS, PERCEPTRON, SPARSE, AVERAGED],
    ids=["fedlas-bf16", "fedlas+-adamw", "acls-sparse", "ce-averaged"],
)
def test_killed_at_places_drawn_by_lot(server, undisturbed, tmp_path, case):
    """In a step of training, or while a file is written; a start counts from where the one before came to."""
    expected = undisturbed(case)
    lot, killed = random.Random(case[1]), []
    for event in lot.sample(EVENTS, len(EVENTS)):
        status = start(server, case, tmp_path, die=(event, lot.randint(1, 6)))
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed.append(event)
    assert start(server, case, tmp_path) == 0
    assert len(killed) >= 2
    check(tmp_path, expected)


@pytest.mark.parametrize(
    "what", ["rename", "renamed", pytest.param("torn", marks=pytest.mark.long)]
)
def test_killed_at_every_file_it_writes(server, undisturbed, tmp_path, what):
    """Before and after each rename, and with half of a file under its temporary name: among them each checkpoint."""
    expected = undisturbed(PERCEPTRON)
    for count in range(1, 40):
        out = tmp_path / str(count)
        status = start(server, PERCEPTRON, out, die=(what, count))
        if status == 0:  # fewer files than that are written
            break
        assert status == -signal.SIGKILL
        assert start(server, PERCEPTRON, out) == 0
        check(out, expected)
    assert count > 10


def test_killed_again_and_again_at_the_same_place(server, undisturbed, tmp_path):
    """Each start gets a little further and leaves a half-written file behind; none of them stays."""
    expected = undisturbed(PERCEPTRON)
    for count in range(2, 9):
        if start(server, PERCEPTRON, tmp_path, die=("rename", count)) == 0:
            break
    assert len(list(tmp_path.rglob("*.part"))) <= 1
    assert start(server, PERCEPTRON, tmp_path) == 0
    check(tmp_path, expected)


def test_run_resumes_after_full_disk(undisturbed, server, tmp_path):
    expected = undisturbed(PERCEPTRON)
    recipe, loss, settings = PERCEPTRON
    overrides = [word for setting in settings for word in ("--set", setting)]
    code = (
        "import resource, sys; from fedlas.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)); sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "runs",
        "train",
        recipe,
        "--loss",
        loss,
        "--out",
        str(tmp_path / "x"),
        *overrides,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "the output folder must be writable" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    (tmp_path / "x").rename(tmp_path / f"{loss}-s0")
    assert start(server, PERCEPTRON, tmp_path) == 0
    check(tmp_path, expected)
