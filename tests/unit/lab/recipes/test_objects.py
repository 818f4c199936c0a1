"""Runs whose data, model and loss are Python objects."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.recipes import plan_runs, recipe_from_objects
from fedlas.lab.runs import RunFolder, collect_runs, execute, load_trained_run, prepare_data
from fedlas.lab.train import TrainingProgress

QUICK = {"train": {"epochs": 2, "batch_size": 32, "precision": "fp32"}}


def rows(count, seed=0):
    random = np.random.RandomState(seed)
    inputs = random.standard_normal((count, 5)).astype(np.float32)
    return inputs, (inputs[:, 0] + 0.3 * random.standard_normal(count) > 0).astype(np.int64)


PARTS = rows(120), rows(60, 1), rows(80, 2)


class Jittered(Dataset):
    """Inputs with noise of torch's global generator, as a transform adds it."""

    def __init__(self, inputs, target):
        self.inputs = torch.from_numpy(inputs)
        self.target = target

    def __len__(self):
        return len(self.target)

    def __getitem__(self, row):
        return self.inputs[row] + 0.1 * torch.randn(5), int(self.target[row])


def two_layers(num_classes):
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, num_classes))


def doubled(num_classes):
    class Doubled(nn.Module):
        def forward(self, logits, target):
            return 2 * nn.functional.cross_entropy(logits, target)

    assert num_classes == 2
    return Doubled()


def recipe(parts=PARTS, model=two_layers, settings=QUICK, **more):
    return recipe_from_objects(
        *parts, model, name="toy", model_name="two", settings=settings, **more
    )


def test_runs_of_objects_are_trained_measured_and_collected(tmp_path):
    runs = plan_runs(
        recipe(losses={"doubled": doubled}), losses=["ce", "doubled"], seeds=[0], out=tmp_path
    )
    outcome = run_all(runs)
    assert (outcome.failed, outcome.finished) == ({}, ["ce-s0", "doubled-s0"])
    assert collect_runs(tmp_path).methods == ["ce", "doubled"]
    folder = RunFolder(tmp_path / "ce-s0")
    assert folder.predictions("test").num_samples == 80
    assert folder.config["data"]["options"] == {"python": True}
    assert folder.config["model"]["name"] == "two"
    assert set(folder.data) == {"train", "val", "test", "split"}
    with pytest.raises(InputError, match="must be passed again"):
        load_trained_run(folder)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_resumed_run_of_objects_is_bit_identical(tmp_path, kind):
    parts = PARTS if kind == "arrays" else [Jittered(*part) for part in PARTS]
    settings = {"train": {"epochs": 3, "batch_size": 32, "precision": "fp32"}}

    def one(out):
        return plan_runs(recipe(parts, settings=settings), losses=["fedlas"], seeds=[1], out=out)[0]

    whole = one(tmp_path / "whole")
    execute(whole)
    stopped = one(tmp_path / "stopped")

    class StopAfterTwo(TrainingProgress):
        def epoch(self, record):
            if record["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(stopped, show=StopAfterTwo)
    execute(stopped)
    logits = [
        RunFolder(each.folder).predictions(part).tensors().logits
        for each in (whole, stopped)
        for part in ("val", "test")
    ]
    assert torch.equal(logits[0], logits[2])
    if kind == "arrays":
        assert torch.equal(logits[1], logits[3])


def test_dataset_noise_is_fixed_per_epoch():
    run = plan_runs(recipe([Jittered(*part) for part in PARTS]), losses=["ce"], seeds=[0])[0]
    splits = prepare_data(run)
    batches = splits.training_batches(batch_size=32, seed=0)
    passes = []
    for epoch in (0, 0, 1):
        batches.set_epoch(epoch)
        order = torch.cat([index for *_, index in batches]).argsort()
        passes.append(torch.cat([inputs for inputs, *_ in batches])[order])
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])
    assert (passes[0] - torch.from_numpy(PARTS[0][0])).std() == pytest.approx(0.1, rel=0.2)


def test_tensor_datasets_and_registered_models(tmp_path):
    tensors = [TensorDataset(*map(torch.from_numpy, part)) for part in PARTS]
    run = plan_runs(
        replace(recipe(tensors, None), model=replace(recipe().model, name="linear")),
        losses=["ce"],
        seeds=[0],
        out=tmp_path,
    )[0]
    assert execute(run)["test"]["accuracy"] > 0.7
    data = json.loads((run.folder / "data.json").read_text())
    assert data["val"]["sha256"]


def test_another_training_part_is_refused(tmp_path):
    execute(plan_runs(recipe(), losses=["ce"], seeds=[0], out=tmp_path)[0])
    other = plan_runs(
        recipe((rows(120, 5), *PARTS[1:]), settings={"train": {**QUICK["train"]}}),
        losses=["ce"],
        seeds=[0],
        out=tmp_path,
    )[0]
    (tmp_path / "ce-s0" / "metrics.json").unlink()
    with pytest.raises(InputError, match="a run on the same data"):
        execute(other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parts": (rows(9), rows(9), (np.zeros((9, 4), np.float32), np.zeros(9, int)))}, "shape"),
        ({"parts": (rows(9), rows(9), "test.csv")}, "test must be a pair of arrays"),
        ({"parts": (rows(9), rows(9), (rows(9)[0], np.zeros(9)))}, "test must be whole numbers"),
        ({"settings": {"data": {"val_size": 3}}}, "settings of data must be among"),
        ({"settings": {"trian": {}}}, "every key must be a known option"),
        ({"losses": {"My Loss": doubled}}, "lower-case"),
    ],
)
def test_wrong_objects_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        recipe(**change)


def test_a_function_that_builds_no_module_is_refused(tmp_path):
    run = plan_runs(recipe(model=lambda: "net"), losses=["ce"], seeds=[0], out=tmp_path)[0]
    with pytest.raises(
        InputError, match=r"the function for the model two must return a torch\.nn\.Module"
    ):
        execute(run)


def test_models_of_images_refuse_rows(tmp_path):
    images = replace(recipe(model=None), model=replace(recipe().model, name="resnet8"))
    with pytest.raises(InputError, match="must accept rows of 5 features; got resnet8"):
        execute(plan_runs(images, losses=["ce"], seeds=[0], out=tmp_path)[0])
