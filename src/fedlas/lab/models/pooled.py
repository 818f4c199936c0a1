"""Classifier on top of convolutions: global mean, dropout, one linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GlobalMean(nn.Module):
    """Mean over all positions; a module, so that hooks can read its input."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(N, D, H, W)`` to ``(N, D)``."""
        return maps.mean((2, 3))


class PooledClassifier(nn.Module):
    """ReLU, global mean, dropout and the classifier ``fc`` after a stack of convolutions.

    Args:
        features: From images to a map ``(N, D, H, W)``.
        width: ``D``.
        num_classes: ``C``.
        dropout: Rate of dropout on the pooled features.
    """

    def __init__(self, features: nn.Module, width: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.pool = GlobalMean()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of ``images (N, channels, H, W)``."""
        logits: Tensor = self.fc(self.dropout(self.pool(F.relu(self.features(images)))))
        return logits
