"""Small studies for tests of tuning: a recipe that trains in an instant, losses that fail, and what a study came to."""

import json

from fedlas.losses import Loss
from fedlas.losses._base import smoothed_nll

TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]", "train.select=accuracy",
]  # fmt: skip


class Touchy(Loss):
    """Cross-entropy that is not finite above a strength; with a negative one it fails otherwise."""

    def __init__(self, *, alpha=0.1, **shared):
        super().__init__(**shared)
        self.alpha = alpha

    def per_sample(self, batch):
        if self.alpha < 0:
            raise RuntimeError("no luck")
        return smoothed_nll(batch.logits, batch.target, 0.0) * (float("nan") if self.alpha > 0.5 else 1.0)


class Exploding(Loss):
    """Trains with a finite loss whose gradient makes the weights, and so the validation's logits, overflow."""

    def per_sample(self, batch):
        return smoothed_nll(batch.logits, batch.target, 0.0) + 1e36 * batch.logits.sum(1).tanh()


def result(folder):
    """``tune.json`` without what differs from start to start: times, and what the machine was."""
    found = json.loads((folder / "tune.json").read_text())
    del found["environment"]
    for method in found["methods"].values():
        for trial in method["trials"]:
            del trial["seconds"], trial["start"]
            for seed in trial["seeds"].values():
                del seed["seconds"]
    return found


def params(folder, method):
    return [trial["params"] for trial in result(folder)["methods"][method]["trials"]]
