import os
import tempfile
from dataclasses import replace

import pytest

from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.runs.execute import execute
from fedlas.lab.runs.tracking import Tracking

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio-"))  # trackio reads it once, when imported

TINY = [
    "train.epochs=3", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A tiny run in a folder of its own, shown to trackers with these options."""
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)

    def make(trackers):
        recipe = replace(load_recipe("synthetic", TINY), trackers=trackers)
        return plan(recipe, losses=["fedlas"], seeds=[0], out=tmp_path)[0]

    return make


@pytest.fixture
def stopped(monkeypatch):
    """Starts a run and stops it when its first epoch is logged, before or after it is shown."""
    seen = Tracking.epoch

    def start(run, *, shown=True):
        def stops(self, record=None):
            if shown:
                seen(self, record)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Tracking, "epoch", stops)
            with pytest.raises(KeyboardInterrupt):
                execute(run)
        return run

    return start
