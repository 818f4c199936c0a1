from pathlib import Path

import pytest
import torch

from fedlas._core.check import InputError
from fedlas.features import find_head
from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.runs.measure import predictions_of
from fedlas.predictions import Predictions

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]", "losses.mine.loss=fedlas", "losses.mine.alpha=0.07",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = plan(load_recipe("synthetic", TINY), losses=["mine"], seeds=[3], out=tmp_path_factory.mktemp("bench"))[0]
    execute(run)
    return run


def test_the_same_run_comes_back(run):
    again = RunFolder(run.folder).run
    assert again.config() == run.config()
    assert (again.name, again.registered_loss, again.folder) == ("mine-s3", "fedlas", run.folder)


def test_best_weights_give_the_saved_predictions(run):
    trained = load_trained(run.folder)
    assert trained.objective.criterion.alpha == 0.07
    assert trained.metrics["best_epoch"] in (1, 2)
    saved = Predictions.load(run.folder / "predictions" / "test.npz")
    made = predictions_of(trained.objective, trained.splits, trained.splits.test, batch_size=50, features=True)
    for name in ("logits", "target", "features", "label_probs"):
        assert torch.equal(getattr(made, name), getattr(saved, name)), name
    head = find_head(trained.objective.model)
    torch.testing.assert_close(head(saved.features), saved.logits)


def test_nonsense(run, tmp_path):
    for folder in (tmp_path, Path("nowhere"), run.folder / "config.yaml"):
        with pytest.raises(InputError, match="must be the folder of a run"):
            _ = RunFolder(folder).run
    other = tmp_path / "unfinished"
    other.mkdir()
    (other / "config.yaml").write_bytes((run.folder / "config.yaml").read_bytes())
    with pytest.raises(InputError, match="must be finished"):
        load_trained(other)
