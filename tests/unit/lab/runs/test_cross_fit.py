"""Targets from models that have not seen the sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.runs import FIXED, SMALL

from fedlas._core.ranks import new_accelerator
from fedlas.errors import InputError
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import execute, forecast_run, prepare_data
from fedlas.lab.runs import train as cross_fit
from fedlas.lab.runs.train import assign_folds, fold_runs, out_of_fold_probs
from fedlas.metrics import nll
from fedlas.predictions import Predictions

SETTINGS = [
    *SMALL,
    *(f"train.{key}={str(value).lower()}" for key, value in FIXED.items()),
    "data.cross_fit=2",
]


def planned(out, loss="cross-fitted", settings=SETTINGS):
    (run,) = plan_runs(load_recipe("synthetic", settings), losses=[loss], seeds=[0], out=out)
    return run


def test_folds_divide_every_class_equally():
    target = np.repeat([2, 0, 1], [31, 7, 62])
    fold = assign_folds(target, 3, 3, seed=0)
    for group in (fold, *(fold[target == label] for label in range(3))):
        assert np.ptp(np.bincount(group, minlength=3)) <= 1
    assert (fold != assign_folds(target, 3, 3, seed=1)).any()


def test_each_sample_is_predicted_out_of_fold(tmp_path, monkeypatch):
    run = planned(tmp_path)
    splits, seen = prepare_data(run), []

    def train(fold, objective, part):
        seen.append({image.numpy().tobytes() for image in part.train.images})
        for parameter in objective.model.fc.parameters():
            parameter.data.zero_()
        # each model names itself by the class that it predicts
        objective.model.fc.bias.data[len(seen)] = 3.0

    probs = out_of_fold_probs(run, splits, new_accelerator(), train)
    by = probs.argmax(dim=1)
    assert set(by.tolist()) == {1, 2}
    for image, model in zip(splits.train.images, by.tolist(), strict=True):
        assert image.numpy().tobytes() not in seen[model - 1]
    assert sum(map(len, seen)) == len(splits.train)
    # Right for one sample in ten, at a confidence of 0.69: a temperature makes that nearly log 10 of each.
    assert nll(Predictions(probs.log(), splits.train.target)) < 2.31
    # all folds are finished: nothing is trained again
    monkeypatch.setattr(cross_fit, "build_objective", None)
    torch.testing.assert_close(out_of_fold_probs(run, splits, new_accelerator(), train), probs)


def test_stopped_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    whole, run = execute(planned(tmp_path / "whole")), planned(tmp_path / "stopped")
    predictions_of, calls, left = cross_fit.predict_part, [], []

    def stopping(*args, **options):
        calls.append(args)
        # after the training of each fold, before its predictions are there
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return predictions_of(*args, **options)

    monkeypatch.setattr(cross_fit, "predict_part", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            execute(run)
        left.append(forecast_run(run).left)
    resumed = execute(run)
    assert len(calls) == 4  # both folds, each of them twice
    assert left == [4 + 8, 8]  # the second fold and the run itself; the run itself
    for measured in (whole, resumed):
        measured.pop("seconds")
    assert resumed == whole
    assert not list(run.folder.glob("cross-fit/*/checkpoint.pt"))
    assert forecast_run(run).left == 0


def test_steps_of_the_folds_are_counted(tmp_path):
    assert forecast_run(planned(tmp_path)).steps == 2 * 4 + 2 * 2 * 2
    # a loss that takes no targets has no folds
    assert forecast_run(planned(tmp_path, "ls")).steps == 2 * 4
    assert fold_runs(planned(tmp_path, "ls")) == []


def test_loss_with_targets_names_their_source(tmp_path):
    with pytest.raises(InputError, match=r"requires data.cross_fit, the number of models"):
        planned(tmp_path, settings=SMALL)
    with pytest.raises(InputError, match="cross_fit"):
        planned(tmp_path, settings=[*SMALL, "data.cross_fit=1"])
    run = planned(tmp_path)
    nested = replace(run.recipe, losses={"controlled": {"base": "cross-fitted"}})
    assert len(fold_runs(replace(run, recipe=nested, loss="controlled"))) == 2
