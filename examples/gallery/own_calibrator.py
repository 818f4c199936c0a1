"""
A calibrator of your own
========================

A calibrator is one method that returns a module. Registered, it stands in every command and in every comparison, and
``auto`` may take it.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import fedlas
from fedlas.calibrators import CALIBRATORS, Calibrator


class Softened(nn.Module):
    """The average of the predictions and the shares of the classes."""

    def __init__(self, shares, weight):
        super().__init__()
        self.register_buffer("shares", shares)
        self.register_buffer("weight", weight)

    def forward(self, rows):
        return ((1 - self.weight) * rows.softmax(dim=1) + self.weight * self.shares).log()


@CALIBRATORS.register("softened-labels")
class Softening(Calibrator):
    """Moves predictions toward the shares of the classes."""

    map_type = Softened

    def fit_map(self, val, start=None):
        val = val.tensors()
        count = torch.bincount(val.target, minlength=val.num_classes).double() + 1
        shares = count / count.sum()
        weights = torch.linspace(0, 0.9, 91, dtype=torch.float64)
        fits = [Softened(shares, weight) for weight in weights]
        return min(fits, key=lambda fit: nn.functional.nll_loss(fit(val.logits.double()), val.target))


# %%
# One label in five is wrong. No temperature is right for that; the calibrator above is.

torch.manual_seed(0)
logits = 2 * torch.randn(6000, 4)
honest = torch.multinomial(logits.softmax(1), 1)[:, 0]
target = torch.where(torch.rand(6000) < 0.2, torch.randint(4, (6000,)), honest)
predictions = fedlas.Predictions(logits, target)
val, test = predictions.rows(torch.arange(6000) < 1000), predictions.rows(torch.arange(6000) >= 1000)

# %%
# Intervals of the difference to a temperature, on the same samples.

rival = CALIBRATORS.build("temperature").fit(val).transform(test)
differences = {}
for name in ["isotonic", "spline", "softened-labels", "auto"]:
    after = CALIBRATORS.build(name).fit(val).transform(test)
    differences[name] = fedlas.compare(after, rival, ["nll"])["nll"]

_, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for place, difference in enumerate(differences.values()):
    ax.plot([difference.low, difference.high], [place, place], linewidth=6)
    ax.plot(difference.a - difference.b, place, "ko")
ax.axvline(0, color="gray", linewidth=1)
ax.set(yticks=range(len(differences)), yticklabels=differences, xlabel="NLL less that of a temperature")
plt.show()
