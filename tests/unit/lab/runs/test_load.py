import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.features import find_head
from fedlas.lab.benches import run_all
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import (
    RunFolder,
    execute,
    load_splits_if_available,
    load_trained_run,
    predict_part,
    warn_if_validation_small,
)
from fedlas.lab.train import warn_once
from fedlas.predictions import Predictions

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]", "losses.mine.loss=fedlas", "losses.mine.alpha=0.07",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = plan_runs(
        load_recipe("synthetic", TINY),
        losses=["mine"],
        seeds=[3],
        out=tmp_path_factory.mktemp("bench"),
    )[0]
    execute(run)
    return run


def test_the_same_run_comes_back(run):
    again = RunFolder(run.folder).run
    assert again.config() == run.config()
    assert (again.name, again.registered_loss_name, again.folder) == (
        "mine-s3",
        "fedlas",
        run.folder,
    )


def test_best_weights_give_the_saved_predictions(run):
    trained = load_trained_run(run.folder)
    assert trained.objective.criterion.alpha == 0.07
    assert trained.metrics["best_epoch"] in (1, 2)
    saved = Predictions.load(run.folder / "predictions" / "test.npz")
    made = predict_part(
        trained.objective, trained.splits, trained.splits.test, batch_size=50, features=True
    )
    for name in ("logits", "target", "features", "label_probs"):
        assert np.array_equal(getattr(made, name), getattr(saved, name)), name
    head = find_head(trained.objective.model)
    torch.testing.assert_close(head(saved.tensors().features), saved.tensors().logits)


def test_unfinished_or_missing_run_is_refused(run, tmp_path):
    for folder in (tmp_path, Path("nowhere"), run.folder / "config.yaml"):
        with pytest.raises(InputError, match="the folder must be a run folder"):
            _ = RunFolder(folder).run
    other = tmp_path / "unfinished"
    other.mkdir()
    (other / "config.yaml").write_bytes((run.folder / "config.yaml").read_bytes())
    with pytest.raises(InputError, match="must be finished"):
        load_trained_run(other)


@pytest.fixture
def moved(tmp_path):
    """A run on an .npz in a folder whose name is no UTF-8, which is somewhere else now."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    random = np.random.default_rng(0)
    arrays = {}
    for part, samples in (("train", 60), ("test", 20)):
        arrays[f"{part}_images"] = random.integers(0, 256, (samples, 4, 4, 1), dtype=np.uint8)
        arrays[f"{part}_target"] = np.arange(samples) % 2
    np.savez(folder / "mine.npz", **arrays)
    recipe = load_recipe(
        "synthetic", ["data={name: npz, val_size: 20}", "train.epochs=1", "model.hidden=[8]"]
    )
    (run,) = plan_runs(
        recipe.with_data_root(str(folder / "mine.npz")),
        losses=["ce"],
        seeds=[0],
        out=tmp_path / "runs",
    )
    execute(run)
    return run, folder / "mine.npz"


def test_a_run_remembers_where_its_data_was(moved, monkeypatch, tmp_path):
    run, place = moved
    monkeypatch.chdir(tmp_path / "runs")
    assert RunFolder(run.folder).saved_data_root == str(place)
    assert len(load_trained_run(run.folder).splits.test) == 20
    assert "root" not in RunFolder(run.folder).config["data"]  # the same run on another machine


def test_moved_data_error_names_the_data_option(moved, tmp_path):
    run, place = moved
    place.rename(tmp_path / "new.npz")
    with pytest.raises(InputError, match=r"must be available.*mine\.npz.*--data PATH"):
        load_trained_run(run.folder)
    splits, why = load_splits_if_available(run.folder)
    assert splits is None
    assert "--data PATH" in why
    assert len(load_trained_run(run.folder, data=str(tmp_path / "new.npz")).splits.test) == 20


def test_saved_data_root_requires_matching_fingerprint(moved):
    """A stranger's run folder could name any place, and a page would show the images in it."""
    run, _ = moved
    (run.folder / "data.json").unlink()
    with pytest.raises(InputError, match="no root"):
        load_trained_run(run.folder)


def test_a_run_without_files_keeps_no_place(run, monkeypatch, tmp_path):
    assert RunFolder(run.folder).saved_data_root is None
    # A run copied to another machine finds its data in the usual places there.
    (run.folder / "data_root.txt").write_text(str(tmp_path / "gone"))
    try:
        assert len(load_trained_run(run.folder).splits.val) == 50
    finally:
        (run.folder / "data_root.txt").unlink()


def test_a_small_validation_part_is_named_once(tmp_path, caplog):
    warn_once.cache_clear()
    runs = plan_runs(load_recipe("synthetic", TINY), losses=["ce", "ls"], seeds=[0], out=tmp_path)
    with caplog.at_level(logging.WARNING, logger="fedlas"):
        run_all(runs)
    (said,) = [record.message for record in caplog.records if "validation" in record.message]
    assert said.startswith("50 validation images are too few to choose an epoch and a temperature")
    caplog.clear()
    warn_if_validation_small(200)
    assert not caplog.records
