import os
import sys
from dataclasses import replace

import pytest

from fedlas.errors import InputError
from fedlas.lab.benches.executors import EXECUTORS, LocalExecutor, Task, try_run_task
from fedlas.lab.benches.executors.local import run_in_worker


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_checks_its_numbers(name):
    for options, text in (
        ({"workers": 0}, "workers must be a whole number of at least 1"),
        ({"gpus_per_run": 1.5}, "gpus_per_run"),
        ({"gpus_per_run": -1}, "gpus_per_run"),
        ({"cpus_per_run": 0}, "cpus_per_run"),
        ({"retries": -1}, "retries"),
    ):
        with pytest.raises(InputError, match=text):
            EXECUTORS.build(name, options)
    with pytest.raises(InputError, match="Did you mean 'workers'"):
        EXECUTORS.build(name, {"worker": 1})


def test_processes_of_a_run():
    assert LocalExecutor(gpus_per_run=4).processes == 4
    assert LocalExecutor(gpus_per_run=0.5).processes == LocalExecutor(gpus_per_run=0).processes == 1


def test_launcher_allows_only_in_process_executor(tmp_path, tasks, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"starts processes .* got 2 processes"):
        LocalExecutor(workers=2).prepare_task(tasks(tmp_path, "synthetic", ["ce"])[0])


def test_work_elsewhere_is_as_if_done_here(tmp_path, tasks, restored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedlas", "bench", "synthetic"])
    (task,) = tasks(tmp_path / "out", "synthetic", ["ce"], "model.hidden=[8]")
    relative = Task.from_run(replace(task.run, folder=task.run.folder.relative_to(tmp_path)))
    assert relative.run.folder == task.run.folder
    assert relative.command == ("fedlas", "bench", "synthetic")
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "argv", ["worker.py", "--node-ip", "10.0.0.1"])
    result = run_in_worker(replace(relative, environment={"FEDLAS_DATA": "elsewhere"}, threads=1))
    assert "accuracy" in result.line
    assert os.environ["FEDLAS_DATA"] == "elsewhere"
    text = (task.run.folder / "environment.json").read_text()
    assert "fedlas bench synthetic" in text
    assert "10.0.0.1" not in text


def test_a_machine_that_does_not_see_the_folder(tmp_path, tasks, restored):
    (task,) = tasks(tmp_path, "synthetic", ["ce"])
    result = run_in_worker(replace(task, folder=tmp_path / "missing"))
    assert "every machine must see the folder of the bench" in result.error
    assert "file system that all share" in result.error


def test_whatever_a_run_dies_of_is_a_result(tmp_path, tasks):
    (task,) = tasks(
        tmp_path, "synthetic", ["ce"], "model.hidden=[8]", "optimizer.lr=1e30", "train.epochs=3"
    )
    result = try_run_task(task)
    assert result.line is None
    assert result.error.startswith("DivergedError: loss and logits must stay finite")
    assert "Traceback" in (task.run.folder / "error.txt").read_text()
    (tmp_path / "file").write_text("")
    result = try_run_task(replace(task, run=replace(task.run, folder=tmp_path / "file")))
    assert "output folder" in result.error
