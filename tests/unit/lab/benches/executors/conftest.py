"""Small plans, and someone to tell what happens."""

import json
import sys
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest

from fedlas.lab.benches.executors import Task
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.train import TrainingProgress, read_log
from stops import Stops

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
]  # fmt: skip


class Told:
    """Events as an executor tells them."""

    def __init__(self):
        self.names, self.losses, self.texts, self.idles = [], [], [], 0

    def on_start(self, task):
        self.names.append(task.run.name)

    def on_lost(self, task, reason):
        self.losses.append((task.run.name, reason))

    def on_message(self, text):
        self.texts.append(text)

    def show(self, task):
        return TrainingProgress

    def on_idle(self):
        self.idles += 1


@pytest.fixture(scope="module")
def stops(tmp_path_factory):
    """Orders for the processes that the module's tests start."""
    with pytest.MonkeyPatch.context() as patch:
        yield Stops(tmp_path_factory.mktemp("stops"), patch)
    forkserver._forkserver._stop()


@pytest.fixture
def tasks():
    """``tasks(folder, recipe, losses, *overrides)``: tasks of a tiny bench."""

    def make(folder, recipe, losses, *overrides):
        runs = plan_runs(
            load_recipe(recipe, [*TINY, *overrides]), losses=losses, seeds=[0], out=folder
        )
        return [replace(Task.from_run(run), threads=1) for run in runs]

    return make


def starts(folder):
    return len(json.loads((folder / "environment.json").read_text()))


def check_resumed(folder, log_at_kill, *, epochs, times=2):
    """A run that was killed went on: what was logged before still stands, to the microsecond of its seconds."""
    log = read_log(folder / "log.jsonl")
    assert [record["epoch"] for record in log] == list(range(1, epochs + 1))
    assert 2 <= len(log_at_kill) < epochs
    assert log[: len(log_at_kill)] == log_at_kill
    assert starts(folder) == times


@pytest.fixture
def told():
    return Told


@pytest.fixture
def resumed():
    return check_resumed


@pytest.fixture
def restored(monkeypatch):
    """What a worker changes of its process."""
    monkeypatch.chdir(Path.cwd())
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("FEDLAS_DATA", "")
