"""Runs that start from the weights of another, with layers that rest, move slowly, or wait for the head."""

import json

import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.lab.models import weights_digest
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import build_objective, execute, load_trained_run, prepare_data

TINY = [
    "train.batch_size=50", "train.precision=fp32", "data.train_size=100", "data.val_size=50",
    "data.test_size=50", "data.image_size=16", "model={name: resnet8, width: 4}",
]  # fmt: skip


def planned(folder, *overrides, loss="fedlas", epochs=1):
    recipe = load_recipe("synthetic", [*TINY, f"train.epochs={epochs}", *overrides])
    return plan_runs(recipe, losses=[loss], seeds=[0], out=folder)[0]


def start_of(run):
    return build_objective(run, prepare_data(run)).model.state_dict()


def end_of(run):
    execute(run)
    return load_trained_run(run.folder).objective.model.state_dict()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    run = planned(tmp_path_factory.mktemp("source"), loss="ce")
    execute(run)
    return run.folder


def test_run_starts_from_best_epoch_of_another(source, tmp_path):
    run = planned(tmp_path, f"model.weights={source}")
    weights = load_trained_run(source).objective.model.state_dict()
    start = start_of(run)
    assert all(torch.equal(start[key], weights[key]) for key in weights)
    execute(run)
    digest = json.loads((run.folder / "data.json").read_text())["weights"]
    assert digest == weights_digest(source)


def test_weights_of_another_width_name_the_keys(source, tmp_path):
    run = planned(tmp_path, f"model.weights={source}", "model.width=8")
    with pytest.raises(InputError, match=r"of another shape: bn1\.bias \(4,\) for \(8,\)"):
        execute(run)


def test_frozen_layers_and_their_statistics_stay_unchanged(source, tmp_path):
    run = planned(tmp_path, f"model.weights={source}", "model.freeze=[conv1, bn1, stages.0]")
    start, end = start_of(run), end_of(run)
    changed = {key for key in start if not torch.equal(start[key], end[key])}
    frozen = ("conv1.", "bn1.", "stages.0.")
    assert changed == {key for key in start if not key.startswith(frozen)}
    assert {"stages.1.0.bn1.running_var", "stages.1.0.bn1.num_batches_tracked"} <= changed


def test_the_head_alone_trains_while_it_is_probed(source, tmp_path, monkeypatch):
    modes = []
    forward = nn.BatchNorm2d.forward

    def noted(layer, x):
        modes.append(layer.training)
        return forward(layer, x)

    options = [f"model.weights={source}", "train.probe_epochs=2", "train.checkpoint_every=1"]
    run = planned(tmp_path / "run", *options, epochs=3)
    start = start_of(run)
    monkeypatch.setattr("fedlas.lab.train.loop.FineTuning.select_trainable", stop_in_epoch(3))
    with pytest.raises(KeyboardInterrupt):
        execute(run)
    monkeypatch.undo()
    probed = torch.load(run.folder / "checkpoint.pt")["objective"]
    changed = {key for key in start if not torch.equal(start[key], probed[f"model.{key}"])}
    assert changed == {"fc.weight", "fc.bias"}
    monkeypatch.setattr(nn.BatchNorm2d, "forward", noted)
    execute(run)
    assert True in modes
    end = torch.load(run.folder / "checkpoint.pt")["objective"]
    assert all(not torch.equal(end[f"model.{k}"], v) for k, v in start.items())


def stop_in_epoch(number):
    """``FineTuning.select_trainable`` that stands for a kill at the start of an epoch."""
    from fedlas.lab.train.layers import FineTuning

    select_trainable = FineTuning.select_trainable

    def stopped(tuning, epoch):
        if epoch == number:
            raise KeyboardInterrupt
        return select_trainable(tuning, epoch)

    return stopped


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_equals_uninterrupted(source, tmp_path, monkeypatch, number, optimizer):
    options = [
        f"model.weights={source}", "model.freeze=[conv1]", "train.probe_epochs=1",
        "optimizer.layer_decay=0.7", f"optimizer.name={optimizer}", "optimizer.lr=0.01",
        "optimizer.layer_rates={fc: 5}", "schedule.warmup_epochs=1",
    ]  # fmt: skip
    whole = planned(tmp_path / "whole", *options, epochs=4)
    cut = planned(tmp_path / "cut", *options, epochs=4)
    execute(whole)
    monkeypatch.setattr("fedlas.lab.train.loop.FineTuning.select_trainable", stop_in_epoch(number))
    with pytest.raises(KeyboardInterrupt):
        execute(cut)
    monkeypatch.undo()
    execute(cut)
    a, b = (torch.load(run.folder / "checkpoint.pt") for run in (whole, cut))
    assert all(torch.equal(value, b["objective"][key]) for key, value in a["objective"].items())
    assert str(a["optimizer"]) == str(b["optimizer"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["model.tune=head", "model.freeze=[fc]"], "model.tune=head must not be combined"),
        (["model.tune=head", "train.probe_epochs=1"], "got train.probe_epochs"),
        (
            ["model.freeze=[conv1]", "train.average=swa", "schedule.name=swa"],
            "must not be combined with model.bayesian",
        ),
        (
            ["train.probe_epochs=1", "model.bayesian=true"],
            "must not be combined with model.bayesian",
        ),
    ],
)
def test_ways_that_exclude_each_other_are_refused(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        planned(tmp_path, *change, epochs=3)


def test_a_configuration_without_them_is_as_before(tmp_path):
    config = planned(tmp_path).config()
    assert not {"freeze", "tune", "weights"} & set(config["model"])
    assert not {"layer_decay", "layer_rates"} & set(config["optimizer"])
    assert "probe_epochs" not in config["train"]
