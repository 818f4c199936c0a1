"""A run whose loss reads the map before the pool: in training, in the log, and back from its folder."""

import json

import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import build_objective, execute, load_trained_run, prepare_data
from fedlas.predictions import Predictions

TINY = [
    "train.epochs=1", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.width=4", "losses.whole={loss: fedlas, features: map, norm_p: 2}",
]  # fmt: skip


def planned(out, *overrides, loss="whole"):
    return plan_runs(load_recipe("digits", [*TINY, *overrides]), losses=[loss], seeds=[0], out=out)[
        0
    ]


def test_indicator_reads_map_run_saves_head_input(tmp_path):
    run = planned(tmp_path)
    execute(run)
    trained = load_trained_run(run.folder)
    assert (trained.run.features, trained.run.loss_options) == ("map", {"norm_p": 2})
    maps = []
    trained.objective.model.pool.register_forward_pre_hook(
        lambda _, args: maps.append(args[0].flatten(1))
    )
    splits, target = trained.splits, torch.zeros(50, dtype=torch.int64)
    for images, _, _ in splits.batches(splits.val, batch_size=50):
        trained.objective(images, target)
    scores = trained.objective.criterion.nci(maps[0])
    (record,) = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert record["indicator"]["z_mean"] == pytest.approx(float(scores.mean()), abs=1e-4)
    saved = Predictions.load(run.folder / "predictions" / "test.npz")
    assert saved.features.shape == (50, 16)


def test_features_option_keeps_initial_weights(tmp_path):
    runs = [planned(tmp_path / loss, loss=loss) for loss in ("whole", "fedlas")]
    first, second = (build_objective(run, prepare_data(run)) for run in runs)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert first.find_feature_module(second.model) is second.model.pool
    assert second.find_feature_module(first.model) is first.model.fc


def test_features_of_named_module_without_pool(tmp_path):
    run = planned(tmp_path, "losses.whole={loss: fedlas, features: stages.2}")
    objective = build_objective(run, prepare_data(run))
    assert objective.find_feature_module(objective.model) is objective.model.stages[2]
    run = planned(tmp_path, "model={name: mlp}")
    with pytest.raises(InputError, match="pool its last feature map"):
        execute(run)
    assert not run.folder.exists()
