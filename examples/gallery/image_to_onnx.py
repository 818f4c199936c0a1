"""
An image classifier, calibrated and exported
============================================

The network claims 95 percent and is right in 90. The exported file holds the calibration, so every program that runs
it gets probabilities that are right as often as they say.
"""

import matplotlib.pyplot as plt
import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fedlas
from fedlas.plots import reliability_diagram

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
images += 0.2 * torch.randn(images.shape)
parts = TensorDataset(images, torch.tensor(digits.target)), [300, 500, 997]
train, val, test = (DataLoader(part, batch_size=100) for part in torch.utils.data.random_split(*parts))

model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
for _ in range(40):
    for batch, target in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), target).backward()
        optimizer.step()

# %%
# Calibrate on images that the network has not seen, and export.

calibrated = fedlas.calibrate(model, val)
print(calibrated.before_after(test))
fedlas.deploy.export(calibrated, "digits.onnx", next(iter(test))[0])
session = onnxruntime.InferenceSession("digits.onnx")

# %%
# The diagrams: the network in PyTorch, and the exported file.

_, axes = plt.subplots(1, 2, figsize=(9, 5.5), layout="constrained")
reliability_diagram(fedlas.predict(model, test), ax=axes[0], title="network")
reliability_diagram(fedlas.predict(session, test), ax=axes[1], title="digits.onnx")
plt.show()
