"""Small plans, and someone to tell what happens."""

import contextlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedlas.lab.bench.executors import Task
from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.train import read_log

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
]  # fmt: skip


class Told:
    """Events as an executor tells them; ``kills`` names runs whose process is killed, each time with so many epochs."""

    def __init__(self, kills=None, find=None):
        self.names, self.losses, self.texts, self.idles = [], [], [], 0
        self.kills, self.find, self.tasks, self.logs = {k: list(v) for k, v in (kills or {}).items()}, find, {}, {}

    def started(self, task):
        self.names.append(task.run.name)
        self.tasks[task.run.name] = task

    def lost(self, task, reason):
        self.losses.append((task.run.name, reason))

    def said(self, text):
        self.texts.append(text)

    def idle(self):
        self.idles += 1
        for name, epochs in self.kills.items():
            log = read_log(self.tasks[name].run.folder / "log.jsonl") if name in self.tasks else []
            if epochs and len(log) >= epochs[0] and (process := self.find(name)):
                self.logs.setdefault(name, []).append(log)
                epochs.pop(0)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


@pytest.fixture
def tasks():
    """``tasks(folder, recipe, losses, *overrides)``: tasks of a tiny bench."""

    def make(folder, recipe, losses, *overrides):
        runs = plan(load_recipe(recipe, [*TINY, *overrides]), losses=losses, seeds=[0], out=folder)
        return [replace(Task.of(run, run.name), threads=1) for run in runs]

    return make


def starts(folder):
    return len(json.loads((folder / "environment.json").read_text()))


def check_resumed(folder, log_at_kill, *, epochs, times=2):
    """A run that was killed went on: what was logged before still stands, to the microsecond of its seconds."""
    log = read_log(folder / "log.jsonl")
    assert [record["epoch"] for record in log] == list(range(1, epochs + 1))
    kept = len(log_at_kill) - 1  # the last epoch's checkpoint may have been on its way
    assert kept >= 2
    assert log[:kept] == log_at_kill[:kept]
    assert len(log_at_kill) < epochs
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
