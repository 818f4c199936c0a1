"""One tiny run, shared by the tests of export, card and monitor."""

import pytest

from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.execute import execute

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=200", "data.val_size=200", "data.test_size=300",
    "model.hidden=[8]",
]  # fmt: skip


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    run = plan(load_recipe("synthetic", TINY), losses=["ce"], seeds=[3], out=tmp_path_factory.mktemp("bench"))[0]
    execute(run)
    return run.folder
