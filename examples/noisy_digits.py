"""What the examples share: scikit-learn's digits, made hard with noise, so that there is something to calibrate.

On the clean digits a small network is right 97 times in 100 and nearly as sure as that; smoothing it would only make it
too modest. With noise, cross-entropy claims far more than it achieves, as large networks do on hard data.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset

torch.manual_seed(0)  # so that an example prints the same each time


def data_sets(noise=0.3, shape=(64,)):
    """600 digits to train, 400 to validate, 797 to test: images ``(N, *shape)`` of standard deviation about 0.5."""
    images, target = load_digits(return_X_y=True)
    images = torch.tensor(images / 16.0).float()
    images += noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    target = torch.tensor(target)
    train, rest = train_test_split(torch.arange(len(target)), train_size=600, random_state=0, stratify=target)
    val, test = train_test_split(rest, train_size=400, random_state=0, stratify=target[rest])
    return [TensorDataset(images[rows].reshape(-1, *shape), target[rows]) for rows in (train, val, test)]


def network(seed=0):
    """64 pixels to 10 classes, always from the same weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def show(name, found):
    """One line: accuracy and ECE."""
    print(f"{name:<24} accuracy {found['accuracy']:.4f}  ECE {found['ece']:.4f}")
