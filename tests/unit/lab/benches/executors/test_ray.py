"""A cluster of two CPUs on this machine."""

import builtins
import json

import pytest

from fedlas.errors import InputError
from fedlas.lab.benches.executors import LocalExecutor, RayExecutor

PRINT = print

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore"),  # whatever Ray's own threads and processes warn of
]


@pytest.fixture(scope="module")
def executor(stops):
    """An executor whose cluster stays up for all tests, with processes that obey orders."""
    executor = RayExecutor(workers=2, retries=1)
    with pytest.MonkeyPatch.context() as patch:
        # on a busy machine workers of Ray's niceness 15 hardly get a turn
        patch.setenv("RAY_worker_niceness", "0")
        with executor._connected_cluster():
            yield executor


def numbers(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    return metrics


def test_two_workers_match_one_process_after_kill(executor, tmp_path, tasks, told, stops, resumed):
    digits = ("digits", ["ce", "fedlas"], "model.width=4")
    (killed,) = tasks(tmp_path / "ray", "synthetic", ["mbls"], "train.epochs=5", "model.hidden=[8]")
    stops.order(killed.run.folder, 3)
    seen = told()
    (bad,) = tasks(
        tmp_path / "ray",
        "synthetic",
        ["ls"],
        "model.hidden=[8]",
        "optimizer.lr=1e30",
        "train.epochs=3",
    )
    results = {
        r.name: r for r in executor.results([killed, *tasks(tmp_path / "ray", *digits), bad], seen)
    }
    assert results.pop("ls-s0").error.startswith("DivergedError: loss and logits must stay finite")
    assert "Traceback" in (bad.run.folder / "error.txt").read_text()
    assert [result.error for result in results.values()] == [None] * 3
    assert seen.names == ["mbls-s0", "ce-s0", "fedlas-s0", "ls-s0"]
    resumed(killed.run.folder, *stops.logs(killed.run.folder), epochs=5)
    assert all(
        result.error is None
        for result in LocalExecutor().results(tasks(tmp_path / "local", *digits), told())
    )
    for name in ("ce-s0", "fedlas-s0"):
        assert numbers(tmp_path / "local" / name) == numbers(tmp_path / "ray" / name)
    text = (tmp_path / "ray" / "ce-s0" / "environment.json").read_text()
    assert "node-ip" not in text
    assert "default_worker" not in text
    assert builtins.print is PRINT  # Ray would replace it, and leave it so


def test_killed_once_too_often_is_a_failure(executor, tmp_path, tasks, told, stops):
    (task,) = tasks(tmp_path, "synthetic", ["ce"], "train.epochs=5", "model.hidden=[8]")
    stops.order(task.run.folder, 2)
    once = RayExecutor(workers=1, retries=0)
    (result,) = once.results([task], told())
    assert "WorkerCrashedError" in result.error or "died" in result.error
    assert "died" in (task.run.folder / "error.txt").read_text()
    assert not (task.run.folder / "metrics.json").exists()


def test_stopping_ends_the_tasks(executor, tmp_path, tasks, told, stops):
    class Interrupted(told):
        def on_idle(self):
            if (tmp_path / "ce-s0" / "checkpoint.pt").exists():
                raise KeyboardInterrupt

    (task,) = tasks(tmp_path, "synthetic", ["ce"], "train.epochs=5", "model.hidden=[8]")
    stops.order(task.run.folder, 1, what="wait")
    with pytest.raises(KeyboardInterrupt):
        list(executor.results([task], Interrupted()))
    assert not (tmp_path / "ce-s0" / "metrics.json").exists()


def test_a_cluster_without_room(executor, tmp_path, tasks, told):
    some = tasks(tmp_path, "synthetic", ["ce"])
    for options in ({"gpus_per_run": 1}, {"cpus_per_run": 64}):
        with pytest.raises(InputError, match=r"cluster .*got 2 CPUs and 0 GPUs"):
            list(RayExecutor(**options).results(some, told()))
    assert not (tmp_path / "ce-s0").exists()


def test_address_comes_from_caller_or_environment(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert RayExecutor().address is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert RayExecutor().address == "10.0.0.1:6379"
    assert RayExecutor(address="auto").address == "auto"


def test_a_cluster_that_cannot_be_reached(monkeypatch, tmp_path, tasks, told):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_):
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match=r"the Ray cluster .*10\.0\.0\.1 .*ray start --head"):
        list(RayExecutor(address="10.0.0.1").results(tasks(tmp_path, "synthetic", ["ce"]), told()))
