"""The finished runs that tests read, each trained once a session; see the fixture ``runs``."""

from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import execute

FIXED = {"precision": "fp32", "channels_last": False}
"""For training whose numbers a test compares: by default they depend on the machine."""
SMALL = [
    "train.epochs=2", "train.batch_size=25", "optimizer.lr=0.3", "data.train_size=100", "data.val_size=50",
    "data.num_test=60", "data.num_train=400", "model.hidden=[8]",
]  # fmt: skip
RUNS = {
    # Two losses, three seeds, dropout, the same validation images for all.
    "shared": (
        "synthetic",
        [*SMALL, "data.split_seed=0", "model.dropout=0.3"],
        ["ce", "ls"],
        [0, 1, 2],
    ),
    # Three seeds, each with a split of its own.
    "apart": ("synthetic", SMALL, ["ce"], [0, 1, 2]),
    "open-set": ("synthetic", [*SMALL, "data.hold_out_classes=[7,8,'9']"], ["ce"], [0]),
    # Enough samples for a card.
    "single": ("synthetic", [*SMALL, "data.val_size=200", "data.num_test=300"], ["ce"], [3]),
    # Images that can be had without files.
    "digits": ("digits", ["train.epochs=3", "model.width=4"], ["ce", "fedlas"], [0, 1]),
}


def train(out, recipe, settings, losses, seeds):
    """Train; returns the runs' folders by name."""
    runs = plan_runs(load_recipe(recipe, settings), losses=list(losses), seeds=list(seeds), out=out)
    for run in runs:
        execute(run)
    return {run.name: run.folder for run in runs}
