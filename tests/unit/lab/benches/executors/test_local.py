import json
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.benches.executors import LocalExecutor, local
from fedlas.lab.benches.executors.local import _visible_devices
from fedlas.lab.runs import RunFolder

FIVE = ("train.epochs=5", "model.hidden=[8]")


def worker_of(number):
    """Id of a worker's process."""
    found = [
        child.pid
        for child in multiprocessing.active_children()
        if child.name == f"fedlas-worker-{number}"
    ]
    return found[0] if found else None


def numbers(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    return metrics


@pytest.mark.system
def test_two_workers_match_one_process_after_kill(tmp_path, tasks, told, stops, resumed):
    """The first run's process is killed once: it goes on. The second's is killed once too often: it failed."""
    both = tasks(tmp_path / "two", "synthetic", ["ce", "ls"], *FIVE)
    stops.order(both[0].run.folder, 3)
    stops.order(both[1].run.folder, 2, 2)
    short = tasks(tmp_path / "two", "digits", ["fedlas"], "model.width=4")
    seen = told()
    results = {
        r.name: r for r in LocalExecutor(workers=2, retries=1).results([*both, *short], seen)
    }
    assert seen.names == ["ce-s0", "ls-s0", "fedlas-s0"]
    assert sorted(seen.losses) == [("ce-s0", "signal 9"), ("ls-s0", "signal 9")]
    resumed(both[0].run.folder, *stops.logs(both[0].run.folder), epochs=5)
    assert [len(log) for log in stops.logs(both[1].run.folder)] == [2, 4]
    assert results["ls-s0"].error == "its process ended with signal 9, 2 times"
    assert "signal 9" in (both[1].run.folder / "error.txt").read_text()
    assert not (both[1].run.folder / "metrics.json").exists()
    assert "accuracy" in results["ce-s0"].line
    assert "accuracy" in results["fedlas-s0"].line
    here = told()
    alone = tasks(tmp_path / "one", "digits", ["fedlas"], "model.width=4")
    again = tasks(tmp_path / "one", "synthetic", ["ce"], *FIVE)
    executor = LocalExecutor(workers=1)
    assert [r.error for r in executor.results([*alone, *again], here)] == [None, None]
    assert here.names == ["fedlas-s0", "ce-s0"]
    for name in ("fedlas-s0", "ce-s0"):
        assert numbers(tmp_path / "one" / name) == numbers(tmp_path / "two" / name)
        logits = [
            RunFolder(tmp_path / part / name).predictions("test").logits for part in ("one", "two")
        ]
        assert np.array_equal(*logits)
        intervals = [
            (tmp_path / part / name / "intervals.json").read_text() for part in ("one", "two")
        ]
        assert intervals[0] == intervals[1]
    assert not [
        child
        for child in multiprocessing.active_children()
        if child.name.startswith("fedlas-worker")
    ]
    assert "epoch" in (tmp_path / "two" / ".workers" / "0.log").read_text()


def test_default_workers_fill_the_cores(tmp_path, tasks, monkeypatch):
    monkeypatch.setattr(local, "count_available_cores", lambda: 4)
    (small,) = tasks(tmp_path, "synthetic", ["ce"])
    large = replace(small, threads=None)
    assert LocalExecutor()._default_workers(small) == 4
    assert LocalExecutor()._default_workers(replace(small, threads=3)) == 1
    assert (
        LocalExecutor()._default_workers(large)
        == LocalExecutor(gpus_per_run=2)._default_workers(small)
        == 1
    )
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0"])
    assert LocalExecutor()._default_workers(small) == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert LocalExecutor()._default_workers(small) == 1


def test_in_process_run_uses_task_threads(tmp_path, tasks, told):
    (task,) = tasks(tmp_path, "synthetic", ["ce"], "model.hidden=[8]")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    (result,) = LocalExecutor(workers=1).results([replace(task, threads=1)], told())
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert result.line is not None
    assert after == 2
    assert RunFolder(task.run.folder).starts[0]["threads"] == 1


@pytest.mark.system
def test_stopping_ends_the_workers(tmp_path, tasks, told, stops):
    class Interrupted(told):
        def on_idle(self):
            if (tmp_path / "ce-s0" / "checkpoint.pt").exists():
                raise KeyboardInterrupt

    (task,) = tasks(tmp_path, "synthetic", ["ce"], *FIVE)
    stops.order(task.run.folder, 1, what="wait")
    with pytest.raises(KeyboardInterrupt):
        list(LocalExecutor(workers=1, cpus_per_run=1).results([task], Interrupted()))
    assert not worker_of(0)
    assert not (tmp_path / "ce-s0" / "metrics.json").exists()
    assert not (tmp_path / "ce-s0" / "error.txt").exists()


def test_what_each_worker_sees_of_the_gpus():
    gpus = ["4", "5", "6", "7"]
    assert [_visible_devices(n, 4, None, gpus) for n in range(4)] == gpus
    assert _visible_devices(5, 6, None, gpus) == "5"  # they take turns
    assert _visible_devices(0, 2, None, []) is None
    assert [_visible_devices(n, 2, 2, gpus) for n in range(2)] == ["4,5", "6,7"]
    assert [_visible_devices(n, 4, 0.5, gpus) for n in range(4)] == ["4", "4", "5", "5"]
    # two would take 1.4 of one
    assert [_visible_devices(n, 3, 0.7, gpus) for n in range(3)] == ["4", "5", "6"]
    assert [_visible_devices(n, 5, 0.4, gpus) for n in range(5)] == ["4", "4", "5", "5", "6"]
    assert _visible_devices(0, 1, 0, gpus) == ""
    with pytest.raises(InputError, match=r"3 workers .*require 6 GPUs; got 4 on"):
        _visible_devices(0, 3, 2, gpus)
    with pytest.raises(InputError, match=r"1 workers .*require 1 GPUs; got 0 on"):
        _visible_devices(0, 1, 1, [])


def test_visible_gpus(monkeypatch):
    monkeypatch.setattr(local.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert local.visible_gpus() == ["3", "GPU-5"]
