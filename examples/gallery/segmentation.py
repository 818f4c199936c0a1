"""
Pixels are not independent
==========================

The pixels of one image fail together. An interval that takes each pixel for a sample of its own is several times too
narrow; with the image as cluster it is right.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import fedlas

torch.manual_seed(0)


def scenes(count):
    """Return images of discs with noise that differs from image to image, and masks."""
    grid = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij"))
    centers = 8 + 16 * torch.rand(count, 2, 1, 1)
    masks = ((grid - centers) ** 2).sum(1).sqrt() < 4 + 6 * torch.rand(count, 1, 1)
    noise = (0.2 + 2 * torch.rand(count, 1, 1) ** 3) * torch.randn(count, 32, 32)
    return (masks + noise)[:, None], masks.long()


model = nn.Sequential(
    nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 2, 1)
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
images, masks = scenes(30)
for _ in range(80):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), masks).backward()
    optimizer.step()

# %%
# ``predict`` makes each image a cluster: 60 of them, with 61,440 pixels.

pixels = fedlas.predict(model, [scenes(60)])
alone = fedlas.Predictions(pixels.logits, pixels.target)
metrics = ["accuracy", "nll", "brier"]
measured = {
    "pixels as samples": fedlas.stats.estimates(alone, metrics),
    "images as clusters": fedlas.stats.estimates(pixels, metrics),
}

_, axes = plt.subplots(1, len(metrics), figsize=(9, 3), layout="constrained")
for ax, metric in zip(axes, metrics, strict=True):
    for place, (name, estimates) in enumerate(measured.items()):
        number = estimates[metric]
        ax.plot([place, place], [number.low, number.high], linewidth=6, label=name)
        ax.plot(place, number.value, "ko")
    ax.set(title=metric, xticks=[], xlim=(-1, 2))
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()
