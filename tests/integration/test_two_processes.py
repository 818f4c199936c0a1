"""Two gloo processes on one run: the same result as one process, one writer, one voice."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlas.lab.train import load_checkpoint, read_log

pytestmark = pytest.mark.system
STOP_BY_COUNT = Path(__file__).parents[1] / "stop_by_count.py"

# 170 samples in batches of 33: slices of unequal size in every batch, and a last batch of 5
SETTINGS = [
    "train.epochs=3", "train.batch_size=33", "data.train_size=170", "data.val_size=100", "data.test_size=100",
    "model.hidden=[16]", "optimizer.lr=0.05", "optimizer.clip_norm=1",
]  # fmt: skip


def free_port():
    """A port that is free, below those that the system gives to others unasked (from 32,768 on)."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def launch(out, *, processes, kill_main=None):
    """Start ``fedlas runs train`` as a launcher would: one process a rank; the main one may be killed at an event."""
    port = free_port()
    overrides = [word for setting in SETTINGS for word in ("--set", setting)]
    arguments = ["runs", "train", "synthetic", "--loss", "fedlas", "--out", str(out), *overrides]
    programs = [["-m", "fedlas"]] * processes
    if kill_main:
        programs = [[str(STOP_BY_COUNT), *kill_main], *programs[1:]]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        shared |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
        }
    ranks = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        for rank in range(processes)
    ]
    return [
        subprocess.Popen(
            [sys.executable, *program, *arguments],
            env={**shared, **rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=out.parent,
        )
        for program, rank in zip(programs, ranks, strict=True)
    ]


def finish(processes):
    ended = [process.communicate(timeout=1500) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, ended, strict=True)]


def arrays(folder, name):
    with np.load(folder / "predictions" / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("ranks")
    started = [
        launch(base / name, processes=processes) for name, processes in (("one", 1), ("two", 2))
    ]
    for ranks in started:
        for status, _, errors in finish(ranks):
            assert status == 0, errors
    return base / "one", base / "two"


def test_two_equal_one(folders):
    one, two = folders
    a, b = (load_checkpoint(folder / "checkpoint.pt") for folder in folders)
    assert a["config"] == b["config"]
    assert a["objective"].keys() == b["objective"].keys()
    for key, value in a["objective"].items():
        torch.testing.assert_close(b["objective"][key], value, rtol=1e-5, atol=1e-6)
    assert (
        a["objective"]["criterion.nci.num_batches_tracked"]
        == b["objective"]["criterion.nci.num_batches_tracked"]
        == 18
    )
    assert a["best"]["epoch"] == b["best"]["epoch"]
    assert len(b["rng"]) == 2
    for part in ("val", "test"):
        first, second = arrays(one, part), arrays(two, part)
        np.testing.assert_allclose(second["logits"], first["logits"], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(second["target"], first["target"])
    for old, new in zip(read_log(one / "log.jsonl"), read_log(two / "log.jsonl"), strict=True):
        assert new["epoch"] == old["epoch"]
        assert new["train"] == pytest.approx(old["train"], rel=1e-4)
        assert new["val"]["nll"] == pytest.approx(old["val"]["nll"], rel=1e-4)
    assert sorted(p.name for p in one.rglob("*")) == sorted(p.name for p in two.rglob("*"))


def test_killed_run_resumes_only_main_process_prints(folders, tmp_path):
    out = tmp_path / "cut"
    main, other = launch(out, processes=2, kill_main=("renamed", "2", "SIGKILL", "checkpoint.pt"))
    main.communicate(timeout=1500)
    assert main.returncode == -signal.SIGKILL
    other.kill()  # it waits for the main one, or has seen that it is gone
    other.communicate(timeout=1500)
    assert load_checkpoint(out / "checkpoint.pt")["epoch"] == 2
    (main, output, errors), (other, silent, silent_errors) = finish(launch(out, processes=2))
    assert (main, other) == (0, 0), errors + silent_errors
    assert "run folder" in output
    assert not silent.strip()
    assert "epoch" not in silent_errors
    assert [record["epoch"] for record in read_log(out / "log.jsonl")] == [1, 2, 3]
    a, b = (load_checkpoint(folder / "checkpoint.pt") for folder in (folders[1], out))
    for key, value in a["objective"].items():
        assert torch.equal(b["objective"][key], value), key
    assert len(json.loads((out / "metrics.json").read_text())["test"]) > 5


def test_an_error_on_the_main_process_ends_both(tmp_path):
    (tmp_path / "file").write_text("")
    for status, _, errors in finish(launch(tmp_path / "file", processes=2)):
        assert status == 2
        assert "output folder" in errors
        assert "Traceback" not in errors
