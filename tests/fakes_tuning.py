"""Small studies for tests of tuning: a recipe that trains in an instant, and losses that fail."""

import torch.nn.functional as F

from fedlas.losses import Loss

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
        return F.cross_entropy(batch.logits, batch.target, reduction="none") * (
            float("nan") if self.alpha > 0.5 else 1.0
        )
