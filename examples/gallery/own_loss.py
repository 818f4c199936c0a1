"""
A loss of your own, over five seeds
===================================

One run of the new loss may look better than cross-entropy. Five seeds of each show no difference.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from fedlas import lab
from fedlas.losses import Loss


class Squeezed(Loss):
    """Cross-entropy, with a price on large logits (Kannan et al. 2018)."""

    def __init__(self, price=0.01, **options):
        super().__init__(**options)
        self.price = price

    def per_sample(self, batch):
        """Return the loss of each sample ``(M,)``."""
        return batch.cross_entropy() + self.price * batch.logits.square().mean(dim=1)


class Network(nn.Sequential):
    """Two layers, too wide for 400 images."""

    def __init__(self, num_classes):
        super().__init__(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, num_classes))


digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
images += 0.25 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
sizes = [400, 400, 997]
train, val, test = zip(images.split(sizes), torch.tensor(digits.target).split(sizes), strict=True)

# %%
# Five seeds of two losses; what has run is not run again.

result = lab.bench(
    train,
    val,
    test,
    models={"network": Network},
    losses={"ce": None, "squeezed": Squeezed},
    out="runs",
    settings={"train": {"epochs": 60}},
)
print(result)

# %%
# A dot for each seed, and the ECE of a calibrated model as a line.

_, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
result.figure("ece", ax=ax)
plt.show()
