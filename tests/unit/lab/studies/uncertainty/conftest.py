"""A small bench whose runs share a split, and one whose runs do not; no test may write into either."""

import pytest

from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.execute import execute

TINY = [
    "train.epochs=2", "optimizer.lr=0.3", "train.batch_size=25", "data.train_size=100", "data.val_size=50",
    "model.hidden=[8]",
    "data.num_test=60", "data.num_train=400",
]  # fmt: skip


def train(out, *overrides, losses=("ce",), seeds=(0,)):
    """Folders of finished runs, by name."""
    runs = plan(load_recipe("synthetic", [*TINY, *overrides]), losses=list(losses), seeds=list(seeds), out=out)
    for run in runs:
        execute(run)
    return {run.name: run.folder for run in runs}


@pytest.fixture(name="train", scope="session")
def _train():
    return train


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Two losses, three seeds, dropout, the same validation images for all."""
    out = tmp_path_factory.mktemp("runs") / "shared"
    return train(out, "data.split_seed=0", "model.dropout=0.3", losses=("ce", "ls"), seeds=(0, 1, 2))


@pytest.fixture(scope="session")
def apart(tmp_path_factory):
    """Three seeds, each with a split of its own."""
    return train(tmp_path_factory.mktemp("runs") / "apart", seeds=(0, 1, 2))
