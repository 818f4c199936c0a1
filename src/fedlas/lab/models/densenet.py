"""torchvision's DenseNet, with its original stem or one for small images."""

from __future__ import annotations

from typing import Any

from torch import nn

from fedlas._core.check import check_count
from fedlas._core.extras import require
from fedlas.lab.models.base import MODELS, check_dropout
from fedlas.lab.models.pooled import PooledClassifier
from fedlas.lab.models.stem import Stem, first_convolution


@MODELS.register("densenet121", paper="Huang et al. 2016", url="https://arxiv.org/abs/1608.06993")
def build_densenet121(
    num_classes: int, in_channels: int, *, image_size: int = 32, stem: Stem = "small", dropout: float = 0.0
) -> nn.Module:
    """DenseNet-121, growth rate 32 (7.0 million parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Any; the network pools globally.
        stem: ``"small"``, a 3 x 3 convolution, for 32 or 64 pixels; or ``"imagenet"``, torchvision's 7 x 7 with
            stride 2 and a max-pool.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    name = "densenet121"
    check_count(name, "image_size", image_size)
    rate = check_dropout(name, dropout)
    built: Any = require("torchvision.models", extra="models").densenet121(num_classes=num_classes)
    features = built.features
    features.conv0 = first_convolution(name, stem, in_channels, features.conv0)
    if stem == "small":
        features.pool0 = nn.Identity()
    return PooledClassifier(features, built.classifier.in_features, num_classes, rate)
